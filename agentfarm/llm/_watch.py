"""The limits of one streamed answer: first token, inter-token, total."""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentfarm.config import TimeoutSettings

_WORKING_S = 1.0


class StreamWatch:
    """Ends a read that waits too long, by cutting the connection under it.

    A cancel scope or `asyncio.timeout` must not span the `yield` of an async
    generator, and one per read costs more than the read. So there is one timer,
    which looks when it fires whether a limit has really passed, and moves on if
    not; a token costs one assignment. The wait for the first token and between
    tokens counts only while the consumer reads; the total counts always.

    Args:
        limits: In seconds.
        started: `time.perf_counter()` when the request was sent.
        cut: Ends a pending read.

    Attributes:
        waiting: Set it while the consumer reads.
        expired: The phase that took too long and its limit, once it has.
    """

    def __init__(
        self, limits: TimeoutSettings, started: float, cut: Callable[[], None]
    ) -> None:
        self.expired: tuple[str, float] | None = None
        self.waiting = False
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._inter_s = inf if limits.inter_token_s is None else limits.inter_token_s
        self._total_at = inf if limits.total_s is None else started + limits.total_s
        first_s = inf if limits.first_token_s is None else limits.first_token_s
        self._first_pending = True
        self._due = started + first_s
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer(self._due)

    def restart(self, now: float) -> None:
        """A token came: from `now` on the inter-token limit counts."""
        self._due = now + self._inter_s
        if self._first_pending:
            # The timer was set for the first token, which may be due much later.
            self._first_pending = False
            self.stop()
            self._set_timer(self._due)

    def stop(self) -> None:
        """Forget all limits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, at: float) -> None:
        delay_s = min(at, self._total_at) - time.perf_counter()
        if delay_s != inf:
            self._timer = self._loop.call_later(max(0.0, delay_s), self._look)

    def _look(self) -> None:
        now = time.perf_counter()
        limits = self._limits
        if now >= self._total_at:
            self.expired = ("total", limits.total_s or 0.0)
        elif now >= self._due and self.waiting:
            phase = "first token" if self._first_pending else "inter-token"
            limit_s = (
                limits.first_token_s if self._first_pending else limits.inter_token_s
            )
            self.expired = (phase, limit_s or 0.0)
        if self.expired:
            self._cut()
        elif now >= self._due:
            # The consumer is at work; its next read is due no sooner than this.
            self._set_timer(now + min(self._inter_s, _WORKING_S))
        else:
            self._set_timer(self._due)
