"""The bus: takes events from any thread, hands them to whoever asked."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

from agentfarm.errors import AgentFarmError
from agentfarm.events._mailbox import TRANSIENT, Mailbox
from agentfarm.events._metrics import BusMetrics, Kind
from agentfarm.events._subscription import (
    AsyncHandler,
    Channel,
    Handler,
    Subscription,
)
from agentfarm.events._types import Event, EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType

# A handler that is cancelled after the timeout of aclose gets this long to end.
_CANCEL_GRACE_S = 1.0


class _Route:
    """Where events of one type go; replaced parts are tuples, read without care."""

    __slots__ = ("called", "history", "offers", "published")

    def __init__(self, history: deque[Event]) -> None:
        self.history = history
        self.published = 0
        self.called: tuple[tuple[Handler, Channel], ...] = ()
        self.offers: tuple[tuple[Callable[[Event], bool], Channel], ...] = ()


class EventBus:
    """Carries typed events from whoever publishes to whoever subscribed.

    `publish` never waits for a subscriber, and a subscriber's failure never
    reaches it: it is counted, and logged the first time.

    What happens to a subscriber whose queue holds `maxsize` events:

    * ``LLM_STREAM_CHUNK``: joined to the last waiting chunk of the same request
      (``text``, ``reasoning`` and lists are concatenated, of other values the last
      stands; ``data["coalesced"]`` counts the chunks), else the oldest waiting
      chunk is dropped and counted.
    * ``HEARTBEAT`` and ``HARDWARE``: only the latest of each waits, whatever the size.
    * Every other event is never dropped. Chunks make room for it; where none wait,
      the queue grows past `maxsize`, which is logged once.

    A subscriber sees events in the order of `Event.seq`. Functions are called on
    the publishing thread, so they may be called from several threads at once.

    The bus belongs to the event loop in which it first gets an async subscriber:
    subscribe, iterate and close it there; publish from any thread. It needs no
    task group, so that a notebook may make it in one cell and use it in others.

    Args:
        history: Events kept for `history`, and as many chunks, heartbeats and
            hardware samples beside them, so that a stream does not push out what
            matters.
        heartbeat_s: Publish a HEARTBEAT every so many seconds from the first
            subscription in a running loop on; None for none.
    """

    def __init__(
        self, *, history: int = 1000, heartbeat_s: float | None = None
    ) -> None:
        if history < 0 or (heartbeat_s is not None and heartbeat_s <= 0):
            raise AgentFarmError(
                f"EventBus(history={history}, heartbeat_s={heartbeat_s}) is not valid.",
                remedy="Use history >= 0, and heartbeat_s > 0 or None.",
            )
        # Re-entrant: a signal handler or a finalizer may publish on the thread
        # that is publishing already.
        self._lock = threading.RLock()
        self._kept: deque[Event] = deque(maxlen=history)
        self._kept_transient: deque[Event] = deque(maxlen=history)
        self._routes = {
            kind: _Route(self._kept_transient if kind in TRANSIENT else self._kept)
            for kind in EventType
        }
        self._seq = 0
        self._discarded = 0
        self._closed = False
        self._channels: tuple[Channel, ...] = ()
        self._order = itertools.count(1)
        # Handlers outlive the notebook cell that subscribed them, so no task group
        # can hold their tasks: this set does, until aclose.
        self._tasks: set[asyncio.Task[None]] = set()
        self._heartbeat_s = heartbeat_s
        self._heartbeat: asyncio.Task[None] | None = None
        self._created = time.monotonic()

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    def publish(self, event: Event) -> Event:
        """Give the event its `seq` and hand it to every subscriber.

        It never blocks and may be called from any thread. After `aclose` it does
        nothing but count the event as discarded, so that code which shuts down may
        still report.

        Returns:
            The event with its `seq`: the same object, or a copy where it had been
            published before. After `aclose`: the event as it was.
        """
        route = self._routes[event.type]
        stalled = None
        with self._lock:
            if self._closed:
                self._discarded += 1
                return event
            self._seq = seq = self._seq + 1
            if event.seq:
                event = replace(event, seq=seq)
            else:
                # The one field that is the bus's to give; a copy costs a microsecond.
                object.__setattr__(event, "seq", seq)
            route.published += 1
            route.history.append(event)
            for offer, channel in route.offers:
                if offer(event):
                    stalled = channel
            called = route.called
            for _, channel in called:
                channel.called += 1
        for handler, channel in called:
            try:
                handler(event)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - fail logs it
                channel.fail(event, error)
        if stalled is not None and stalled.mailbox is not None:
            stalled.warn_stalled(stalled.mailbox.maxsize)
        return event

    def emit(
        self,
        type: EventType,
        data: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        agent: str | None = None,
        request_id: str | None = None,
    ) -> Event:
        """Make an event and publish it."""
        return self.publish(
            Event(
                type=type,
                data={} if data is None else data,
                run_id=run_id,
                agent=agent,
                request_id=request_id,
            )
        )

    def on(
        self,
        handler: Handler | AsyncHandler,
        *types: EventType,
        priority: int = 0,
        maxsize: int = 1024,
        name: str | None = None,
    ) -> Subscription:
        """Call a handler with every event of these types; of all if none is named.

        A plain function is called inside `publish`, higher `priority` first: for
        microseconds of work only. An ``async def`` gets a queue and a task of its
        own and is called with one event at a time. Either may raise; it gets the
        next event all the same.

        Raises:
            AgentFarmError: The bus is closed, `maxsize` is below 1, or an async
                handler is given where no event loop runs.
        """
        name = name or str(getattr(handler, "__qualname__", type(handler).__name__))
        if not _is_async(handler):
            channel = self._channel("function", types, priority, name, handler=handler)
            return self._attach(channel)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise AgentFarmError(
                f"The async handler {name!r} needs a running event loop.",
                remedy="Subscribe it inside an async function or a notebook cell.",
            ) from None
        channel = self._channel("task", types, priority, name, maxsize=maxsize)
        subscription = self._attach(channel)
        self._spawn(loop, channel.serve(cast("AsyncHandler", handler)), name)
        return subscription

    def subscribe(
        self,
        *types: EventType,
        priority: int = 0,
        maxsize: int = 1024,
        name: str | None = None,
    ) -> Subscription:
        """An async iterator over events of these types; over all if none is named.

        Events are queued from this call on. Use it as a context manager, or close
        it, when you stop reading.

        Raises:
            AgentFarmError: The bus is closed or `maxsize` is below 1.
        """
        channel = self._channel("iterator", types, priority, name, maxsize=maxsize)
        return self._attach(channel)

    def history(
        self, *types: EventType, limit: int | None = None, since_seq: int = 0
    ) -> list[Event]:
        """Past events of these types, oldest first; of all if none is named.

        Args:
            *types: Which kinds.
            limit: At most so many, the newest ones.
            since_seq: Only events after this `seq`.
        """
        with self._lock:
            events = [*self._kept, *self._kept_transient]
        wanted = frozenset(types or EventType)
        events = [e for e in events if e.seq > since_seq and e.type in wanted]
        events.sort(key=lambda event: event.seq)
        return events if limit is None else events[max(0, len(events) - limit) :]

    def metrics(self) -> BusMetrics:
        """What was published and what became of it."""
        with self._lock:
            published = {k: r.published for k, r in self._routes.items() if r.published}
            return BusMetrics(
                published=published,
                total=sum(published.values()),
                discarded=self._discarded,
                subscriptions=tuple(c.metrics() for c in self._channels),
            )

    async def aclose(self, *, timeout_s: float = 5.0) -> None:
        """Take no more events, let subscribers finish what is queued, then stop.

        Waits for async handlers and for iterators that have been read from and
        still have events; both are logged if they do not finish in time, and
        handlers are cancelled then. What an iterator has not read stays readable.
        Closing twice is fine.
        """
        with self._lock:
            first = not self._closed
            self._closed = True
            queued = [(c, c.mailbox) for c in self._channels if c.mailbox is not None]
            for _, box in queued:
                box.close()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        loop = asyncio.get_running_loop()
        tasks = {task for task in self._tasks if task.get_loop() is loop}
        tasks -= {asyncio.current_task()}
        read = [(c, box) for c, box in queued if c.kind == "task" or box.was_read]
        waits: list[asyncio.Future[None]] = [*tasks]
        if first:
            waits += [box.drained() for c, box in read if c.kind == "iterator"]
        try:
            if waits:
                await asyncio.wait(waits, timeout=timeout_s)
            for channel, box in read:
                channel.warn_unread(len(box), timeout_s)
        finally:
            late = {task for task in tasks if not task.done()}
            for task in late:
                task.cancel()
        if late:
            await asyncio.wait(late, timeout=_CANCEL_GRACE_S)

    async def __aenter__(self) -> Self:
        self._start_heartbeat()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return (
            f"<EventBus {state}: {self._seq} events published, "
            f"{len(self._channels)} subscriptions>"
        )

    def _channel(
        self,
        kind: Kind,
        types: tuple[EventType, ...],
        priority: int,
        name: str | None,
        *,
        maxsize: int = 1,
        handler: Handler | None = None,
    ) -> Channel:
        if maxsize < 1:
            raise AgentFarmError(
                f"A subscription with maxsize={maxsize} could hold no event.",
                remedy="Use maxsize >= 1.",
            )
        order = next(self._order)
        return Channel(
            kind=kind,
            name=name or f"subscriber-{order}",
            types=frozenset(types or EventType),
            priority=priority,
            order=order,
            handler=handler,
            mailbox=None if kind == "function" else Mailbox(maxsize, self._lock),
        )

    def _attach(self, channel: Channel) -> Subscription:
        with self._lock:
            if self._closed:
                raise AgentFarmError(
                    f"{channel.name!r} cannot subscribe: the EventBus is closed.",
                    remedy="Open a new runtime or make a new EventBus.",
                )
            self._channels = tuple(
                sorted(
                    (*self._channels, channel),
                    key=lambda c: (-c.priority, c.order),
                )
            )
            self._reroute(channel.types)
        self._start_heartbeat()
        return Subscription(channel, self._detach)

    def _detach(self, channel: Channel) -> None:
        with self._lock:
            channel.stopped = True
            if channel.mailbox is not None:
                channel.mailbox.close()
                channel.mailbox.discard()
            self._channels = tuple(c for c in self._channels if c is not channel)
            self._reroute(channel.types)

    def _reroute(self, types: frozenset[EventType]) -> None:
        for kind in types:
            route = self._routes[kind]
            channels = [c for c in self._channels if kind in c.types]
            route.called = tuple(
                (c.handler, c) for c in channels if c.handler is not None
            )
            route.offers = tuple(
                (c.mailbox.offer_for(kind), c)
                for c in channels
                if c.mailbox is not None
            )

    def _spawn(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, None],
        name: str,
    ) -> asyncio.Task[None]:
        task = loop.create_task(work, name=f"agentfarm.events:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start_heartbeat(self) -> None:
        if self._heartbeat_s is None or self._heartbeat is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._heartbeat = self._spawn(loop, self._beat(self._heartbeat_s), "heartbeat")

    async def _beat(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            uptime_s = round(time.monotonic() - self._created, 3)
            self.emit(EventType.HEARTBEAT, {"uptime_s": uptime_s})


def _is_async(handler: object) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - its kind, not its presence
    )
