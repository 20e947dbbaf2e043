"""The stages of one workflow, each done once and kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from agentfarm.agents._baseline import Baseline, Delta
from agentfarm.agents._collaboration import ask_peer_tool, peer_tokens
from agentfarm.agents._context import ContextPassage, context_block, injected_context
from agentfarm.agents._executor import ExecutorAgent, StepResult
from agentfarm.agents._handover import handover
from agentfarm.agents._plan import Plan, Step
from agentfarm.agents._planner import PlannerAgent
from agentfarm.agents._reviewer import Review, ReviewerAgent
from agentfarm.agents._ux_designer import UXDesignerAgent, needs_ux
from agentfarm.agents._verifier import Verification, VerifierAgent
from agentfarm.agents._workflow_result import WorkflowResult, describe
from agentfarm.errors import AgentFarmError
from agentfarm.events import EventType
from agentfarm.tools import ToolRegistry, file_tools, sandbox_tools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from agentfarm.agents._agent import AgentResult, Caller, TokenCount
    from agentfarm.agents._context import ContextInjector
    from agentfarm.agents._journal import Journal
    from agentfarm.agents._memory import Memory
    from agentfarm.events import EventBus
    from agentfarm.tools.sandbox import Sandbox

EVIDENCE_TOKENS = 1500
CONTEXT_TOKENS = 1500
MEMORY_TOKENS = 400
RECALLED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a stage hands to the journal."""

    output: Mapping[str, Any]
    ok: bool = True
    tokens: TokenCount | None = None


