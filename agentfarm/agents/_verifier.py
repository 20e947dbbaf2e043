"""The verifier: tools in the sandbox say whether work stands, never a model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from agentfarm.agents._checks import (
    SCRIPT,
    Check,
    CheckRun,
    checks_of,
    failed,
    script,
    skipped,
    unfinished,
)
from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable
from agentfarm.events import EventType
from agentfarm.tools._result_text import shortened
from agentfarm.tools._workspace import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agentfarm.events import EventBus
    from agentfarm.tools.sandbox import Sandbox, SandboxFile

CHARS_PER_TOKEN = 4
_CUT_NOTE_CHARS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What the checks of one state of a workspace found.

    Attributes:
        checks: In the order of their weight: syntax, imports, tests, lint, types.
        duration_s: Seconds that they took together.
    """

    checks: tuple[Check, ...]
    duration_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing that blocks has failed; a skipped check blocks nothing."""
        return not any(
            check.status == "failed" and check.blocking for check in self.checks
        )

    def evidence(self, max_tokens: int = 1000) -> str:
        """What somebody who mends the work has to know, in few words.

        Args:
            max_tokens: Most that it may take, a token counted as 4 characters.
        """
        found = [check for check in self.checks if check.status == "failed"]
        found.sort(key=lambda check: not check.blocking)
        if found and found[0].name == "syntax":
            found = found[:1]  # what does not compile fails everything else too
        limit = CHARS_PER_TOKEN * max_tokens
        parts: list[str] = []
        for number, check in enumerate(found):
            share = (limit - sum(map(len, parts))) // (len(found) - number)
            parts.append(_shown(check, share))
        return "\n".join(parts or [self._all_clear()])[: max(0, limit)]

    def _all_clear(self) -> str:
        passed = [check.name for check in self.checks if check.status == "passed"]
        left = [
            f"{check.name} ({check.detail})"
            for check in self.checks
            if check.status == "skipped"
        ]
        lines = [f"Passed: {', '.join(passed) or 'nothing'}."]
        return "\n".join([*lines, *([f"Skipped: {', '.join(left)}"] if left else [])])

    def to_dict(self) -> dict[str, Any]:
        """The verification as JSON values."""
        return {
            "ok": self.ok,
            "duration_s": self.duration_s,
            "checks": [check.to_dict() for check in self.checks],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Verification:
        """The verification that `to_dict` gave."""
        return cls(
            checks=tuple(Check(**check) for check in values["checks"]),
            duration_s=values["duration_s"],
        )


class VerifierAgent:
    """Checks work with tools: it asks no model, so none can talk it round.

    Args:
        sandbox: Where the tools run; it stays the caller's to close.
        timeout_s: Wall time of each check, seconds.
    """

    def __init__(self, sandbox: Sandbox, *, timeout_s: float = 120.0) -> None:
        self._sandbox = sandbox
        self._timeout_s = timeout_s

    async def verify(
        self, workspace: Path, *, bus: EventBus | None = None, run_id: str | None = None
    ) -> Verification:
        """Check syntax, imports, tests, lint and types, all at once.

        Each check has a copy of the workspace's files in a sandbox of its own;
        nothing of what it does there comes back.

        Args:
            workspace: Folder of the host.
            bus: Told the result, as a ``verification`` event.
            run_id: What the event belongs to.

        Raises:
            SandboxUnavailable: There is no sandbox to be had any more.
            SandboxTimeout: A sandbox did not start or stop in time.
        """
        start = time.monotonic()
        try:
            files = (await to_thread.run_sync(take_snapshot, workspace)).files
        except SandboxError as error:
            checks = _unreadable(str(error))
        else:
            checks = await self._checked(files)
        found = Verification(checks=checks, duration_s=time.monotonic() - start)
        if bus is not None:
            bus.emit(
                EventType.VERIFICATION,
                found.to_dict(),
                run_id=run_id,
                agent="verifier",
            )
        return found

    async def _checked(self, files: Mapping[str, SandboxFile]) -> tuple[Check, ...]:
        planned = checks_of(files, self._timeout_s)
        done = [each if isinstance(each, Check) else None for each in planned]
        broken: list[SandboxError] = []

        async def work(place: int, run: CheckRun) -> None:
            try:
                done[place] = await self._run(run, files)
            except (SandboxUnavailable, SandboxTimeout) as error:
                broken.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for place, each in enumerate(planned):
                if isinstance(each, CheckRun):
                    group.start_soon(work, place, each)
        if broken:
            raise broken[0]
        return tuple(check for check in done if check is not None)

    async def _run(self, run: CheckRun, files: Mapping[str, SandboxFile]) -> Check:
        extra = {SCRIPT: script()} if run.needs_script else {}
        try:
            result = await self._sandbox.run(
                run.command,
                files={**files, **extra},
                timeout_s=self._timeout_s,
                collect=run.collect,
            )
        except (SandboxUnavailable, SandboxTimeout):
            raise
        except SandboxError as error:
            return failed(run.name, str(error))
        return unfinished(run.name, result, self._timeout_s) or run.judge(result)


def _unreadable(reason: str) -> tuple[Check, ...]:
    why = "The workspace could not be read."
    rest = (skipped(name, why) for name in ("imports", "tests", "lint", "types"))
    return (failed("syntax", reason), *rest)


def _shown(check: Check, chars: int) -> str:
    """One failed check within so many characters."""
    suffix = "" if check.blocking else ", which does not block"
    lines = [f"{check.name} failed{suffix}: {check.detail}"]
    for finding in check.findings:
        place = ":".join(
            str(finding[part]) for part in ("file", "line") if finding.get(part)
        )
        message = str(finding["message"]).replace("\n", "\n    ")
        lines.append(f"{place}: {message}" if place else message)
    if output := check.data.get("output"):
        lines.append(f"Output:\n{output}")
    return shortened("\n".join(lines), max(0, chars - _CUT_NOTE_CHARS))
