"""Tell a model in few words how a run in the sandbox ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.tools._junit import Report
    from agentfarm.tools._workspace import Changes
    from agentfarm.tools.sandbox._contract import SandboxResult

LISTED_NAMES = 20


def describe(
    result: SandboxResult,
    changes: Changes,
    *,
    timeout_s: float,
    output_chars: int,
    unenforced: Sequence[str] = (),
) -> str:
    """How a run ended, what it changed in the workspace, and what it printed."""
    notes = [
        _ending(result, timeout_s),
        "It ran out of memory." if result.oom_killed else "",
        "It printed more than the sandbox keeps." if result.truncated else "",
        _named("Written to the workspace", changes.written),
        _named("Deleted from the workspace", changes.deleted),
        _named(
            "Not written to the workspace",
            [f"{name} ({why})" for name, why in changes.refused.items()],
        ),
        _named("This sandbox cannot enforce", unenforced),
    ]
    shown = [note for note in notes if note]
    return "\n".join([*shown, *_outputs(result, output_chars)])


def count(report: Report | None) -> str:
    """How the tests ended, in one line."""
    if report is None:
        return "pytest ended before it had written its report: no test counts."
    return (
        f"{report.passed} passed, {report.failed} failed, {report.errors} errors, "
        f"{report.skipped} skipped."
    )


def listed(names: Sequence[str], most: int = LISTED_NAMES) -> str:
    """Names in a row, the last ones counted only."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shortened(text: str, limit: int) -> str:
    """Both ends of a text, with the number of characters left out between them."""
    if len(text) <= limit:
        return text
    head = limit // 2
    tail = limit - head
    left_out = f"[… {len(text) - limit} characters left out …]"
    return f"{text[:head]}\n{left_out}\n{text[len(text) - tail :]}"


def _ending(result: SandboxResult, timeout_s: float) -> str:
    if result.timed_out:
        return f"It was ended at its timeout of {timeout_s:g} s; no file was kept."
    return f"Exit code {result.exit_code} after {result.duration_s:.2f} s."


def _named(title: str, names: Sequence[str]) -> str:
    return f"{title}: {listed(names)}." if names else ""


def _outputs(result: SandboxResult, limit: int) -> list[str]:
    """Both streams within one limit; what one does not need, the other may use."""
    half = limit // 2
    for_stdout = max(half, limit - len(result.stderr))
    for_stderr = max(limit - half, limit - len(result.stdout))
    streams = (
        ("stdout", result.stdout, for_stdout),
        ("stderr", result.stderr, for_stderr),
    )
    shown = [
        f"{name}:\n{shortened(text.rstrip(), share)}"
        for name, text, share in streams
        if text.strip()
    ]
    return shown or ["It printed nothing."]
