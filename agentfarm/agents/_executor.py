"""The executor: carries out one step by changing files with its tools."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from agentfarm.agents._agent import Agent, Budget
from agentfarm.agents._fenced import fenced_files, without_fences
from agentfarm.agents._handover import bounded_list, handover, shortened
from agentfarm.agents._loop import run_agent
from agentfarm.agents._prompts import instructions, sections
from agentfarm.agents._toolbox import Toolbox
from agentfarm.llm import ToolCall
from agentfarm.tools import ToolRegistry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentfarm.agents._agent import AgentResult, Caller, ToolMode, ToolUse
    from agentfarm.agents._plan import Plan, Step
    from agentfarm.events import EventType

LISTED_FILES = 60
SUMMARY_TOKENS = 150
SUMMARY_FILES = 12
NOTES_TOKENS = 600
EVIDENCE_TOKENS = 1500


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What came of one step.

    Attributes:
        step_id: Of the step.
        summary: A short hand-over to later steps.
        written, deleted: Names of the workspace's files as the step left them.
        ok: Whether the executor came to a final answer, or wrote its files as fenced
            code in a reply of the wrong form. What it had written is kept either way.
        result: What the requests came to; None for a step read from the Store.
    """

    step_id: str
    summary: str
    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    ok: bool = True
    result: AgentResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values, without `result`."""
        return {
            "step_id": self.step_id,
            "summary": self.summary,
            "written": list(self.written),
            "deleted": list(self.deleted),
            "ok": self.ok,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        return cls(
            step_id=str(data["step_id"]),
            summary=str(data.get("summary") or ""),
            written=tuple(data.get("written") or ()),
            deleted=tuple(data.get("deleted") or ()),
            ok=bool(data.get("ok", True)),
        )


@dataclass(frozen=True, kw_only=True)
class ExecutorAgent:
    """Writes, changes and runs files until a step is done.

    Attributes:
        tools: File and sandbox tools over one workspace.
        budget: What one step may spend.
        tool_mode: How tools are offered; see `Agent`.
        max_tokens: Longest reply, tokens: a file must fit into one.
    """

    name: ClassVar[str] = "executor"
    tools: ToolRegistry = field(default_factory=ToolRegistry)
    budget: Budget = field(default_factory=Budget)
    tool_mode: ToolMode = "auto"
    max_tokens: int = 4096

    async def execute(
        self,
        step: Step,
        *,
        task: str,
        plan: Plan,
        caller: Caller,
        finished: Sequence[StepResult] = (),
        notes: str = "",
        evidence: str = "",
        files: Sequence[str] = (),
        context: str = "",
    ) -> StepResult:
        """Carry out one step.

        Models that do not use tools answer with the files as fenced code. Where an
        answer holds such blocks with file names and no tool has changed a file,
        they are written with the ``write_file`` tool.

        Args:
            step: What to do.
            task: The whole task, in the user's words.
            plan: Its summary is shown.
            caller: Who asks.
            finished: Earlier steps; those that `step` depends on are shown, all of
                them if it is not a step of the plan, as in a round of mending.
            notes: The UX designer's.
            evidence: What verification or review found wrong.
            files: Names of what is in the workspace.
            context: A block as `context_block` makes it.

        Raises:
            ProviderError: The model's server could not be asked.
        """
        agent = Agent(
            name=self.name,
            instructions=instructions("executor", context),
            tools=self.tools,
            task_type="code_generation",
            budget=self.budget,
            max_tokens=self.max_tokens,
            tool_mode=self.tool_mode,
        )
        in_plan = any(known.id == step.id for known in plan.steps)
        question = sections(
            ("Task", task),
            ("Plan", plan.summary),
            ("Finished before", _finished(step, finished, in_plan=in_plan)),
            ("Design notes", handover(notes, NOTES_TOKENS)),
            ("Files in the workspace", bounded_list(files, LISTED_FILES) or "None."),
            ("Your step", f"{step.title}\n{step.detail}"),
            ("What failed and must be mended", shortened(evidence, EVIDENCE_TOKENS)),
        )
        result = await run_agent(agent, question, caller=caller)
        written, deleted = changed_files(result.tool_calls)
        ok = result.ok
        if not written and not deleted:
            rescued = await self._write_fenced(result.text, caller)
            result = replace(result, tool_calls=(*result.tool_calls, *rescued))
            written, deleted = changed_files(rescued)
            # Its whole answer, only not in the form that was asked for.
            ok = ok or (result.end == "malformed" and bool(written))
        return StepResult(
            step_id=step.id,
            summary=_summary(result, ok, written, deleted),
            written=written,
            deleted=deleted,
            ok=ok,
            result=result,
        )

    async def _write_fenced(self, text: str, caller: Caller) -> tuple[ToolUse, ...]:
        """Write the files that an answer holds, by the tool, one after the other."""
        files = fenced_files(text)
        if not files or self.tools.get("write_file") is None:
            return ()

        def emit(kind: EventType, data: Mapping[str, Any]) -> None:
            if caller.bus is not None:
                caller.bus.emit(kind, data, run_id=caller.run_id, agent=self.name)

        toolbox = Toolbox(self.tools, self.budget, emit)
        for index, (path, content) in enumerate(files.items(), start=1):
            arguments = {"path": path, "content": content}
            call = ToolCall(
                id=f"fenced_{index}",
                name="write_file",
                arguments=arguments,
                raw_arguments=json.dumps(arguments),
            )
            await toolbox.run([call])
        return tuple(toolbox.uses)


def changed_files(uses: Iterable[ToolUse]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the files that calls of tools wrote and deleted, as they were left."""
    there: dict[str, bool] = {}
    for use in uses:
        there.update(dict.fromkeys(use.data.get("deleted") or (), False))
        there.update(dict.fromkeys(use.data.get("written") or (), True))
    written = tuple(sorted(name for name, is_there in there.items() if is_there))
    deleted = tuple(sorted(name for name, is_there in there.items() if not is_there))
    return written, deleted


def _finished(step: Step, results: Sequence[StepResult], *, in_plan: bool) -> str:
    """What the earlier steps that matter hand over, each within its budget."""
    lines = []
    for done in results:
        if in_plan and done.step_id not in step.depends_on:
            continue
        text = " ".join(handover(done.summary, SUMMARY_TOKENS).split())
        files = f" (wrote {_listed(done.written)})" if done.written else ""
        state = "" if done.ok else " [not finished]"
        lines.append(f"- {done.step_id}{state}: {text}{files}")
    return "\n".join(lines)


def _summary(
    result: AgentResult, ok: bool, written: Sequence[str], deleted: Sequence[str]
) -> str:
    """What the executor said, without code; what it did where it said nothing."""
    said = without_fences(result.text)
    if not said:
        parts = [
            f"Wrote {_listed(written)}." if written else "",
            f"Deleted {_listed(deleted)}." if deleted else "",
        ]
        said = " ".join(part for part in parts if part) or "Changed no file."
    if not ok:
        said = f"[Not finished: {result.end}.] {said}"
    return handover(said, SUMMARY_TOKENS)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SUMMARY_FILES
    return ", ".join(names[:SUMMARY_FILES]) + (f" and {more} more" if more > 0 else "")
