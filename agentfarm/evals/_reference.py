"""A model that plays the solutions which a suite's tasks bring along."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING

from agentfarm.errors import EvalError, ProviderError
from agentfarm.llm import (
    Health,
    LLMRouter,
    ModelInfo,
    RegisteredModel,
    ToolCallDelta,
    Usage,
)
from agentfarm.llm._clock import StreamClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from agentfarm.evals._suite import Suite, Task
    from agentfarm.llm import ChatChunk, ChatRequest, ChatResponse
    from agentfarm.runtime import Runtime

REFERENCE = "reference"
_WRITER = "write_file"

# What the agents other than the executor say, by what they are asked for.
_PLAN = {
    "summary": "The reference solution is written in one step.",
    "interface": False,
    "steps": [
        {
            "id": "1",
            "title": "Write the reference solution",
            "detail": "Write every file of it.",
            "depends_on": [],
        }
    ],
}
_REVIEW = {"verdict": "approve", "summary": "As the reference has it.", "findings": []}
_DONE = "The files of the reference solution are written."


class ReferenceProvider:
    """Answers for each agent of a workflow so that the reference gets written.

    A planner gets a plan of one step, an executor writes the files by calls of
    ``write_file``, a reviewer approves, everybody else says that it is done. Where
    the reference is a text, that is the answer. Nothing is generated, so tokens are
    unknown.

    Args:
        tasks: With their references.
    """

    kind = REFERENCE
    host = REFERENCE

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tuple(tasks)

    async def stream(
        self, request: ChatRequest
    ) -> AsyncGenerator[ChatChunk | ChatResponse]:
        """Yield the answer in one piece, then the response; see `Provider.stream`.

        Raises:
            ProviderError: The request belongs to no task that has a reference.
        """
        clock = StreamClock()
        reference = self._reference(request)
        calls: tuple[ToolCallDelta, ...] = ()
        if isinstance(reference, str):
            text = reference
        else:
            calls = _writes(request, reference)
            text = "" if calls else _spoken(request)
        if chunk := clock.add(time.perf_counter(), text, tool_calls=calls):
            yield chunk
        yield clock.response(
            model=REFERENCE,
            provider=self.kind,
            host=self.host,
            finish_reason="tool_calls" if calls else "stop",
            usage=Usage(),
        )

    async def models(self) -> list[ModelInfo]:
        """The one model."""
        return [ModelInfo(name=REFERENCE, capabilities=frozenset({"tools"}))]

    async def health(self) -> Health:
        """It is always ready."""
        return Health(ok=True, detail="Solutions are played from the suite.")

    async def aclose(self) -> None:
        """Nothing is held."""

    def _reference(self, request: ChatRequest) -> Mapping[str, str] | str:
        """That of the task in whose name the request is sent, by its sample's id."""
        sample = (request.context.sample_id or "").rpartition("-")[0]
        fitting = [task for task in self._tasks if f"-{sample}".endswith(f"-{task.id}")]
        # Of "b" and "a-b" the longer one is meant.
        task = max(fitting, key=lambda task: len(task.id), default=None)
        if task is None or task.reference is None:
            raise ProviderError(
                f"There is no reference solution for {request.context.sample_id!r}.",
                remedy="Use this model only through a run of its suite.",
                provider=self.kind,
                host=self.host,
                model=REFERENCE,
                status_code=404,
            )
        return task.reference


def with_reference(model: str, suite: Suite, runtime: Runtime) -> Runtime:
    """The runtime, or where `model` is ``reference`` one whose router has just that.

    A registered model of that name goes first. The Store, the bus and all else are
    the same; the new router holds nothing that must be closed.

    Raises:
        EvalError: A task of the suite has no reference solution.
    """
    if model != REFERENCE or any(
        known.name == model for known in runtime.router.models
    ):
        return runtime
    missing = [task.id for task in suite.tasks if task.reference is None]
    if missing:
        raise EvalError(
            f"Suite {suite.name!r} has no reference solution for "
            f"{len(missing)} of its {len(suite)} tasks, e.g. {missing[0]!r}.",
            remedy="Give its tasks a `reference`, or run it on another model. "
            "The suite `coding` has them.",
        )
    registered = RegisteredModel(
        name=REFERENCE,
        provider=ReferenceProvider(suite.tasks),
        capabilities=frozenset({"tools"}),
    )
    router = LLMRouter([registered], bus=runtime.bus)
    return dataclasses.replace(runtime, router=router)


def _writes(
    request: ChatRequest, reference: Mapping[str, str]
) -> tuple[ToolCallDelta, ...]:
    """Calls that write the files, where that can be done and is not done yet."""
    is_offered = any(tool.name == _WRITER for tool in request.tools)
    if not is_offered or any(turn.role == "tool" for turn in request.messages):
        return ()
    return tuple(
        ToolCallDelta(
            index=index,
            id=f"write-{index}",
            name=_WRITER,
            arguments=json.dumps({"path": path, "content": content}),
        )
        for index, (path, content) in enumerate(reference.items())
    )


def _spoken(request: ChatRequest) -> str:
    agent = request.context.agent or ""
    if agent == "planner":
        return json.dumps(_PLAN)
    if agent == "reviewer":
        return json.dumps(_REVIEW)
    return _DONE
