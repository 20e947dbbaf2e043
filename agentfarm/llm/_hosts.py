"""What the router keeps about a host and about a model on it."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentfarm.llm._breaker import CircuitBreaker
    from agentfarm.llm._registry import RegisteredModel

__all__ = ["HostGate", "Lane"]

# Weight of the newest latency in the moving average: about the last six count.
_NEWEST = 0.3


class HostGate:
    """Admits a limited number of requests to a host, first come first served.

    Attributes:
        limit: Requests at once.
        active: Requests that are in now.
    """

    __slots__ = ("_queue", "active", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that wait for admission."""
        return len(self._queue)

    @property
    def load(self) -> float:
        """Requests in and waiting, over the limit; above 1 there is a queue."""
        return (self.active + len(self._queue)) / self.limit

    async def enter(self) -> None:
        """Wait for a place; every return must be followed by one `leave`."""
        # A place is handed over, so none is free while someone waits.
        if self.active < self.limit:
            self.active += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The place was handed over in the moment of the cancellation.
                self.leave()
            else:
                with suppress(ValueError):
                    self._queue.remove(turn)
            raise

    def leave(self) -> None:
        """Hand the place to the next in the queue, or free it."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.active -= 1


@dataclass(slots=True, eq=False)
class Lane:
    """A registered model with its state in the router.

    Attributes:
        entry: The registration.
        order: Its position among the registrations.
        gate: Of the host, shared by its models.
        breaker: Of this model on this host.
        latency_s: Moving average of end-to-end latency; None before an answer.
        quiet_until: When the server wants to be asked again (``Retry-After``),
            on the router's clock.
        completed, failed: Attempts that ended so.
        last_error: Of the newest failed attempt.
    """

    entry: RegisteredModel
    order: int
    gate: HostGate
    breaker: CircuitBreaker
    latency_s: float | None = None
    quiet_until: float = float("-inf")
    completed: int = 0
    failed: int = 0
    last_error: str | None = None

    def answered(self, latency_s: float) -> None:
        """Count an answer and its end-to-end latency in seconds."""
        self.completed += 1
        if self.latency_s is None:
            self.latency_s = latency_s
        else:
            self.latency_s += _NEWEST * (latency_s - self.latency_s)

    def blocked_s(self, now: float) -> float:
        """Seconds until it may be asked; 0 if it may, or a probe is under way."""
        return max(0.0, self.quiet_until - now, self.breaker.probe_in_s)

    def ready(self, now: float) -> bool:
        """Whether it may be asked now."""
        return self.quiet_until <= now and self.breaker.ready
