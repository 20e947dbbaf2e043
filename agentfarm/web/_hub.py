"""The bus's events on their way to WebSocket clients: batched, shared and bounded."""

from __future__ import annotations

import secrets
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio

from agentfarm.web._wire import Batch, Wanted, Wire, joined, message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentfarm.events import Event, EventBus

__all__ = ["Client", "Hub", "Past"]

TICK_S = 0.05
# What may wait for one client, in characters of JSON, and for how long.
QUEUE_CHARS = 4 * 2**20
STALLED_S = 30.0
# Of what a client missed it gets the newest, so much at most.
_MISSED_BYTES = 2 * 2**20
# The bus joins and drops chunks beyond this many waiting events.
_MAILBOX = 50_000
_MOST_AT_ONCE = 10_000


class Past(NamedTuple):
    """Events of the recent past.

    Attributes:
        events: Those that are left, oldest first.
        oldest: Nothing from this `Event.seq` on is missing.
        missing: How many of those asked for are gone.
    """

    events: list[Event]
    oldest: int
    missing: int


class Client:
    """One WebSocket's side of the hub: what it wants, and what waits for it.

    Args:
        wanted: Which events.
        batched: Whether events come together, or each in a message of its own.
        queue_chars: Where more waits already, the client counts as too slow.
    """

    def __init__(
        self, wanted: Wanted, *, batched: bool = True, queue_chars: int = QUEUE_CHARS
    ) -> None:
        self.wanted = wanted
        self.batched = batched
        self.too_slow = anyio.Event()
        self._queue_chars = queue_chars
        self._waiting: deque[str] = deque()
        self._chars = 0
        self._filled = anyio.Event()
        self._took_at = time.monotonic()

    @property
    def is_stalled(self) -> bool:
        """Whether something waits and nothing was taken for long."""
        return bool(self._waiting) and time.monotonic() - self._took_at > STALLED_S

    def give(self, text: str) -> None:
        """Queue a message, or give the client up."""
        if self.too_slow.is_set():
            return
        if self._chars > self._queue_chars or self.is_stalled:
            self._waiting.clear()
            self.too_slow.set()
            return
        self._waiting.append(text)
        self._chars += len(text)
        self._filled.set()

    def give_batch(self, batch: Batch) -> None:
        """Queue what it wants of a batch."""
        if self.batched:
            text = batch.together(self.wanted)
            if text is not None:
                self.give(text)
            return
        for text in batch.singly(self.wanted):
            self.give(text)

    async def take(self) -> str:
        """The next message."""
        while not self._waiting:
            self._filled = anyio.Event()
            await self._filled.wait()
        text = self._waiting.popleft()
        self._chars -= len(text)
        self._took_at = time.monotonic()
        return text


class Hub:
    """Reads the bus once and hands its events to every client.

    Every 50 ms at most, what has come is made into JSON once and shared by all
    clients. A client that does not keep up is given up, and slows nobody.

    Args:
        bus: Whose events.
        heartbeat_s: How often every client hears that the connection is alive.
    """

    def __init__(self, bus: EventBus, *, heartbeat_s: float = 5.0) -> None:
        self.heartbeat_s = heartbeat_s
        self.server_id = secrets.token_hex(8)
        self.clients: set[Client] = set()
        self.dropped = 0
        self._bus = bus
        self._events = bus.subscribe(maxsize=_MAILBOX, name="web hub")
        # Everything up to here has gone to the clients of that moment.
        self.seq = max((event.seq for event in bus.history(limit=1)), default=0)

    async def run(self) -> None:
        """Hand on events until the bus closes."""
        with self._events:
            async for event in self._events:
                begun = time.monotonic()
                batch = [event]
                while self._events.queued and len(batch) < _MOST_AT_ONCE:
                    batch.append(await anext(self._events))
                self._hand_on(batch)
                await anyio.sleep(max(0.0, begun + TICK_S - time.monotonic()))

    async def beat(self) -> None:
        """Tell every client now and then that the connection is alive."""
        while True:
            await anyio.sleep(self.heartbeat_s)
            self._give_all(
                partial(
                    Client.give,
                    text=message("heartbeat", seq=self.seq, timestamp=time.time()),
                )
            )

    def join(self, client: Client, *, since: int | None, server_id: str | None) -> None:
        """Greet a client, give it what it missed, and every event from now on.

        Args:
            client: Who comes.
            since: The last event that it saw; None if it wants the new ones only.
            server_id: Who numbered that event; another server's number means
                nothing here, so the client gets all there is.
        """
        resumed = since is not None and since <= self.seq
        resumed = resumed and server_id in {None, self.server_id}
        start = self.seq if since is None else since if resumed else 0
        past = self.past(start)
        wanted = filter(client.wanted.fits, past.events)
        batch, left_out = Batch.newest(joined(wanted), most_bytes=_MISSED_BYTES)
        hello = message(
            "hello",
            server_id=self.server_id,
            seq=self.seq,
            oldest=past.oldest,
            resumed=resumed,
            missing=past.missing + left_out,
            heartbeat_s=self.heartbeat_s,
        )
        client.give(hello)
        client.give_batch(batch)
        self.clients.add(client)

    def leave(self, client: Client) -> None:
        """Give it nothing more."""
        self.clients.discard(client)

    def past(self, since: int) -> Past:
        """What is left of the events after `since`, as far as clients have them."""
        kept = [event for event in self._bus.history() if event.seq <= self.seq]
        oldest = self.seq + 1
        for event in reversed(kept):
            if event.seq != oldest - 1:
                break
            oldest = event.seq
        events = [event for event in kept if event.seq > since]
        return Past(events, oldest, max(0, self.seq - since) - len(events))

    def _hand_on(self, events: Sequence[Event]) -> None:
        new = [event for event in events if event.seq > self.seq]
        if not new:
            return
        self.seq = new[-1].seq
        if self.clients:
            batch = Batch(map(Wire.of, joined(new)))
            self._give_all(partial(Client.give_batch, batch=batch))

    def _give_all(self, give: Callable[[Client], None]) -> None:
        for client in tuple(self.clients):
            give(client)
            if client.too_slow.is_set():
                self.clients.discard(client)
                self.dropped += 1
