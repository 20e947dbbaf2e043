"""A workflow in progress, as the events that it publishes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from anyio import CancelScope

from agentfarm.errors import AgentFarmError
from agentfarm.events import Event, EventBus, EventType, Subscription
from agentfarm.store import new_run_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from agentfarm.agents._workflow_result import WorkflowResult


class WorkflowStream:
    """The events of one workflow, as an async iterator; made by `Workflow.stream`.

    Nothing happens before the first iteration. Use it as an async context manager:
    leaving the block, by whatever way, interrupts what still runs::

        async with workflow.stream(task) as events:
            async for event in events:
                print(event.type, event.agent)
        print(events.result.summary)
    """

    def __init__(
        self,
        bus: EventBus,
        run: Callable[..., Awaitable[WorkflowResult]],
        *,
        task: str,
        resume: str | None,
    ) -> None:
        self._bus = bus
        self._run = run
        self._task = task
        self._resume = resume
        self._result: WorkflowResult | None = None
        self.run_id = resume or new_run_id()
        self._events = self._follow()

    @property
    def result(self) -> WorkflowResult:
        """What the workflow came to, once the iteration has ended.

        Raises:
            AgentFarmError: It has not come to an end.
        """
        if self._result is None:
            raise AgentFarmError(
                "The workflow has not ended, so it has no result.",
                remedy=f"Iterate to the end, or resume it: {self.run_id}",
            )
        return self._result

    async def aclose(self) -> None:
        """Interrupt what still runs; it can be resumed."""
        await self._events.aclose()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _follow(self) -> AsyncGenerator[Event]:
        loop = asyncio.get_running_loop()
        subscription = self._bus.subscribe(name="workflow stream")
        # Not a task group: it would have to be left in the task that entered it,
        # and every step of an iteration may be another one.
        work = loop.create_task(self._work())
        try:
            while (event := await _next(subscription, work)) is not None:
                if self._is_ours(event):
                    yield event
            self._result = await work
        finally:
            subscription.close()
            if not work.done():
                work.cancel()
                with CancelScope(shield=True):
                    await asyncio.wait([work])

    async def _work(self) -> WorkflowResult:
        if self._resume is not None:
            return await self._run(resume=self._resume)
        return await self._run(self._task, run_id=self.run_id)

    def _is_ours(self, event: Event) -> bool:
        if (
            event.type is EventType.WORKFLOW_STARTED
            and self._resume is not None
            and event.data.get("resumed") == self._resume
        ):
            self.run_id = event.run_id or self.run_id  # a prefix is spelt out
        return event.run_id == self.run_id


async def _next(subscription: Subscription, work: asyncio.Task[Any]) -> Event | None:
    """The next event; None where the work has ended and nothing is left to read."""
    step = asyncio.ensure_future(anext(subscription))
    try:
        await asyncio.wait({step, work}, return_when=asyncio.FIRST_COMPLETED)
        if step.done() or subscription.queued:
            return await step
        return None
    finally:
        if not step.done():
            step.cancel()
            with CancelScope(shield=True):
                await asyncio.wait([step])
