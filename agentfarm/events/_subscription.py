"""What a subscriber holds, and what the bus knows about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

from agentfarm.errors import AgentFarmError
from agentfarm.events._metrics import Kind, SubscriptionMetrics
from agentfarm.events._types import Event, EventType

if TYPE_CHECKING:
    from types import TracebackType

    from agentfarm.events._mailbox import Mailbox

Handler = Callable[[Event], object]
AsyncHandler = Callable[[Event], Awaitable[object]]

_log = logging.getLogger("agentfarm.events")

# A reader with a full queue lets other tasks run this often.
_YIELD_EVERY = 512


class Channel:
    """The bus's side of a subscription."""

    __slots__ = (
        "called",
        "failed",
        "handler",
        "kind",
        "mailbox",
        "name",
        "order",
        "priority",
        "stopped",
        "types",
    )

    def __init__(
        self,
        *,
        kind: Kind,
        name: str,
        types: frozenset[EventType],
        priority: int,
        order: int,
        handler: Handler | None = None,
        mailbox: Mailbox | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.types = types
        self.priority = priority
        self.order = order
        self.handler = handler
        self.mailbox = mailbox
        self.called = 0
        self.failed = 0
        self.stopped = False

    def metrics(self) -> SubscriptionMetrics:
        box = self.mailbox
        return SubscriptionMetrics(
            name=self.name,
            kind=self.kind,
            priority=self.priority,
            maxsize=box.maxsize if box is not None else None,
            delivered=box.taken if box is not None else self.called,
            dropped=box.dropped if box is not None else 0,
            coalesced=box.coalesced if box is not None else 0,
            failed=self.failed,
            queued=len(box) if box is not None else 0,
        )

    def fail(self, event: Event, error: BaseException) -> None:
        """Count a handler's failure and log the first."""
        self.failed += 1
        if self.failed == 1:
            _log.error(
                "Handler %s failed on %s; it stays subscribed, further failures are "
                "only counted (bus.metrics()).",
                self.name,
                event.type.value,
                exc_info=error,
            )

    def warn_stalled(self, maxsize: int) -> None:
        """Say that events which may not be dropped fill this queue."""
        _log.warning(
            "Subscriber %s does not keep up: more than %d events wait for it. Its "
            "queue grows, since these may not be dropped; let it read, or close it.",
            self.name,
            maxsize,
        )

    def warn_unread(self, count: int, timeout_s: float) -> None:
        """Say what a subscriber had not read when the bus closed, if anything."""
        if count:
            _log.warning(
                "Subscriber %s left %d events unread: the bus closed after %g s.",
                self.name,
                count,
                timeout_s,
            )

    async def next(self) -> Event | None:
        """The next event; None when the subscription or the bus has ended."""
        box = self.mailbox
        while box is not None and not self.stopped:
            event = box.take()
            if event is not None:
                return event
            if box.closed:
                return None
            await box.wait()
        return None

    async def serve(self, handler: AsyncHandler) -> None:
        """Call an async handler with one event after the other, until the end."""
        served = 0
        while (event := await self.next()) is not None:
            try:
                await handler(event)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Something the handler awaited was cancelled, not this task.
                self.fail(event, error)
            except Exception as error:  # noqa: BLE001 - logged by fail
                self.fail(event, error)
            served += 1
            if served % _YIELD_EVERY == 0:
                await asyncio.sleep(0)


class Subscription:
    """A subscriber's handle: iterate it, look at its counters, close it.

    An iterator (`EventBus.subscribe`) ends when it is closed; when the bus is
    closed it still gives what was queued. It is unsubscribed when it is garbage
    collected, so an abandoned loop fills no queue. A handler (`EventBus.on`) stays
    subscribed until `close`, whether or not its handle is kept.
    """

    __slots__ = ("__weakref__", "_box", "_channel", "_detach")

    def __init__(self, channel: Channel, detach: Callable[[Channel], None]) -> None:
        self._channel = channel
        self._box = channel.mailbox if channel.kind == "iterator" else None
        self._detach = detach

    @property
    def name(self) -> str:
        """The subscriber's name, for people."""
        return self._channel.name

    @property
    def delivered(self) -> int:
        """Events handed over."""
        return self._channel.metrics().delivered

    @property
    def dropped(self) -> int:
        """Events thrown away because this subscriber was too slow."""
        return self._channel.metrics().dropped

    @property
    def coalesced(self) -> int:
        """Events merged into one that waited already."""
        return self._channel.metrics().coalesced

    @property
    def failed(self) -> int:
        """Events at which the handler raised."""
        return self._channel.failed

    @property
    def queued(self) -> int:
        """Events waiting now."""
        return self._channel.metrics().queued

    @property
    def closed(self) -> bool:
        """Whether it was closed; nothing more is delivered then."""
        return self._channel.stopped

    def close(self) -> None:
        """Unsubscribe at once; what waits is thrown away. Closing twice is fine."""
        self._detach(self._channel)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        box = self._box
        if box is None:
            raise AgentFarmError(
                f"Subscription {self.name!r} has a handler and cannot be iterated.",
                remedy="Use bus.subscribe() to iterate.",
            )
        event = box.take()
        if event is None:
            event = await self._channel.next()
            if event is None:
                raise StopAsyncIteration
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A handle whose constructor failed has no channel.
        channel = getattr(self, "_channel", None)
        if channel is not None and channel.kind == "iterator":
            self._detach(channel)

    def __repr__(self) -> str:
        m = self._channel.metrics()
        return (
            f"<Subscription {m.name!r} {m.kind}: {m.delivered} delivered, "
            f"{m.dropped} dropped, {m.queued} queued>"
        )
