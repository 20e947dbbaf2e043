"""Coding tasks in folders, and the hidden tests that judge what a model wrote.

The host knows every check beforehand: one that ends early, never runs or is skipped
counts as failed. The tests reach the sandbox through stdin and lie outside the
workspace; settings, plugins and a conftest.py of the answer do not count; and a
module of the answer cannot stand in for one of Python's or pytest's. Each test module
runs in a child process whose results carry a nonce; two checks that must fail run
with it, and if one passes, nothing of the answer counts.

What remains: the answer's code and the checks share that child. Code that is written
to defeat this judge, e.g. that looks up the nonce among the objects of the process
and sends results of its own, or reads the tests' source and answers by it, can score
what it likes. It cannot reach another answer or the host.
"""

from __future__ import annotations

import ast
import json
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from agentfarm.errors import EvalError, SandboxError
from agentfarm.tools.sandbox._contract import SandboxFile
from agentfarm.tools.sandbox._files import inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentfarm.tools.sandbox import Sandbox, SandboxResult

Category = Literal["code_generation", "bug_fixing", "refactoring", "multi_step"]
Status = Literal["passed", "failed", "skipped", "missing"]

LANGUAGES = ("en", "sv")
MAX_ANSWER_BYTES = 32 * 2**20
DRIVER = Path(__file__).with_name("_hidden_tests.py")
DRIVER_COMMAND = ("python3", "-I", "-B", "-c")
# The driver stops by itself this much before the sandbox would stop it.
MARGIN_S = 2.0
_KEYS = {"id", "category", "title", "description", "check_timeout_s", "weights"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeTask:
    """One task of a coding suite, its tests and its solutions included.

    Attributes:
        id: Name of its folder.
        category: What kind of work it is.
        title: A few words for people.
        description: One sentence for people.
        prompts: What the model is asked, by language code.
        files: Laid into the workspace before the task begins, text by name.
        tests: Hidden test modules, source by file name.
        weights: Every check in the order of the tests, with its share of the score.
        reference: Files that, laid over `files`, score 1.0.
        wrong: The same for plausible answers that score less, by name.
        check_timeout_s: What one check may take, seconds.
    """

    id: str
    category: Category
    title: str
    description: str
    prompts: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str] = field(repr=False)
    tests: Mapping[str, str] = field(repr=False)
    weights: Mapping[str, float] = field(repr=False)
    reference: Mapping[str, str] = field(repr=False)
    wrong: Mapping[str, Mapping[str, str]] = field(repr=False)
    check_timeout_s: float = 10.0

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of all checks."""
        return tuple(self.weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeScore:
    """What hidden tests said about an answer.

    Attributes:
        value: Weights of the checks that passed, of all weights: 0 to 1.
        passed: Number of checks that passed.
        total: Number of all checks, those that never ran counted in.
        checks: Name, status and message of each, in the order of the tests.
        explanation: The same in one sentence for people.
    """

    value: float
    passed: int
    total: int
    checks: tuple[tuple[str, Status, str], ...]
    explanation: str


def load_code_tasks(folder: Path) -> tuple[CodeTask, ...]:
    """Load coding tasks from a folder with a ``tasks.toml``.

    Each ``[[tasks]]`` names its id, category, title and description, and may set
    ``check_timeout_s`` and, by check, ``weights`` other than 1. The folder of that
    id holds ``prompt.en.md``, ``prompt.sv.md``, ``tests/``, ``reference/``,
    ``wrong/<name>/`` and, where the task begins with files, ``files/``.

    Raises:
        EvalError: A part is missing or malformed; the message names it.
    """
    table = folder / "tasks.toml"
    try:
        listed = tomllib.loads(table.read_text(encoding="utf-8"))["tasks"]
    except (OSError, ValueError, KeyError) as error:
        raise EvalError(
            f"{table} lists no tasks: {error}.", remedy="Write [[tasks]] tables."
        ) from error
    return tuple(_load(folder, entry) for entry in listed)


def _load(folder: Path, entry: Mapping[str, Any]) -> CodeTask:
    place = folder / str(entry.get("id"))
    if unknown := entry.keys() - _KEYS:
        raise EvalError(
            f"{place.name} of {folder}/tasks.toml has unknown fields: "
            f"{', '.join(sorted(unknown))}.",
            remedy=f"Use {', '.join(sorted(_KEYS))}.",
        )
    if entry.get("category") not in get_args(Category):
        raise EvalError(
            f"{place} is of the unknown category {entry.get('category')!r}.",
            remedy=f"Use one of {', '.join(get_args(Category))}.",
        )
    tests = _texts(place / "tests", required=True)
    wrong = place / "wrong"
    try:
        return CodeTask(
            **{
                **entry,
                "prompts": {
                    language: (place / f"prompt.{language}.md").read_text("utf-8")
                    for language in LANGUAGES
                },
                "files": _texts(place / "files"),
                "tests": tests,
                "weights": _weights(place, tests, entry.get("weights", {})),
                "reference": _texts(place / "reference", required=True),
                "wrong": {
                    each.name: _texts(each, required=True)
                    for each in (sorted(wrong.iterdir()) if wrong.is_dir() else ())
                    if each.is_dir()
                },
            }
        )
    except (OSError, TypeError) as error:
        raise EvalError(
            f"The coding task {place} is not complete: {error}.",
            remedy="See load_code_tasks for what it must hold.",
        ) from error


def _texts(folder: Path, *, required: bool = False) -> dict[str, str]:
    """Every file below a folder by relative name, caches left out."""
    found = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    if required and not found:
        raise EvalError(f"{folder} holds no files.", remedy="Add them.")
    return found


def _weights(
    place: Path, tests: Mapping[str, str], given: Mapping[str, float]
) -> dict[str, float]:
    """All checks, read from the source, so that none can go missing unseen."""
    weights: dict[str, float] = {}
    for name, source in tests.items():
        for node in ast.parse(source, filename=f"{place}/tests/{name}").body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                raise _malformed(place, node.name, "is a class")
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("test"):
                continue
            if node.decorator_list or isinstance(node, ast.AsyncFunctionDef):
                raise _malformed(place, node.name, "is decorated or async")
            if node.name in weights:
                raise _malformed(place, node.name, "is there twice")
            weights[node.name] = float(given.get(node.name, 1.0))
    if given.keys() - weights.keys() or not weights or min(weights.values()) <= 0:
        raise EvalError(
            f"The weights of {place} do not fit its checks {', '.join(weights)}.",
            remedy="Give weights above 0 to functions of its tests.",
        )
    return weights


def _malformed(place: Path, name: str, problem: str) -> EvalError:
    return EvalError(
        f"{name} of {place}/tests {problem}.",
        remedy="One plain function is one check.",
    )


async def score_files(
    task: CodeTask,
    files: Mapping[str, SandboxFile | str],
    sandbox: Sandbox,
    *,
    timeout_s: float = 120.0,
) -> CodeScore:
    """Judge an answer by the task's hidden tests, in one run of the sandbox.

    An answer can still be written to defeat it; the module's docstring says how far.

    Args:
        task: With the tests.
        files: The whole workspace as the answer leaves it.
        sandbox: Where all of it runs.
        timeout_s: Wall time of the run, seconds; what is not judged by then failed.

    Raises:
        SandboxError: The sandbox or its image is at fault, and not the answer.
    """
    answer = {name: _file(content) for name, content in files.items()}
    if problem := _problem(answer):
        return _scored(task, {}, {}, problem)
    nonce = secrets.token_hex(16)
    job = {
        "nonce": nonce,
        "modules": dict(task.tests),
        "check_timeout_s": task.check_timeout_s,
        "deadline_s": max(timeout_s - MARGIN_S, timeout_s / 2),
    }
    result = await sandbox.run(
        (*DRIVER_COMMAND, DRIVER.read_text(encoding="utf-8")),
        files=answer,
        stdin=json.dumps(job),
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        timeout_s=timeout_s,
        collect=False,
    )
    return _judged(task, _facts(result, nonce))


def _file(content: SandboxFile | str) -> SandboxFile:
    if isinstance(content, SandboxFile):
        return content
    return SandboxFile(content=content.encode(errors="backslashreplace"))


def _judged(task: CodeTask, facts: list[dict[str, Any]]) -> CodeScore:
    modules = {fact["module"]: fact for fact in facts if "end" in fact}
    statuses = _statuses(facts)
    problem = _tampering(task, statuses, modules)
    return _scored(task, statuses, _early(facts, modules), problem)


def _problem(answer: Mapping[str, SandboxFile]) -> str:
    """Why an answer's files cannot be laid into a sandbox, if they cannot."""
    try:
        sizes = [entry.size for entry in inputs(answer)]
    except SandboxError as error:
        return error.message
    if sum(sizes) > MAX_ANSWER_BYTES:
        return f"The answer's files are larger than {MAX_ANSWER_BYTES >> 20} MiB."
    return ""


