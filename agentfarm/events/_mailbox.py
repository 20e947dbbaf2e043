"""A subscriber's queue: what is kept, joined or dropped when it falls behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from agentfarm.errors import AgentFarmError
from agentfarm.events._types import Event, EventType

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

LATEST_ONLY = frozenset({EventType.HARDWARE, EventType.HEARTBEAT})
TRANSIENT = LATEST_ONLY | {EventType.LLM_STREAM_CHUNK}

# Chunks of a stream waiting in one entry are joined into one event at this many,
# so that an entry costs text and not objects.
_JOIN_EVERY = 64
# An entry that holds this many chunks takes no more: the next one makes a new entry
# and the oldest gives way. It bounds what a subscriber that never reads can hold.
_JOIN_LIMIT = 4096
# What a chunk says in pieces.
_TEXTS = frozenset({"text", "reasoning"})

Entry = list[Event]


class Mailbox:
    """One subscriber's bounded queue, in the order of publication.

    The policy is that of `EventBus`. Events of three policies wait in three
    places, each in order of `Event.seq`; `take` gives the smallest, so every
    operation costs the same however long the queue is.

    Args:
        maxsize: Events that may wait before droppable ones give way.
        lock: The bus's lock. Publishing and `close` want it held; the reader's
            methods take it where they must.
    """

    __slots__ = (
        "_chunks",
        "_drained",
        "_latest",
        "_lock",
        "_lossless",
        "_open",
        "_overflow_seen",
        "_waited",
        "_waiter",
        "closed",
        "coalesced",
        "dropped",
        "maxsize",
        "taken",
    )

    def __init__(self, maxsize: int, lock: threading.RLock) -> None:
        self.maxsize = maxsize
        self.closed = False
        self.taken = 0
        self._waited = False
        self.dropped = 0
        self.coalesced = 0
        self._lock = lock
        self._lossless: deque[Event] = deque()
        self._chunks: deque[Entry] = deque()
        self._latest: dict[EventType, Event] = {}
        self._open: dict[str | None, Entry] = {}
        self._overflow_seen = False
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._lossless) + len(self._chunks) + len(self._latest)

    @property
    def was_read(self) -> bool:
        """Whether a reader ever came."""
        return self._waited or self.taken > 0

    def offer_for(self, kind: EventType) -> Callable[[Event], bool]:
        """The way in for events of one type: queue one, never blocking.

        It wants the lock held. It returns True once: when events that may not be
        dropped first outgrow `maxsize`.
        """
        if kind in LATEST_ONLY:
            return self._offer_latest
        return self._offer_chunk if kind in TRANSIENT else self._offer_lossless

    def _offer_lossless(self, event: Event) -> bool:
        self._lossless.append(event)
        if self._open:
            # Text after this event may not be joined to text before it.
            self._open.pop(event.request_id, None)
        if self._waiter is not None:
            self.wake()
        if len(self._lossless) + len(self._chunks) <= self.maxsize:
            return False
        if self._drop_oldest_chunk() or self._overflow_seen:
            return False
        self._overflow_seen = True
        return True

    def _offer_latest(self, event: Event) -> bool:
        if self._latest.pop(event.type, None) is not None:
            self.coalesced += 1
        self._latest[event.type] = event
        self.wake()
        return False

    def _offer_chunk(self, event: Event) -> bool:
        if len(self._lossless) + len(self._chunks) >= self.maxsize:
            entry = self._open.get(event.request_id)
            if entry is not None:
                entry.append(event)
                self.coalesced += 1
                if len(entry) >= _JOIN_EVERY:
                    self._compact(entry)
                return False
            if not self._drop_oldest_chunk():
                # Nothing but events that outrank a chunk is waiting.
                self.dropped += 1
                return False
        entry = [event]
        self._chunks.append(entry)
        if event.request_id is not None:
            self._open[event.request_id] = entry
        if self._waiter is not None:
            self.wake()
        return False

    def _compact(self, entry: Entry) -> None:
        entry[:] = [_join(entry)]
        if _count(entry[0]) >= _JOIN_LIMIT:
            self._forget(entry)

    def _drop_oldest_chunk(self) -> bool:
        if not self._chunks:
            return False
        self._forget(self._chunks.popleft())
        self.dropped += 1
        return True

    def _forget(self, entry: Entry) -> None:
        request_id = entry[0].request_id
        if self._open.get(request_id) is entry:
            del self._open[request_id]

    def take(self) -> Event | None:
        """The next event, or None where nothing waits."""
        lossless = self._lossless
        if lossless and not self._chunks and not self._latest:
            # Without the lock, and in this order of looking: what another thread
            # adds from now on comes later.
            event: Event | None = lossless.popleft()
        elif self._chunks or self._latest:
            with self._lock:
                event = self._take_smallest()
        else:
            return None
        self.taken += 1
        if self._drained is not None and not len(self):
            _release(self._drained)
        return event

    def _take_smallest(self) -> Event | None:
        lossless, chunks = self._lossless, self._chunks
        chunk = chunks[0][0] if chunks else None
        if self._latest:
            heads = [*self._latest.values(), *islice(lossless, 1)]
            heads += [chunk] if chunk is not None else []
            first = min(heads, key=_seq)
            if first.type in LATEST_ONLY:
                return self._latest.pop(first.type)
        if chunk is None or (lossless and lossless[0].seq < chunk.seq):
            return lossless.popleft() if lossless else None
        entry = chunks.popleft()
        self._forget(entry)
        return chunk if len(entry) == 1 else _join(entry)

    async def wait(self) -> None:
        """Wait until something is queued or the mailbox is closed.

        Raises:
            AgentFarmError: Another reader waits already.
        """
        loop = asyncio.get_running_loop()
        self._waited = True
        with self._lock:
            if len(self) or self.closed:
                return
            if self._waiter is not None:
                raise AgentFarmError(
                    "Two readers wait on one subscription.",
                    remedy="Give each reader its own bus.subscribe().",
                )
            waiter = self._waiter = loop.create_future()
        try:
            await waiter
        finally:
            with self._lock:
                if self._waiter is waiter:
                    self._waiter = None

    def drained(self) -> asyncio.Future[None]:
        """A future of the running loop, done once everything queued was taken."""
        with self._lock:
            done = self._drained = asyncio.get_running_loop().create_future()
            if not len(self):
                done.set_result(None)
            return done

    def close(self) -> None:
        """Take nothing more and let the reader see the end; the lock is held."""
        self.closed = True
        self.wake()

    def discard(self) -> None:
        """Throw away what waits; the lock is held."""
        # New containers, since the reader may hold an old one without the lock.
        self._lossless = deque()
        self._chunks = deque()
        self._latest = {}
        self._open = {}
        if self._drained is not None:
            _release(self._drained)

    def wake(self) -> None:
        """Let the reader look again; from any thread, the lock is held."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        loop = waiter.get_loop()
        if _running_loop() is loop:
            _release(waiter)
        else:
            # A loop that is closed has nobody left to wake.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_release, waiter)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _seq(event: Event) -> int:
    return event.seq


def _count(event: Event) -> int:
    count: int = event.data.get("coalesced", 1)
    return count


def _join(entry: Entry) -> Event:
    """One event for several chunks: texts and lists joined, else the last value."""
    data: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    for event in entry:
        for key, value in event.data.items():
            if key in _TEXTS:
                texts.setdefault(key, []).append(value or "")
            elif isinstance(value, (list, tuple)):
                data[key] = [*data.get(key, ()), *value]
            else:
                data[key] = value
    data.update({key: "".join(parts) for key, parts in texts.items()})
    data["coalesced"] = sum(_count(event) for event in entry)
    return replace(entry[0], data=data)