class Stages:
    """Takes one workflow from its task to its summary.

    Args:
        journal: Knows what is finished, and keeps what will be.
        caller: Who asks the models.
        bus: Gets STEP_STARTED, STEP_COMPLETED and STEP_FAILED with the stage's key.
        sandbox: Where code runs.
        workspace: The folder to work in.
        context: Finds what the agents should know.
        memory: What was learned in this project before.
        max_rounds: Times that the work goes back to the executor.
        concurrency: Steps at once.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        caller: Caller,
        bus: EventBus,
        sandbox: Sandbox,
        workspace: Path,
        context: ContextInjector | None,
        memory: Memory | None,
        max_rounds: int,
        concurrency: int,
    ) -> None:
        self._journal = journal
        self._task = journal.record.task
        self._caller = caller
        self._bus = bus
        self._sandbox = sandbox
        self._workspace = workspace
        self._context = context
        self._memory = memory
        self._max_rounds = max_rounds
        self._at_once = anyio.CapacityLimiter(concurrency)
        self._lock = anyio.Lock()
        self._verifier = VerifierAgent(sandbox)
        self._baseline: Baseline | None = None
        self._knowledge = ""

    def look_at_workspace(self, copy: Path | None) -> None:
        """Note the workspace's first state; blocks.

        Raises:
            AgentFarmError: It cannot be made, read or kept.
        """
        try:
            self._workspace.mkdir(parents=True, exist_ok=True)
            self._baseline = Baseline(self._workspace, copy)
        except OSError as error:
            raise AgentFarmError(
                f"The workspace {self._workspace} cannot be used: {error.strerror}.",
                remedy="Choose a folder that you may write.",
            ) from error

    async def run(self) -> WorkflowResult:
        """Go through all stages that are not finished.

        Raises:
            AgentFarmError: A server is gone, or the sandbox or the Store fails.
        """
        self._knowledge = await self._recall()
        plan = await self._plan()
        notes = await self._design(plan)
        steps = await self._execute(plan, notes)
        rounds, verification, review = await self._check(plan, steps, notes)
        change = await self._delta()
        changed = bool(change.written or change.deleted)
        summary = describe(
            plan=plan,
            steps={step_id: step.ok for step_id, step in steps.items()},
            verification=verification,
            review=review,
            written=change.written,
            deleted=change.deleted,
        )
        await self._remember(summary)
        await self._journal.end(status="completed", summary=summary)
        return WorkflowResult(
            run_id=self._journal.record.run_id,
            task=self._task,
            status="completed",
            ok=changed and verification.ok and not (review and review.blocking),
            summary=summary,
            plan=plan,
            verification=verification,
            review=review,
            rounds=rounds,
            written=change.written,
            deleted=change.deleted,
            diff=change.diff,
            tokens=self._journal.tokens,
        )

    async def _plan(self) -> Plan:
        async def work() -> Done:
            planned = await PlannerAgent().plan(
                self._task,
                caller=self._caller,
                files=await self._files(),
                context=self._knowledge,
            )
            output = {**planned.plan.to_dict(), "problem": planned.problem}
            return Done(output=output, tokens=planned.result.tokens)

        return Plan.from_dict(await self._stage("plan", "planner", "Plan", work))

    async def _design(self, plan: Plan) -> str:
        decision = needs_ux(self._task, plan)
        if not decision.wanted:
            return ""

        async def work() -> Done:
            notes = await UXDesignerAgent().design(
                self._task,
                plan,
                caller=self._caller,
                files=await self._files(),
                context=self._knowledge,
            )
            output = {"text": notes.text, "reason": decision.reason}
            return Done(output=output, ok=bool(notes.text), tokens=notes.result.tokens)

        found = await self._stage("ux", "ux_designer", "Design", work)
        return str(found.get("text") or "")

    async def _execute(self, plan: Plan, notes: str) -> dict[str, StepResult]:
        """Carry out the plan; steps that do not need each other go on at once."""
        results: dict[str, StepResult] = {}

        async def one(step: Step) -> None:
            async with self._at_once:
                results[step.id] = await self._step(
                    f"step:{step.id}", step, plan, notes, tuple(results.values()), ""
                )

        for layer in plan.layers():
            await _together([partial(one, step) for step in layer])
        return {step.id: results[step.id] for step in plan.steps}

    async def _step(
        self,
        key: str,
        step: Step,
        plan: Plan,
        notes: str,
        finished: Sequence[StepResult],
        evidence: str,
    ) -> StepResult:
        async def work() -> Done:
            result = await ExecutorAgent(tools=self._tools()).execute(
                step,
                task=self._task,
                plan=plan,
                caller=self._caller,
                finished=finished,
                notes=notes,
                evidence=evidence,
                files=await self._files(),
                context=self._knowledge,
            )
            tokens = _tokens_with_peers(result.result)
            return Done(output=result.to_dict(), ok=result.ok, tokens=tokens)

        found = await self._stage(key, "executor", step.title, work)
        return StepResult.from_dict(found)

    async def _check(
        self, plan: Plan, steps: Mapping[str, StepResult], notes: str
    ) -> tuple[int, Verification, Review | None]:
        """Verify, review, and have it mended while there are rounds left."""
        number = 0
        while True:
            number += 1
            is_last = number > self._max_rounds
            verification = await self._verify(number)
            # Work that fails its checks goes back before anybody reads it.
            review = (
                await self._review(number, verification)
                if verification.ok or is_last
                else None
            )
            blocked = not verification.ok or (review is not None and review.blocking)
            if is_last or not blocked:
                return number, verification, review
            evidence = "\n\n".join(
                text
                for text in (
                    "" if verification.ok else verification.evidence(EVIDENCE_TOKENS),
                    review.evidence(EVIDENCE_TOKENS) if review else "",
                )
                if text
            )
            fix = Step(
                id=f"fix:{number}", title="Mend what verification and review found"
            )
            done = tuple(steps.values())
            await self._step(fix.id, fix, plan, notes, done, evidence)

    async def _verify(self, number: int) -> Verification:
        async def work() -> Done:
            found = await self._verifier.verify(
                self._workspace, bus=self._bus, run_id=self._journal.record.run_id
            )
            return Done(output=found.to_dict(), ok=found.ok)

        title = f"Verify, round {number}"
        found = await self._stage(f"verify:{number}", "verifier", title, work)
        return Verification.from_dict(found)

    async def _review(self, number: int, verification: Verification) -> Review:
        async def work() -> Done:
            change = await self._delta()
            review = await ReviewerAgent().review(
                self._task,
                change.diff,
                verification.evidence(EVIDENCE_TOKENS),
                caller=self._caller,
                context=self._knowledge,
            )
            tokens = review.result.tokens if review.result else None
            return Done(
                output=review.to_dict(), ok=review.verdict != "none", tokens=tokens
            )

        title = f"Review, round {number}"
        found = await self._stage(f"review:{number}", "reviewer", title, work)
        return Review.from_dict(found)

    async def _stage(
        self, key: str, agent: str, title: str, work: Callable[[], Awaitable[Done]]
    ) -> Mapping[str, Any]:
        """Do one stage, unless an earlier attempt has; gives what it hands on."""
        found = self._journal.output_of(key)
        if found is not None:
            self._emit(EventType.STEP_COMPLETED, key, agent, title, resumed=True)
            return found
        self._emit(EventType.STEP_STARTED, key, agent, title)
        started_at, start = time.time(), time.monotonic()
        try:
            done = await work()
        except AgentFarmError as error:
            self._emit(EventType.STEP_FAILED, key, agent, title, error=str(error))
            raise
        await self._journal.keep(
            key,
            agent=agent,
            output=done.output,
            started_at=started_at,
            ok=done.ok,
            tokens=done.tokens,
        )
        self._emit(
            EventType.STEP_COMPLETED,
            key,
            agent,
            title,
            ok=done.ok,
            duration_s=time.monotonic() - start,
            tokens=done.tokens.total if done.tokens else 0,
        )
        return done.output

    def _emit(
        self, kind: EventType, key: str, agent: str, title: str, **data: Any
    ) -> None:
        self._bus.emit(
            kind,
            {"key": key, "title": title, **data},
            run_id=self._journal.record.run_id,
            agent=agent,
        )

    def _tools(self) -> ToolRegistry:
        """The executor's; all of one workflow share the lock on its folder."""
        return ToolRegistry(
            (
                *file_tools(self._workspace, lock=self._lock),
                *sandbox_tools(
                    self._sandbox, workspace=self._workspace, lock=self._lock
                ),
                ask_peer_tool(caller=self._caller, asker="executor"),
            )
        )

    async def _files(self) -> list[str]:
        from agentfarm.tools.sandbox._files import inputs

        found = await to_thread.run_sync(inputs, self._workspace)
        return sorted(entry.name for entry in found)

    async def _delta(self) -> Delta:
        if self._baseline is None:
            raise AgentFarmError("The workspace was not looked at before the start.")
        return await to_thread.run_sync(self._baseline.delta)

    async def _recall(self) -> str:
        """What the agents should know: injected context, and the project's memory."""
        found = await injected_context(
            self._context, self._task, max_tokens=CONTEXT_TOKENS
        )
        if self._memory is None:
            return found
        notes = await self._memory.search(self._task, limit=RECALLED)
        if not notes:
            return found
        earlier = [
            ContextPassage(source=f"memory: {note.kind}", text=note.text)
            for note in notes
        ]
        block = context_block(earlier, max_tokens=MEMORY_TOKENS)
        return "\n\n".join(part for part in (found, block) if part)

    async def _remember(self, summary: str) -> None:
        if self._memory is not None:
            text = handover(f"Task: {self._task}\n{summary}", MEMORY_TOKENS)
            # Under its own id: killed here, it comes by once more when resumed.
            run_id = self._journal.record.run_id
            await self._memory.add(text, kind="workflow", memory_id=run_id)


def _tokens_with_peers(result: AgentResult | None) -> TokenCount | None:
    """What a step cost, its questions to peers included."""
    return result.tokens + peer_tokens(result.tool_calls) if result else None


async def _together(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Do several things at once; of their errors the first is raised as it is."""
    failed: list[Exception] = []

    async def guarded(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised again below
            failed.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for work in works:
            group.start_soon(guarded, work)
    if failed:
        raise failed[0]