def _facts(result: SandboxResult, nonce: str) -> list[dict[str, Any]]:
    """What the driver told; it says that it is ready before the answer runs."""
    told = (line.partition(" ") for line in result.stdout.splitlines())
    facts = [json.loads(text) for mark, _, text in told if mark == nonce]
    if not facts:
        raise SandboxError(
            f"The hidden tests did not start ({result.summary}): "
            f"{result.stderr.strip()[-300:]}",
            remedy="The sandbox's image needs Python 3.9 or later with pytest: "
            "agentfarm sandbox build",
        )
    return facts[1:]


def _statuses(facts: list[dict[str, Any]]) -> dict[str, tuple[Status, str]]:
    """The first word on each check."""
    found: dict[str, tuple[Status, str]] = {}
    for fact in facts:
        if "check" in fact:
            found.setdefault(fact["check"], (fact["status"], fact["message"]))
    return found


def _early(
    facts: list[dict[str, Any]], modules: Mapping[str, dict[str, Any]]
) -> dict[str, str]:
    """Why checks of a module may be missing, by module."""
    ends = {name: f"{fact['end']} this check." for name, fact in modules.items()}
    return ends | {f["module"]: f["problem"] for f in facts if "problem" in f}


def _tampering(
    task: CodeTask,
    statuses: Mapping[str, tuple[Status, str]],
    modules: Mapping[str, dict[str, Any]],
) -> str:
    """Why results cannot be believed, if they cannot."""
    if any(fact["forged"] for fact in modules.values()):
        return "The answer changes how tests are judged: a check passed that must fail."
    passed = {name for name, (status, _) in statuses.items() if status == "passed"}
    whole = {name for name, fact in modules.items() if fact["whole"]}
    if passed >= task.weights.keys() and whole < task.tests.keys():
        return "The tests did not run to their end."
    return ""


def _scored(
    task: CodeTask,
    statuses: Mapping[str, tuple[Status, str]],
    early: Mapping[str, str],
    problem: str,
) -> CodeScore:
    """Count every check of the task; `problem` fails them all."""
    why = problem or "; ".join(dict.fromkeys(early.values())) or "It never ran."
    missing: tuple[Status, str] = ("missing", why)
    checks = tuple(
        (name, *(missing if problem else statuses.get(name, missing)))
        for name in task.checks
    )
    passed = [name for name, status, _ in checks if status == "passed"]
    weight = sum(task.weights[name] for name in passed)
    failed = [name for name in task.checks if name not in passed]
    explanation = f"{len(passed)} of {len(checks)} checks passed"
    if failed:
        explanation += f"; not: {', '.join(failed)}"
    return CodeScore(
        value=weight / sum(task.weights.values()) if failed else 1.0,
        passed=len(passed),
        total=len(checks),
        checks=checks,
        explanation=f"{explanation}." + (f" {problem}" if problem else ""),
    )
