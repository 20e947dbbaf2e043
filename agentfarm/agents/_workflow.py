"""Plan, design, execute, verify, review: the way from a task to finished work."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from agentfarm.agents._agent import Caller
from agentfarm.agents._event_log import EventLog
from agentfarm.agents._journal import Journal
from agentfarm.agents._plan import Plan
from agentfarm.agents._reviewer import Review
from agentfarm.agents._stages import Stages
from agentfarm.agents._verifier import Verification
from agentfarm.agents._workflow_result import WorkflowResult
from agentfarm.agents._workflow_stream import WorkflowStream
from agentfarm.errors import AgentFarmError, ConfigError, StoreError
from agentfarm.events import EventBus, EventType
from agentfarm.store import new_run_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agentfarm.agents._context import ContextInjector
    from agentfarm.agents._memory import Memory
    from agentfarm.llm import LLMRouter
    from agentfarm.store import Store
    from agentfarm.tools.sandbox import Sandbox


class Workflow:
    """Agents that work on one task in one folder, until it is verified and reviewed.

    plan > [design] > execute > verify > review > summary. Steps that do not need
    each other run at once. What verification or review hold against the work goes
    back to the executor as evidence, `max_rounds` times at most. Every finished
    step is in the Store before the next begins, so that an interrupted workflow can
    be resumed and does none of them twice.

    Args:
        router: The way to the models.
        sandbox: Where code runs; it stays the caller's to close.
        workspace: The folder to work in; made if it is not there.
        bus: Carries the events; the router's own should be the same.
        store: Keeps finished steps; a workflow without one cannot be resumed.
        state: Folder for the workspace's first state and the log of events; kept in
            memory, and not at all, if None.
        model: Registered model for every agent; the router chooses if None.
        models: Models of some agents, by the agent's name.
        context: Finds what the agents should know; see `ContextInjector`.
        memory: What was learned in this project before.
        max_rounds: Times that the work goes back to the executor.
        concurrency: Steps at once.
        seed: Of every request.
        temperature: Of every request, instead of the agents' own.
        sample_id: The evaluation's sample that this belongs to.

    Raises:
        ConfigError: `max_rounds` or `concurrency` make no sense.
    """

    def __init__(
        self,
        *,
        router: LLMRouter,
        sandbox: Sandbox,
        workspace: Path,
        bus: EventBus | None = None,
        store: Store | None = None,
        state: Path | None = None,
        model: str | None = None,
        models: Mapping[str, str] = MappingProxyType({}),
        context: ContextInjector | None = None,
        memory: Memory | None = None,
        max_rounds: int = 2,
        concurrency: int = 2,
        seed: int | None = None,
        temperature: float | None = None,
        sample_id: str | None = None,
    ) -> None:
        if max_rounds < 0 or concurrency < 1:
            raise ConfigError(
                f"Workflow got max_rounds={max_rounds}, concurrency={concurrency}.",
                remedy="Use 0 or more rounds, and 1 or more steps at once.",
            )
        self.bus = bus or EventBus()
        self.workspace = workspace.absolute()
        self._router = router
        self._sandbox = sandbox
        self._store = store
        self._state = state
        self._model = model
        self._models = models
        self._context = context
        self._memory = memory
        self._max_rounds = max_rounds
        self._concurrency = concurrency
        self._seed = seed
        self._temperature = temperature
        self._sample_id = sample_id

    async def run(
        self, task: str = "", *, resume: str | None = None, run_id: str | None = None
    ) -> WorkflowResult:
        """Work on a task to the end.

        A server that is gone or a sandbox that breaks ends it as ``failed``, with
        the error in the result and the finished steps kept. Cancelling it keeps
        them too, publishes INTERRUPT and leaves it to be resumed.

        Args:
            task: What to do, in the user's words.
            resume: Id of a workflow that did not finish, instead of a task.
            run_id: Id of the new workflow; made here if None.

        Raises:
            ConfigError: Neither a task nor a workflow to resume, or both.
            StoreError: The workflow to resume does not fit, or the Store fails.
        """
        if bool(task.strip()) == (resume is not None):
            raise ConfigError("A workflow takes a task, or one to resume.")
        start = time.monotonic()
        journal = await self._open(task, resume, run_id)
        run_id = journal.record.run_id
        with ExitStack() as stack:
            if self._state is not None:
                log = EventLog(self._state / run_id / "events.jsonl", run_id)
                stack.enter_context(log.attached(self.bus))
            self._emit(
                run_id,
                EventType.WORKFLOW_STARTED,
                task=journal.record.task,
                workspace=str(self.workspace),
                resumed=resume,
            )
            try:
                stages = await self._stages(journal)
                result = await stages.run()
            except AgentFarmError as error:
                result = await self._failed(journal, error)
            except BaseException as error:
                await self._interrupted(journal, error)
                raise
            result = replace(result, duration_s=time.monotonic() - start)
            self._emit(
                run_id,
                EventType.WORKFLOW_COMPLETED
                if result.status == "completed"
                else EventType.WORKFLOW_FAILED,
                ok=result.ok,
                summary=result.summary,
                error=str(result.error) if result.error else None,
                duration_s=result.duration_s,
            )
        return result

    def stream(self, task: str = "", *, resume: str | None = None) -> WorkflowStream:
        """Work on a task and give its events as they happen.

        ``async for event in workflow.stream(task)``; afterwards the stream's
        `result` holds what `run` would have returned. Leaving the loop early and
        closing the stream interrupts the workflow.
        """
        return WorkflowStream(self.bus, self.run, task=task, resume=resume)

    async def _open(self, task: str, resume: str | None, run_id: str | None) -> Journal:
        if resume is not None:
            return await Journal.resume(resume, self._store, self.workspace)
        config = {
            "max_rounds": self._max_rounds,
            "concurrency": self._concurrency,
            "seed": self._seed,
            "models": dict(self._models),
        }
        return await Journal.begin(
            task,
            self.workspace,
            self._store,
            model=self._model,
            config=config,
            run_id=run_id or new_run_id(),
        )

    async def _stages(self, journal: Journal) -> Stages:
        run_id = journal.record.run_id
        caller = Caller(
            router=self._router,
            bus=self.bus,
            model=self._model,
            models=self._models,
            run_id=run_id,
            sample_id=self._sample_id,
            seed=self._seed,
            temperature=self._temperature,
        )
        stages = Stages(
            journal=journal,
            caller=caller,
            bus=self.bus,
            sandbox=self._sandbox,
            workspace=self.workspace,
            context=self._context,
            memory=self._memory,
            max_rounds=self._max_rounds,
            concurrency=self._concurrency,
        )
        copy = self._state / run_id / "before" if self._state is not None else None
        await to_thread.run_sync(stages.look_at_workspace, copy)
        return stages

    async def _failed(self, journal: Journal, error: AgentFarmError) -> WorkflowResult:
        await journal.end(status="failed", error=str(error))
        return WorkflowResult(
            run_id=journal.record.run_id,
            task=journal.record.task,
            status="failed",
            summary=f"It failed: {error} What was finished is kept.",
            tokens=journal.tokens,
            error=error,
            **_found_before(journal),
        )

    async def _interrupted(self, journal: Journal, error: BaseException) -> None:
        run_id = journal.record.run_id
        if isinstance(error, Exception):
            await journal.end(status="failed", error=f"{type(error).__name__}: {error}")
            self._emit(run_id, EventType.WORKFLOW_FAILED, ok=False, error=str(error))
            return
        await journal.end(status="interrupted")
        self._emit(run_id, EventType.INTERRUPT, resume=run_id)

    def _emit(self, run_id: str, kind: EventType, **data: Any) -> None:
        self.bus.emit(kind, data, run_id=run_id, agent="workflow")


def _found_before(journal: Journal) -> dict[str, Any]:
    """What the finished stages of a failed workflow have found."""
    found: dict[str, Any] = {"rounds": 0}
    if (plan := journal.output_of("plan")) is not None:
        # A stored plan that cannot be read may be the very failure.
        with suppress(StoreError):
            found["plan"] = Plan.from_dict(plan)
    while checks := journal.output_of(f"verify:{found['rounds'] + 1}"):
        found["rounds"] += 1
        found["verification"] = Verification.from_dict(checks)
        if review := journal.output_of(f"review:{found['rounds']}"):
            found["review"] = Review.from_dict(review)
    return found
