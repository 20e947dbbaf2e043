"""The checks of a workspace: what runs in the sandbox, and what its answer says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from agentfarm.tools._junit import read_report
from agentfarm.tools._result_text import count, shortened
from agentfarm.tools._sandbox_tools import PYTEST, REPORT
from agentfarm.tools.sandbox import SandboxFile, SandboxResult
from agentfarm.tools.sandbox._files import OWN_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

CheckName = Literal["syntax", "imports", "tests", "lint", "types"]
CheckStatus = Literal["passed", "failed", "skipped"]

SCRIPT = f"{OWN_PREFIX}check.py"
MAX_FINDINGS = 50
OUTPUT_CHARS = 2000
MESSAGE_CHARS = 500
IMPORTS_SHARE = 0.8  # of the timeout; the rest is for the answer

PYFLAKES = ("python3", "-I", "-m", "pyflakes", ".")
MYPY = (
    *("python3", "-I", "-m", "mypy", "--config-file=", "--cache-dir=/dev/null"),
    *("--ignore-missing-imports", "--no-error-summary", "--no-color-output"),
    *("--hide-error-context", "--namespace-packages", "--explicit-package-bases", "."),
)
"""With rules of its own, so that the work does not choose how it is judged."""

_FOUND = re.compile(r"(?:\./)?(.+?\.pyi?):(\d{1,7}):(?:\d{1,7}:)? (.*)")
_ANNOTATED = re.compile(r"\)\s*->|def \w{1,80}\([^()]{0,500}?\w:")
_NO_MODULE = re.compile(r"No module named '?(\w+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What one tool found.

    Attributes:
        name: Which check.
        status: ``skipped`` where it could not be made; `detail` says why.
        detail: How it ended, in one line.
        data: The same for programs, as JSON values. ``findings`` has file, line
            (None where unknown) and message of each problem, at most 50.
        blocking: Whether the work cannot stand if this failed.
    """

    name: CheckName
    status: CheckStatus
    detail: str
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    blocking: bool = True

    @property
    def findings(self) -> list[Mapping[str, Any]]:
        """The problems."""
        return list(self.data.get("findings", ()))

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON values."""
        return {
            "name": self.name,
            "status": self.status,
            "detail": self.detail,
            "blocking": self.blocking,
            "data": dict(self.data),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRun:
    """A check that has to be run.

    Attributes:
        name: Which check.
        command: What runs in the sandbox.
        judge: Says what its end means.
        needs_script: Whether `SCRIPT` has to lie beside the work.
        collect: Whether files come back.
    """

    name: CheckName
    command: tuple[str, ...]
    judge: Callable[[SandboxResult], Check]
    needs_script: bool = False
    collect: bool = False


def script() -> SandboxFile:
    """The program that compiles and imports inside the sandbox."""
    return SandboxFile(content=Path(__file__).with_name("_inside.py").read_bytes())


def checks_of(
    files: Mapping[str, SandboxFile], timeout_s: float
) -> list[Check | CheckRun]:
    """The five checks, in the order of their weight."""
    sources = {name: file for name, file in files.items() if name.endswith(".py")}
    if not sources:
        reason = "There are no Python files."
        names: tuple[CheckName, ...] = ("syntax", "imports", "tests", "lint", "types")
        return [skipped(name, reason) for name in names]
    imports = ("imports", f"{timeout_s * IMPORTS_SHARE:.1f}")
    return [
        CheckRun(
            name="syntax",
            command=("python3", "-I", SCRIPT, "syntax"),
            judge=_judge_syntax,
            needs_script=True,
        ),
        CheckRun(
            name="imports",
            command=("python3", "-I", SCRIPT, *imports),
            judge=_judge_imports,
            needs_script=True,
        ),
        CheckRun(name="tests", command=PYTEST, judge=_judge_tests, collect=True)
        if any(map(_is_test, sources))
        else skipped("tests", "There are no test files."),
        CheckRun(name="lint", command=PYFLAKES, judge=_judge_lint),
        CheckRun(name="types", command=MYPY, judge=_judge_types)
        if any(_ANNOTATED.search(file.text) for file in sources.values())
        else skipped("types", "No function has annotations."),
    ]


def skipped(name: CheckName, reason: str) -> Check:
    """A check that was not made."""
    return Check(name=name, status="skipped", detail=reason)


def failed(
    name: CheckName,
    detail: str,
    findings: Iterable[Mapping[str, Any]] = (),
    data: Mapping[str, Any] | None = None,
) -> Check:
    """A check that found problems."""
    shown = [dict(finding) for finding in findings][:MAX_FINDINGS]
    found = {**(data or {}), "findings": shown}
    return Check(name=name, status="failed", detail=detail, data=found)


def unfinished(
    name: CheckName, result: SandboxResult, timeout_s: float
) -> Check | None:
    """What a run means that did not come to its own end; None if it did."""
    if result.timed_out:
        reason = f"It did not end within {timeout_s:g} s."
    elif result.oom_killed:
        reason = "It ran out of memory."
    else:
        return None
    if name in {"lint", "types"}:
        return skipped(name, reason)
    return failed(name, reason, data=_output(result))


def _is_test(name: str) -> bool:
    """Whether pytest looks for tests in a file of this name."""
    stem = name.rpartition("/")[2].removesuffix(".py")
    return stem.startswith("test_") or stem.endswith("_test")


def _judge_syntax(result: SandboxResult) -> Check:
    answer = _answer(result)
    if answer is None:
        return _broken("syntax", result)
    total, wrong = answer["files"], answer["all"]
    if wrong:
        detail = f"{_of(wrong, 'file')} of {total} cannot be compiled."
        return failed("syntax", detail, answer["findings"])
    return Check(name="syntax", status="passed", detail=f"{_of(total, 'file')}.")


def _judge_imports(result: SandboxResult) -> Check:
    answer = _answer(result)
    if answer is None:
        return _broken("imports", result)
    total, wrong, notes = answer["modules"], answer["all"], answer["notes"]
    if wrong:
        detail = f"{_of(wrong, 'module')} of {total} cannot be imported."
        return failed("imports", detail, answer["findings"], {"notes": notes})
    if not total:
        return skipped("imports", "There are no modules but tests.")
    return Check(
        name="imports",
        status="passed",
        detail=f"{_of(total, 'module')}.",
        data={"notes": notes},
    )


def _judge_tests(result: SandboxResult) -> Check:
    file = result.files.get(REPORT)
    report = read_report(file.content) if file else None
    if report is None:
        return _lacking("tests", result) or failed(
            "tests", count(report), data=_output(result)
        )
    counts = {
        "passed": report.passed,
        "failed": report.failed,
        "errors": report.errors,
        "skipped": report.skipped,
    }
    if report.failed or report.errors:
        findings = [
            {**failure, "message": f"{failure['name']}: {failure['message']}"}
            for failure in report.failures
        ]
        return failed("tests", count(report), findings, counts)
    if not result.ok and not (result.exit_code == 5 and not any(counts.values())):
        # The report and the exit status contradict each other: nobody is believed.
        detail = f"{count(report)} But pytest ended with status {result.exit_code}."
        return failed("tests", detail, data={**_output(result), **counts})
    if not report.passed:
        return skipped("tests", f"No test was run: {count(report)}")
    return Check(name="tests", status="passed", detail=count(report), data=counts)


def _judge_lint(result: SandboxResult) -> Check:
    # Its own syntax errors go to stderr, and are what the first check is for.
    findings = [
        finding
        for finding in _parsed(result.stdout)
        if not _is_export(finding["file"], finding["message"])
    ]
    if findings:
        return _opinion("lint", findings, ("undefined name",))
    if lacking := _lacking("lint", result):
        return lacking
    if not result.ok and not result.stdout:
        return skipped("lint", f"pyflakes could not check it: {_first(result)}")
    return Check(name="lint", status="passed", detail="Nothing found.")


def _judge_types(result: SandboxResult) -> Check:
    if lacking := _lacking("types", result):
        return lacking
    found = [
        {**finding, "message": finding["message"].removeprefix("error: ")}
        for finding in _parsed(result.stdout)
        if finding["message"].startswith("error: ")
    ]
    if result.exit_code == 1 and found:
        return _opinion("types", found, ("Name ",))
    if not result.ok:
        return skipped("types", f"mypy could not check it: {_first(result)}")
    return Check(name="types", status="passed", detail="Nothing found.")


def _opinion(
    name: CheckName, findings: list[dict[str, Any]], errors: tuple[str, ...]
) -> Check:
    """Findings that block only where the code would fail when it gets there."""
    certain = [each for each in findings if each["message"].startswith(errors)]
    rest = [each for each in findings if each not in certain]
    found = failed(name, f"{_of(len(findings), 'finding')}.", [*certain, *rest])
    return Check(
        name=name,
        status="failed",
        detail=found.detail,
        data=found.data,
        blocking=bool(certain),
    )


def _parsed(text: str) -> list[dict[str, Any]]:
    found = map(_FOUND.fullmatch, text.splitlines())
    return [
        {"file": hit[1], "line": int(hit[2]), "message": hit[3][:MESSAGE_CHARS]}
        for hit in found
        if hit
    ]


def _is_export(file: str, message: str) -> bool:
    """Whether a package only hands on a name."""
    return Path(file).name == "__init__.py" and "imported but unused" in message


def _answer(result: SandboxResult) -> dict[str, Any] | None:
    """What `SCRIPT` printed; None where it did not come to its end."""
    try:
        answer = json.loads(result.stdout) if result.ok else None
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", answer) if isinstance(answer, dict) else None


def _broken(name: CheckName, result: SandboxResult) -> Check:
    detail = f"The check itself ended with status {result.exit_code}."
    return failed(name, detail, data=_output(result))


def _lacking(name: CheckName, result: SandboxResult) -> Check | None:
    """The check, if it could not be made because the sandbox has no such tool."""
    hit = _NO_MODULE.search(result.stderr)
    if result.exit_code != 1 or result.stdout.strip() or not hit:
        return None
    if hit[1] not in {"pytest", "pyflakes", "mypy"}:
        return None
    return skipped(name, f"The sandbox has no {hit[1]}.")


def _first(result: SandboxResult) -> str:
    lines = f"{result.stderr}\n{result.stdout}".strip().splitlines()
    return lines[0][:200] if lines else f"status {result.exit_code}"


def _output(result: SandboxResult) -> dict[str, str]:
    text = "\n".join(part for part in (result.stdout, result.stderr) if part.strip())
    return {"output": shortened(text.strip(), OUTPUT_CHARS)}


def _of(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
