"""What a workflow comes to, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from agentfarm.agents._agent import TokenCount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentfarm.agents._plan import Plan
    from agentfarm.agents._reviewer import Review
    from agentfarm.agents._verifier import Verification
    from agentfarm.errors import AgentFarmError


@dataclass(frozen=True, kw_only=True)
class WorkflowResult:
    """How a workflow ended and what it changed.

    Attributes:
        run_id: Its id, for events, telemetry and resuming.
        task: What was asked for.
        status: ``completed`` where all stages took place, whatever their verdict;
            ``failed`` where a server or the sandbox stood in the way;
            ``interrupted`` where a person stopped it in a panel.
        ok: Whether something was changed, the checks passed and the reviewer held
            nothing back.
        summary: What was done and found, made from facts and not by a model.
        plan: None where it failed before.
        verification: The last; None where it failed before.
        review: The last; None where there was none.
        rounds: How often the work was verified.
        written, deleted: Names of the workspace's files, compared with its start;
            empty where it failed.
        diff: The same as a unified diff.
        tokens: What each agent's finished steps cost.
        duration_s: Wall time of this attempt, seconds.
        error: Why it failed.
    """

    run_id: str
    task: str
    status: Literal["completed", "failed", "interrupted"]
    ok: bool = False
    summary: str = ""
    plan: Plan | None = None
    verification: Verification | None = None
    review: Review | None = None
    rounds: int = 0
    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    diff: str = field(default="", repr=False)
    tokens: Mapping[str, TokenCount] = field(default_factory=dict)
    duration_s: float = 0.0
    error: AgentFarmError | None = None

    @property
    def total_tokens(self) -> TokenCount:
        """What all agents cost together."""
        return sum(self.tokens.values(), TokenCount())

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "run_id": self.run_id,
            "task": self.task,
            "status": self.status,
            "ok": self.ok,
            "summary": self.summary,
            "plan": self.plan.to_dict() if self.plan else None,
            "verification": self.verification.to_dict() if self.verification else None,
            "review": self.review.to_dict() if self.review else None,
            "rounds": self.rounds,
            "written": list(self.written),
            "deleted": list(self.deleted),
            "diff": self.diff,
            "tokens": {
                agent: {
                    "input_tokens": count.input_tokens,
                    "output_tokens": count.output_tokens,
                    "requests": count.requests,
                    "estimated": count.estimated,
                }
                for agent, count in self.tokens.items()
            },
            "duration_s": self.duration_s,
            "error": str(self.error) if self.error else None,
        }

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        style = (
            "green" if self.ok else "yellow" if self.status == "completed" else "red"
        )
        return Group(Text(self.headline, style=f"bold {style}"), Text(self.summary))

    def _repr_html_(self) -> str:
        from agentfarm.agents._workflow_page import page

        return page(self)

    @property
    def headline(self) -> str:
        """How it ended, in one line."""
        verdict = "done" if self.ok else "not done"
        word = verdict if self.status == "completed" else self.status
        total = self.total_tokens
        return (
            f"{word} in {self.duration_s:.1f} s, {self.rounds} rounds, "
            f"{total.total} tokens in {total.requests} requests ({self.run_id})"
        )


def describe(
    *,
    plan: Plan,
    steps: Mapping[str, bool],
    verification: Verification,
    review: Review | None,
    written: tuple[str, ...],
    deleted: tuple[str, ...],
) -> str:
    """The summary of a workflow that came to its end."""
    lines = [plan.summary] if plan.summary else []
    done = sum(steps.values())
    lines.append(f"Steps: {done} of {len(steps)} finished.")
    if written:
        lines.append(f"Written: {', '.join(written)}.")
    if deleted:
        lines.append(f"Deleted: {', '.join(deleted)}.")
    if not written and not deleted:
        lines.append("No file was changed.")
    checks = ", ".join(f"{check.name} {check.status}" for check in verification.checks)
    lines.append(f"Checks: {checks}.")
    if review is not None:
        lines.append(f"Review: {review.verdict}. {review.summary}".rstrip())
        lines += [f"- {finding}" for finding in review.findings]
    return "\n".join(lines)
