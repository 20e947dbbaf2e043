"""When a failed request is tried again, and how long that waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentfarm.errors import ConfigError, RateLimited

if TYPE_CHECKING:
    from random import Random

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: a draw from 0 to a doubling bound.

    A round asks every candidate once, best first and without waiting between
    them; the wait comes between rounds. So alternatives cost no time, and a
    model with none is tried `rounds` times.

    Attributes:
        rounds: Rounds in all; 1 means that nothing is tried twice.
        base_s: The first wait is drawn from 0 to this, seconds; the bound doubles
            with each round.
        max_wait_s: No drawn bound is longer, seconds.
        max_retry_after_s: A server that asks for a longer wait (``Retry-After``)
            is not waited for: its RateLimited is raised at once.
    """

    rounds: int = 3
    base_s: float = 0.5
    max_wait_s: float = 8.0
    max_retry_after_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: A value is negative or there is no round.
        """
        if self.rounds < 1 or min(self.base_s, self.max_wait_s) < 0:
            raise ConfigError(
                f"{self} is not a retry policy.",
                remedy="Give rounds >= 1 and waits that are not negative.",
            )

    def wait_s(self, finished_rounds: int, rng: Random) -> float:
        """Draw the wait before the next round, seconds."""
        bound_s = min(self.max_wait_s, self.base_s * 2.0 ** (finished_rounds - 1))
        return rng.uniform(0.0, bound_s)


def retry_after_s(error: BaseException) -> float:
    """Seconds that the server asked to be left alone; 0 if it did not."""
    asked_s = error.retry_after_s if isinstance(error, RateLimited) else None
    return max(0.0, asked_s or 0.0)
