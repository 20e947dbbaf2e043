"""The reviewer: judges a change and asks for another where it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from agentfarm.agents._agent import Agent, Budget
from agentfarm.agents._handover import handover, shortened, shortened_diff
from agentfarm.agents._loop import run_agent
from agentfarm.agents._prompts import instructions, sections
from agentfarm.tools import ToolRegistry

if TYPE_CHECKING:
    from agentfarm.agents._agent import AgentResult, Caller, ToolMode

Severity = Literal["critical", "major", "minor", "info"]
Verdict = Literal["approve", "request_changes", "none"]

SEVERITIES: tuple[Severity, ...] = ("critical", "major", "minor", "info")
BLOCKING = frozenset({"critical", "major"})
MAX_FINDINGS = 20
MAX_TOKENS = 1536  # of a reply; a model that repeats itself ends there
DIFF_TOKENS = 3000
VERIFICATION_TOKENS = 600
SUMMARY_TOKENS = 120
MESSAGE_TOKENS = 120
NO_REVIEW = "The reviewer gave no valid review."
NO_CHANGE = "Nothing was changed, so there was nothing to review."

REVIEW_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["approve", "request_changes"]},
        "summary": {"type": ["string", "null"]},
        "findings": {
            "type": ["array", "null"],
            "maxItems": MAX_FINDINGS,
            "items": {
                "type": "object",
                "properties": {
                    "severity": {"enum": [*SEVERITIES, None]},
                    "file": {"type": ["string", "null"]},
                    "line": {"type": ["integer", "null"]},
                    "message": {"type": ["string", "null"]},
                },
                "required": ["severity", "message"],
            },
        },
    },
    "required": ["verdict", "findings"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that the reviewer saw.

    Attributes:
        severity: How bad it is; ``critical`` and ``major`` keep a change back.
        message: What is wrong and what would be right.
        file: Where; None if the reviewer did not say.
        line: In that file, from 1.
    """

    severity: Severity
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = self.file or ""
        if place and self.line:
            place = f"{place}:{self.line}"
        return f"{self.severity}{f' in {place}' if place else ''}: {self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """What the reviewer thinks of a change.

    Attributes:
        verdict: ``request_changes`` only where the reviewer asked for changes and
            has a critical or major finding; without one it counts as ``approve``,
            and `summary` says so. ``none`` where there is no valid review, which
            keeps nothing back.
        findings: The worst first.
        summary: One or two sentences.
        result: What the requests came to; None for a review read from the Store.
    """

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    summary: str = ""
    result: AgentResult | None = None

    @property
    def blocking(self) -> bool:
        """Whether the change must be mended."""
        return self.verdict == "request_changes"

    @classmethod
    def parse(cls, value: object, result: AgentResult | None = None) -> Self:
        """Read what a reviewer wrote; what is no review has the verdict ``none``.

        ``null`` counts as empty: a finding without a message is none, one without
        a severity is ``info``.
        """
        said = value.get("verdict") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or said not in ("approve", "request_changes"):
            return cls(verdict="none", summary=NO_REVIEW, result=result)
        listed = value.get("findings")
        items = listed if isinstance(listed, list | tuple) else ()
        found = [finding for item in items if (finding := _finding(item))]
        found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
        summary = handover(_text(value.get("summary")), SUMMARY_TOKENS)
        blocks = any(finding.severity in BLOCKING for finding in found)
        if said == "request_changes" and not blocks:
            note = (
                "(Changes were requested without a critical or major finding: this "
                "counts as approval.)"
            )
            summary = f"{summary} {note}".strip()
        verdict: Verdict = (
            "request_changes" if said == "request_changes" and blocks else "approve"
        )
        return cls(
            verdict=verdict,
            findings=tuple(found[:MAX_FINDINGS]),
            summary=summary,
            result=result,
        )

    def evidence(self, max_tokens: int) -> str:
        """The findings for whoever mends them; `""` where nothing blocks.

        Tokens are estimated as characters / 4.
        """
        if not self.blocking:
            return ""
        lines = [f"- {finding}" for finding in self.findings]
        return handover("\n".join([self.summary, *lines]), max_tokens)

    def to_dict(self) -> dict[str, Any]:
        """The review as JSON values, without `result`."""
        return {
            "verdict": self.verdict,
            "findings": [asdict(finding) for finding in self.findings],
            "summary": self.summary,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        if data.get("verdict") == "none":
            return cls(verdict="none", summary=_text(data.get("summary")))
        return cls.parse(data)


@dataclass(frozen=True, kw_only=True)
class ReviewerAgent:
    """Judges a change by the task, the diff and what the tools found.

    Attributes:
        tools: What it may look with; none by default.
        budget: What it may spend.
        tool_mode: How tools are offered; see `Agent`.
        diff_tokens: Longest diff it is shown, estimated as characters / 4.
    """

    name: ClassVar[str] = "reviewer"
    tools: ToolRegistry = field(default_factory=ToolRegistry)
    budget: Budget = field(default_factory=lambda: Budget(steps=8, tool_calls=12))
    tool_mode: ToolMode = "auto"
    diff_tokens: int = DIFF_TOKENS

    async def review(
        self,
        task: str,
        diff: str,
        verification: str,
        *,
        caller: Caller,
        context: str = "",
    ) -> Review:
        """Judge one change; where nothing was changed, no model is asked.

        Args:
            task: In the user's words.
            diff: Unified; shortened to the budget with head and tail of each file.
            verification: What the checks found, as text.
            caller: Who asks.
            context: A block as `context_block` makes it.

        Raises:
            ProviderError: The model's server could not be asked.
        """
        if not diff.strip():
            return Review(verdict="none", summary=NO_CHANGE)
        agent = Agent(
            name=self.name,
            instructions=instructions("reviewer", context),
            tools=self.tools,
            output_schema=REVIEW_SCHEMA,
            task_type="code_review",
            budget=self.budget,
            max_tokens=MAX_TOKENS,
            tool_mode=self.tool_mode,
        )
        question = sections(
            ("Task", task),
            ("Results of the checks", shortened(verification, VERIFICATION_TOKENS)),
            ("Diff", shortened_diff(diff, self.diff_tokens)),
        )
        result = await run_agent(agent, question, caller=caller)
        return Review.parse(result.output if result.ok else None, result)


def _finding(item: object) -> Finding | None:
    if not isinstance(item, Mapping):
        return None
    message = handover(_text(item.get("message")), MESSAGE_TOKENS)
    if not message:
        return None
    severity = item.get("severity")
    line = item.get("line")
    whole = isinstance(line, int) and not isinstance(line, bool) and line > 0
    return Finding(
        severity=severity if severity in SEVERITIES else "info",
        message=message,
        file=_text(item.get("file"))[:200] or None,
        line=line if whole else None,
    )


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
