"""A circuit breaker: stop asking a model that keeps failing, then probe it once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agentfarm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BreakerPolicy", "CircuitBreaker"]

Admission = Literal["normal", "probe"]
BreakerState = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerPolicy:
    """When a circuit opens and for how long.

    Attributes:
        failures: Failures in a row that open it.
        open_s: Seconds until a probe is let through.
        max_open_s: Each failed probe doubles the wait, up to this.
    """

    failures: int = 5
    open_s: float = 10.0
    max_open_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: A value is not positive.
        """
        if self.failures < 1 or not 0 < self.open_s <= self.max_open_s:
            raise ConfigError(
                f"{self} is not a breaker policy.",
                remedy="Give failures >= 1 and 0 < open_s <= max_open_s.",
            )


class CircuitBreaker:
    """The breaker of one model on one host.

    Closed, every request passes. After `BreakerPolicy.failures` in a row it is
    open and none passes. When its time is over it is half-open: exactly one
    request passes as a probe, and its outcome closes or opens the circuit. A
    failure says that the host is ill: no connection, a timeout, a 5xx, a cut
    stream. A refusal (429, 4xx) shows a host in good health.

    Every admission that `enter` gives must go back to one of `succeeded`,
    `failed` or `abandoned`, so that a request from before the circuit opened is
    not taken for the probe.
    """

    __slots__ = ("_clock", "_in_row", "_open_s", "_policy", "_probing", "_retry_at")

    def __init__(self, policy: BreakerPolicy, *, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._in_row = 0
        self._open_s = policy.open_s
        self._retry_at: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """Where the circuit stands now."""
        if self._retry_at is None:
            return "closed"
        return "open" if self.probe_in_s > 0 else "half-open"

    @property
    def probe_in_s(self) -> float:
        """Seconds until a probe may pass; 0 where none has to be waited for."""
        if self._retry_at is None:
            return 0.0
        return max(0.0, self._retry_at - self._clock())

    @property
    def ready(self) -> bool:
        """Whether a request would pass now."""
        return self._retry_at is None or (not self._probing and self.probe_in_s == 0)

    def enter(self) -> Admission | None:
        """Let a request pass, as the probe if half-open; None if it may not."""
        if not self.ready:
            return None
        if self._retry_at is None:
            return "normal"
        self._probing = True
        return "probe"

    def succeeded(self) -> None:
        """The host answered."""
        self._in_row = 0
        self._open_s = self._policy.open_s
        self._retry_at = None
        self._probing = False

    def failed(self, admission: Admission) -> None:
        """The host is ill; open after enough of these, or at once after a probe."""
        self._in_row += 1
        if admission == "probe":
            self._probing = False
            self._open_s = min(self._policy.max_open_s, self._open_s * 2)
            self._retry_at = self._clock() + self._open_s
        elif self._retry_at is None and self._in_row >= self._policy.failures:
            self._retry_at = self._clock() + self._open_s

    def abandoned(self, admission: Admission) -> None:
        """The request ended without saying anything about the host."""
        if admission == "probe":
            self._probing = False
