"""What a source of GPU readings is, and how one is kept from stalling its caller."""

from __future__ import annotations

import logging
import re
import threading
from math import isfinite
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentfarm.monitoring._gpu_values import GPUReading, GPUSource

_LOG = logging.getLogger("agentfarm.monitoring")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
# What drivers say for "not there" in a field of 32 or 64 bits.
_FILLERS = frozenset({float(2**32 - 1), float(2**64 - 1)})
# A tool is killed at the timeout; this is for the killing.
_GRACE_S = 1.5
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0


class Unavailable(Exception):  # a finding, not an error
    """This source cannot say anything now; the message is the reason."""


class Source(Protocol):
    """One way to read the cards of one vendor; blocking, used by a thread at a time."""

    name: GPUSource
    vendor: Literal["nvidia", "amd"]

    def read(self, timeout_s: float) -> list[GPUReading]:
        """Read all cards; at least one.

        Raises:
            Unavailable: There are none, or they cannot be read this way.
        """

    def close(self) -> None:
        """Let go of what was opened; it opens again at the next reading."""


class GuardedSource:
    """A source with a hard timeout, asked ever more seldom while it fails.

    A reading runs in a thread of its own, which is left to itself when it does not
    end: a call into a driver cannot be interrupted. Until it ends, no other starts.
    """

    def __init__(
        self, source: Source, *, timeout_s: float, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._timeout_s = timeout_s
        self._clock = clock
        self._failures = 0
        self._retry_at = float("-inf")
        self._hanging: threading.Thread | None = None
        self.name = source.name
        self.vendor = source.vendor
        self.reason = ""
        """Why the last reading gave nothing."""

    @property
    def due(self) -> bool:
        """Whether it can be asked now, and not only after a wait."""
        return self._clock() >= self._retry_at

    def read(self) -> list[GPUReading]:
        """Read all cards; none where it fails, or has failed and is not due."""
        if not self.due:
            return []
        if self._hanging is not None and self._hanging.is_alive():
            return self._fail("an earlier reading has not ended yet")
        readings: list[GPUReading] = []
        reasons: list[str] = []

        def work() -> None:
            try:
                readings.extend(self._source.read(self._timeout_s))
            except Unavailable as problem:
                reasons.append(str(problem))
            except Exception as error:  # noqa: BLE001 - a driver's, a tool's: not ours
                _LOG.exception("Reading GPUs through %s failed.", self.name)
                reasons.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=work, name=f"gpu-{self.name}", daemon=True)
        thread.start()
        thread.join(self._timeout_s + _GRACE_S)
        if thread.is_alive():
            self._hanging = thread
            return self._fail(f"gave no answer within {self._timeout_s:g} s")
        if reasons or not readings:
            return self._fail(reasons[0] if reasons else "named no card")
        self._failures, self.reason = 0, ""
        return readings

    def close(self) -> None:
        """Let go of what was opened."""
        self._source.close()

    def _fail(self, reason: str) -> list[GPUReading]:
        self.reason = reason
        wait_s = min(_FIRST_WAIT_S * 2.0**self._failures, _LONGEST_WAIT_S)
        self._retry_at = self._clock() + wait_s
        # The wait has its longest long before the exponent could overflow.
        self._failures = min(self._failures + 1, 30)
        return []


def number(value: object) -> float | None:
    """A number out of what a tool wrote, e.g. ``42``, ``"42.0 W"`` or ``"(500Mhz)"``.

    None for ``N/A``, ``[Not Supported]`` and all else that is no number.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        found = float(value)
    else:
        text = value.strip().lstrip("(") if isinstance(value, str) else ""
        match = _NUMBER.match(text)
        if match is None:
            return None
        found = float(match[0])
    return found if isfinite(found) and found not in _FILLERS else None


def positive(value: object) -> float | None:
    """The same, where zero cannot be true and only says that nobody knows."""
    found = number(value)
    return found if found is not None and found > 0 else None


def scaled(value: float | None, factor: float) -> float | None:
    """A number in another unit; unknown stays unknown."""
    return None if value is None else value * factor


def whole(value: float | None) -> int | None:
    """A count; unknown stays unknown."""
    return None if value is None else round(value)


def said(text: str, *, length: int = 200) -> str:
    """The first line that says something, for a message."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= length else f"{line[:length]}…"
