"""The tools that run an agent's code: Python, tests and shell commands, sandboxed."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable
from agentfarm.tools._junit import read_report
from agentfarm.tools._result_text import count, describe, listed
from agentfarm.tools._tool import Tool, ToolResult
from agentfarm.tools._workspace import (
    Changes,
    Snapshot,
    take_snapshot,
    write_back,
)
from agentfarm.tools.sandbox._contract import Sandbox, SandboxFile, SandboxResult
from agentfarm.tools.sandbox._files import OWN_PREFIX, problem_with

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SOURCE = f"{OWN_PREFIX}code.py"
REPORT = f"{OWN_PREFIX}report.xml"
PYTEST = (
    *("python3", "-m", "pytest", "-q", "--tb=short", "--color=no"),
    *("-p", "no:cacheprovider", "-o", "junit_family=xunit2", f"--junitxml={REPORT}"),
)

_TIMEOUT = {
    "type": ["number", "null"],
    "exclusiveMinimum": 0,
    "description": "Seconds it may take.",
}


def sandbox_tools(
    sandbox: Sandbox,
    *,
    workspace: Path | None = None,
    timeout_s: float = 60.0,
    output_chars: int = 8000,
    lock: anyio.Lock | None = None,
) -> tuple[Tool, ...]:
    """Make ``run_python``, ``run_tests`` and ``run_command`` over one workspace.

    Each call runs in a fresh sandbox on a copy of the workspace's files; what it
    changed there is changed in the workspace afterwards. Calls may run at once: a
    file that another call or a person changed meanwhile is left as it is, and the
    result says so. A call raises `SandboxUnavailable` or `SandboxTimeout` where the
    machine and not the code is at fault; whatever else goes wrong is a result.

    Args:
        sandbox: Where the code runs; it stays the caller's to close.
        workspace: Folder of the host; None where nothing goes in or is kept.
        timeout_s: Wall time of a call, seconds; a model may ask for less.
        output_chars: Most characters of output that a result's text shows.
        lock: Held while the workspace is read or changed; pass the one that other
            writers of the folder hold.
    """
    runs = _Runs(
        sandbox=sandbox,
        workspace=workspace,
        timeout_s=timeout_s,
        output_chars=output_chars,
        lock=lock or anyio.Lock(),
    )
    place = (
        "It starts in the workspace's folder, keeps what it changes there, and has "
        f"no network. It may take {timeout_s:g} seconds."
    )
    return (
        Tool(
            name="run_python",
            description=f"Run Python 3 source and see its output. {place}",
            parameters=_schema(
                {"code": {"type": "string", "description": "The whole source."}},
                required=("code",),
            ),
            run=runs.run_python,
        ),
        Tool(
            name="run_tests",
            description=f"Run pytest and see which tests fail. {place}",
            parameters=_schema(
                {
                    "path": {
                        "type": ["string", "null"],
                        "description": "File, folder or file::test; all if absent.",
                    },
                    "pattern": {
                        "type": ["string", "null"],
                        "description": "Only tests whose names match, as pytest -k.",
                    },
                }
            ),
            run=runs.run_tests,
        ),
        Tool(
            name="run_command",
            description=f"Run one line with /bin/sh and see its output. {place}",
            parameters=_schema(
                {"command": {"type": "string", "minLength": 1}}, required=("command",)
            ),
            run=runs.run_command,
        ),
    )


def _schema(
    properties: Mapping[str, Any], required: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**properties, "timeout_s": _TIMEOUT},
        "required": list(required),
        "additionalProperties": False,
    }


@dataclass(kw_only=True)
class _Runs:
    """What the three tools share."""

    sandbox: Sandbox
    workspace: Path | None
    timeout_s: float
    output_chars: int
    lock: anyio.Lock
    limits_told: bool = False

    async def run_python(
        self, *, code: str, timeout_s: float | None = None
    ) -> ToolResult:
        # Under a name of ours: the work may have a main.py, or make one.
        source = SandboxFile(content=code.encode(errors="backslashreplace"))
        return await self._run(("python3", SOURCE), timeout_s, {SOURCE: source})

    async def run_command(
        self, *, command: str, timeout_s: float | None = None
    ) -> ToolResult:
        return await self._run(command, timeout_s)

    async def run_tests(
        self,
        *,
        path: str | None = None,
        pattern: str | None = None,
        timeout_s: float | None = None,
    ) -> ToolResult:
        command = [*PYTEST, f"-k{pattern}"] if pattern else [*PYTEST]
        target = _relative(path or ".")
        if target != ".":
            if problem := problem_with(target.split("::")[0]):
                return await self._misplaced(path or "", problem)
            command.append(f"./{target}")
        return await self._run(tuple(command), timeout_s, tests=True)

    async def _run(
        self,
        command: tuple[str, ...] | str,
        timeout_s: float | None,
        extra: Mapping[str, SandboxFile] | None = None,
        *,
        tests: bool = False,
    ) -> ToolResult:
        limit_s = min(timeout_s or self.timeout_s, self.timeout_s)
        try:
            before = await self._snapshot()
            files = {**before.files, **(extra or {})}
            result = await self.sandbox.run(command, files=files, timeout_s=limit_s)
            changes = await self._write_back(result, before)
        except (SandboxUnavailable, SandboxTimeout):
            raise
        except SandboxError as error:
            return ToolResult(text=str(error), ok=False, data={"error": "sandbox"})
        unenforced = () if self.limits_told else result.unenforced
        self.limits_told = True
        text = describe(
            result,
            changes,
            timeout_s=limit_s,
            output_chars=self.output_chars,
            unenforced=unenforced,
        )
        answer = ToolResult(text=text, ok=result.ok, data=_data(result, changes))
        return _judged(answer, result) if tests else answer

    async def _misplaced(self, path: str, problem: str) -> ToolResult:
        """Refuse a path, with the list of what there is."""
        try:
            names = sorted((await self._snapshot()).files)
        except SandboxError:
            names = []
        return ToolResult(
            text=f"The path {path[:200]!r} {problem}. Pass one relative to the "
            f"workspace. It holds: {listed(names) or 'nothing'}.",
            ok=False,
            data={"error": "arguments"},
        )

    async def _snapshot(self) -> Snapshot:
        if self.workspace is None:
            return Snapshot(files={}, signatures={})
        async with self.lock:
            return await to_thread.run_sync(take_snapshot, self.workspace)

    async def _write_back(self, result: SandboxResult, before: Snapshot) -> Changes:
        if self.workspace is None:
            return Changes()
        async with self.lock:
            return await to_thread.run_sync(write_back, self.workspace, result, before)


def _relative(path: str) -> str:
    """A path as a model writes it, `/work` being where it sees its files."""
    file, separator, test = path.partition("::")
    if f"{file}/".startswith("/work/"):
        file = file[len("/work/") :]
    return posixpath.normpath(file) + separator + test


def _data(result: SandboxResult, changes: Changes) -> dict[str, Any]:
    return {
        "exit_code": result.exit_code,
        "timed_out": result.timed_out,
        "oom_killed": result.oom_killed,
        "truncated": result.truncated,
        "duration_s": result.duration_s,
        "written": list(changes.written),
        "deleted": list(changes.deleted),
        "refused": dict(changes.refused),
    }


def _judged(answer: ToolResult, result: SandboxResult) -> ToolResult:
    """Add what pytest reported; its exit status and its report must agree.

    The counts are None where there is no report, so that nobody takes them for 0.
    """
    file = result.files.get(REPORT)
    report = read_report(file.content) if file else None
    names = ("passed", "failed", "errors", "skipped")
    counts = {name: getattr(report, name, None) for name in names}
    passed = report is not None and report.passed > 0
    failed = report is None or report.failed > 0 or report.errors > 0
    return ToolResult(
        text=f"{count(report)}\n{answer.text}",
        ok=answer.ok and passed and not failed,
        data={
            **answer.data,
            **counts,
            "failures": list(report.failures) if report else [],
        },
    )
