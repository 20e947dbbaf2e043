"""Workflows: start one, look at it, interrupt it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from anyio import CancelScope, to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from agentfarm.errors import SandboxError
from agentfarm.events import EventType
from agentfarm.store import new_run_id
from agentfarm.web._access import Refused
from agentfarm.web._answers import UNCHANGED, described, from_store, tagged_model
from agentfarm.web._farm import Farm, OfFarm
from agentfarm.web._json import encode_model
from agentfarm.web._models import (
    NewWorkflow,
    StepItem,
    TokenSums,
    WorkflowState,
    WorkflowTokens,
)
from agentfarm.web._runs import RunId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anyio.abc import TaskGroup

    from agentfarm.agents import Workflow
    from agentfarm.events import Event
    from agentfarm.runtime import Runtime
    from agentfarm.store import WorkflowRecord, WorkflowStepRecord

__all__ = ["WorkflowRunner", "router"]

_log = logging.getLogger("agentfarm.web")

router = APIRouter(tags=["workflows"])

# Until a workflow is in the Store, and until an interrupted one has ended.
_BEGIN_S = 10.0
_END_S = 15.0


@dataclass(slots=True)
class _Running:
    scope: CancelScope = field(default_factory=CancelScope)
    begun: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)


class WorkflowRunner:
    """Runs workflows beside the requests that start them.

    Args:
        runtime: On whose models and sandbox.
        tasks: Holds them; when it is cancelled, all are interrupted.
    """

    def __init__(self, runtime: Runtime, tasks: TaskGroup) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self._here: dict[str, _Running] = {}

    @property
    def running(self) -> int:
        """How many run here."""
        return len(self._here)

    def is_here(self, run_id: str) -> bool:
        """Whether this one runs here, so that it can be interrupted."""
        return run_id in self._here

    async def start(self, wanted: NewWorkflow) -> str:
        """Start one, and return its id as soon as the Store knows it.

        Raises:
            Refused: Its folder exists, the model is unknown, too many run already,
                or this machine has no sandbox.
        """
        self._check(wanted)
        run_id = new_run_id()
        running = self._here[run_id] = _Running()
        try:
            await self._runtime.sandbox()  # before a folder is made for nothing
            folder = await to_thread.run_sync(
                self._new_folder, wanted.workspace or run_id
            )
            workflow = await self._runtime.workflow(
                folder, model=wanted.model, max_rounds=wanted.rounds
            )
        except BaseException as error:
            del self._here[run_id]
            if isinstance(error, SandboxError):
                raise Refused(409, error.message, remedy=error.remedy) from error
            raise
        self._tasks.start_soon(self._run, workflow, wanted.task, run_id, running)
        with anyio.move_on_after(_BEGIN_S):
            await running.begun.wait()
        return run_id

    async def interrupt(self, run_id: str) -> bool:
        """Interrupt one that runs here and wait for its end.

        Returns:
            Whether it ran here.
        """
        running = self._here.get(run_id)
        if running is None:
            return False
        running.scope.cancel()
        with anyio.move_on_after(_END_S):
            await running.ended.wait()
        return True

    def _check(self, wanted: NewWorkflow) -> None:
        settings = self._runtime.settings
        names = {model.name for model in self._runtime.router.models}
        if wanted.model is not None and wanted.model not in names:
            raise Refused(
                409,
                f"There is no model {wanted.model!r}.",
                remedy=f"Registered are {', '.join(sorted(names))}.",
            )
        if self.running >= settings.web.max_workflows:
            raise Refused(
                409,
                f"{self.running} workflows run already.",
                remedy="Wait for one or interrupt it, or raise "
                "AGENTFARM_WEB__MAX_WORKFLOWS.",
            )

    def _new_folder(self, name: str) -> Path:
        """Make a folder that was not there before; blocks."""
        parent = self._runtime.settings.home / "workspaces"
        folder = parent / name
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            raise Refused(
                409,
                f"There is a workspace {name!r} already.",
                remedy="Choose another name, or none.",
            ) from None
        except OSError as error:
            raise Refused(
                409, f"The workspace {name!r} cannot be made: {error.strerror}."
            ) from error
        return folder

    async def _run(
        self, workflow: Workflow, task: str, run_id: str, running: _Running
    ) -> None:
        def note(event: Event) -> None:
            if event.run_id == run_id:
                running.begun.set()

        following = workflow.bus.on(
            note, EventType.WORKFLOW_STARTED, name=f"web workflow {run_id}"
        )
        try:
            with running.scope:
                await workflow.run(task, run_id=run_id)
        except Exception:  # noqa: BLE001 - logged, whatever it is
            # It is marked as failed in the Store; the server goes on.
            _log.exception("Workflow %s broke.", run_id)
        finally:
            following.close()
            del self._here[run_id]
            running.begun.set()
            running.ended.set()


@router.post(
    "/api/workflows",
    status_code=202,
    response_model=WorkflowState,
    responses=described(
        s409="It cannot be started: the folder exists, the model is unknown, too "
        "many run already, or this machine has no sandbox."
    ),
)
async def start(wanted: NewWorkflow, farm: OfFarm) -> Response:
    """Let agents work on a task, in the background and in a new folder."""
    run_id = await farm.workflows.start(wanted)
    return Response(
        encode_model(await _state(farm, run_id)),
        202,
        {"Location": f"/api/workflows/{run_id}"},
        media_type="application/json",
    )


@router.get(
    "/api/workflows/{run_id}",
    response_model=WorkflowState,
    responses={**UNCHANGED, **described(s404="There is no such workflow.")},
)
async def show(request: Request, run_id: RunId, farm: OfFarm) -> Response:
    """A workflow as far as it is: its steps, tokens and summary."""
    return tagged_model(request, await _state(farm, run_id))


@router.post(
    "/api/workflows/{run_id}/interrupt",
    response_model=WorkflowState,
    responses=described(
        s404="There is no such workflow.", s409="It does not run in this server."
    ),
)
async def interrupt(run_id: RunId, farm: OfFarm) -> WorkflowState:
    """End a workflow so that `agentfarm run --resume` can go on with it."""
    state = await _state(farm, run_id)
    if not await farm.workflows.interrupt(state.run_id):
        raise Refused(
            409,
            f"Workflow {state.run_id} is {state.status} and does not run in this server.",
            remedy="Interrupt it where it runs, with Ctrl-C."
            if state.status == "running"
            else "There is nothing to interrupt.",
        )
    return await _state(farm, state.run_id)


async def _state(farm: Farm, run_id: str) -> WorkflowState:
    store = farm.runtime.store
    record: WorkflowRecord = await from_store(store.workflow, run_id)
    steps = await from_store(store.workflow_steps, record.run_id)
    return WorkflowState(
        run_id=record.run_id,
        task=record.task,
        status=record.status,
        model=record.model,
        workspace=record.workspace,
        started_at=record.started_at,
        finished_at=record.finished_at,
        summary=record.summary,
        error=record.error,
        tokens=_tokens(steps),
        steps=[_step(step) for step in steps],
        interruptible=farm.workflows.is_here(record.run_id),
    )


def _tokens(steps: Sequence[WorkflowStepRecord]) -> WorkflowTokens:
    agents: dict[str, list[WorkflowStepRecord]] = {}
    for step in steps:
        if (step.input_tokens, step.output_tokens) != (None, None):
            agents.setdefault(step.agent, []).append(step)
    return WorkflowTokens(
        **_sums([step for group in agents.values() for step in group]),
        by_agent={name: TokenSums(**_sums(group)) for name, group in agents.items()},
    )


def _sums(steps: Sequence[WorkflowStepRecord]) -> dict[str, int | None]:
    """Sums of what is known; None where a step's count is not."""
    inputs = [step.input_tokens for step in steps if step.input_tokens is not None]
    outputs = [step.output_tokens for step in steps if step.output_tokens is not None]
    given = sum(inputs) if len(inputs) == len(steps) else None
    made = sum(outputs) if len(outputs) == len(steps) else None
    total = None if given is None or made is None else given + made
    return {"input": given, "output": made, "total": total}


def _step(step: WorkflowStepRecord) -> StepItem:
    return StepItem(
        key=step.key,
        agent=step.agent,
        status=step.status,
        started_at=step.started_at,
        finished_at=step.finished_at,
        input_tokens=step.input_tokens,
        output_tokens=step.output_tokens,
    )
