"""How often a client may ask: a token bucket for each."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RateLimit", "client_key"]

_MOST_CLIENTS = 4096


class RateLimit:
    """A token bucket per client, of those that asked most recently.

    Args:
        rate_per_s: Requests that a client may make a second, on average.
        burst: Requests that it may make at once after a pause.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        rate_per_s: float,
        burst: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        # What each had left, and when.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Seconds until the client may ask; 0 if it may now."""
        return max(0.0, (1.0 - self._level(client)) / self._rate_per_s)

    def take(self, client: str) -> float:
        """Count a request; returns `wait_s` as it was before.

        A request that comes too early costs nothing, so that whoever waits as
        long as it was told gets through.
        """
        level = self._level(client)
        if level < 1.0:
            return (1.0 - level) / self._rate_per_s
        self._left[client] = (level - 1.0, self._clock())
        self._left.move_to_end(client)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0

    def _level(self, client: str) -> float:
        left, then = self._left.get(client, (self._burst, 0.0))
        return min(self._burst, left + (self._clock() - then) * self._rate_per_s)


def client_key(address: str) -> str:
    """Under which name an address is counted: an IPv6 one by its network of /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address
