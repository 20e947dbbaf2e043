"""The power of a machine's GPUs over time, out of samples: energy and heat."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "MAX_GAP_S",
    "Card",
    "Heat",
    "HeatLimits",
    "Moment",
    "PowerCurve",
    "heat_between",
    "moments_of",
]

# Of the time between two samples that are further apart, nothing is known.
MAX_GAP_S = 5.0


class Card(Protocol):
    """What is used of a `GPUSampleRecord`."""

    @property
    def step_s(self) -> int: ...
    @property
    def timestamp(self) -> float: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def samples(self) -> int: ...
    @property
    def covered_s(self) -> float: ...
    @property
    def power_w(self) -> float | None: ...
    @property
    def temperature_c(self) -> float | None: ...
    @property
    def temperature_max_c(self) -> float | None: ...
    @property
    def junction_temperature_c(self) -> float | None: ...
    @property
    def junction_temperature_max_c(self) -> float | None: ...
    @property
    def temperature_limit_c(self) -> float | None: ...
    @property
    def thermal_share(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatLimits:
    """From where on a card counts as too hot, beside what it says itself.

    Attributes:
        junction_c: Its hottest spot, °C.
        below_limit_c: So many degrees below the limit that the card tells, °C.
    """

    junction_c: float = 100.0
    below_limit_c: float = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Heat:
    """How hot GPUs were during a time.

    Attributes:
        throttled: Whether one of them was slowed down by heat or too hot; None where
            nothing tells.
        max_temperature_c: The hottest of their edge and junction temperatures, °C.
    """

    throttled: bool | None = None
    max_temperature_c: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """All cards of a machine at one moment, or over a span of `step_s` seconds."""

    timestamp: float
    step_s: int
    samples: int
    power_w: float | None
    heat: Heat

    @property
    def end(self) -> float:
        """Where the span ends, Unix time."""
        return self.timestamp + self.step_s


def moments_of(
    cards: Iterable[Card], *, max_gap_s: float, limits: HeatLimits
) -> list[Moment]:
    """Put the cards of each moment together, oldest first.

    Power is known where that of all cards is. That of a span is not known where
    samples of more than `max_gap_s` seconds of it are missing.
    """
    ordered = sorted(cards, key=attrgetter("timestamp"))
    found = []
    for timestamp, group in groupby(ordered, key=attrgetter("timestamp")):
        these = list(group)
        powers = [_power_w(card, max_gap_s) for card in these if card.parent is None]
        known = [power for power in powers if power is not None]
        found.append(
            Moment(
                timestamp=timestamp,
                step_s=max(card.step_s for card in these),
                samples=max(card.samples for card in these),
                power_w=sum(known) if known and len(known) == len(powers) else None,
                heat=together([_heat(card, limits) for card in these]),
            )
        )
    return found


def together(heats: Sequence[Heat]) -> Heat:
    """The heat of several cards or moments as one."""
    told = [heat.throttled for heat in heats if heat.throttled is not None]
    hottest = [heat.max_temperature_c for heat in heats]
    return Heat(
        throttled=any(told) if told else None, max_temperature_c=_highest(*hottest)
    )


class PowerCurve:
    """Power over time: straight lines between moments, constant over a span.

    Args:
        moments: By time; those without a known power are left out.
        max_gap_s: Nothing is known between two that are further apart.
    """

    def __init__(self, moments: Iterable[Moment], *, max_gap_s: float) -> None:
        self._times: list[float] = []
        self._powers: list[float] = []
        # Of the time from each sample to the next.
        self._unknown: list[bool] = []
        for moment in moments:
            # A late sample lies in a minute that is averaged already.
            late = self._times and moment.timestamp < self._times[-1]
            if moment.power_w is None or late:
                continue
            if self._times:
                self._unknown.append(moment.timestamp - self._times[-1] > max_gap_s)
            self._times.append(moment.timestamp)
            self._powers.append(moment.power_w)
            if moment.step_s:
                self._unknown.append(False)
                self._times.append(moment.end)
                self._powers.append(moment.power_w)
        self._energies = [0.0]
        self._gaps = [0.0]
        for i, unknown in enumerate(self._unknown):
            span_s = self._times[i + 1] - self._times[i]
            mean_w = (self._powers[i] + self._powers[i + 1]) / 2
            self._energies.append(self._energies[i] + mean_w * span_s)
            self._gaps.append(self._gaps[i] + (span_s if unknown else 0.0))

    def knows(self, start: float, end: float) -> bool:
        """Whether there are samples before, after and without a gap in between."""
        times = self._times
        if not times or not times[0] <= start <= end <= times[-1]:
            return False
        return self._gap_until(end) <= self._gap_until(start)

    def energy_until(self, time: float) -> float:
        """Energy from the first sample on, joules; between any two it is exact."""
        if not self._times:
            return 0.0
        i = self._index(time)
        since_s = min(max(time, self._times[0]), self._times[-1]) - self._times[i]
        if since_s <= 0:
            return self._energies[i]
        span_s = self._times[i + 1] - self._times[i]
        slope = (self._powers[i + 1] - self._powers[i]) / span_s
        return self._energies[i] + since_s * (self._powers[i] + slope * since_s / 2)

    def _gap_until(self, time: float) -> float:
        i = self._index(time)
        if i == len(self._unknown) or not self._unknown[i]:
            return self._gaps[i]
        return self._gaps[i] + time - self._times[i]

    def _index(self, time: float) -> int:
        """The last sample that is not after `time`, or else the first."""
        return max(0, bisect_right(self._times, time) - 1)


def heat_between(
    moments: Sequence[Moment], start: float, end: float, *, max_gap_s: float
) -> Heat:
    """The heat of a time: of its moments, and of those just before and after it."""
    first = bisect_left(moments, start, key=attrgetter("timestamp"))
    last = bisect_right(moments, end, key=attrgetter("timestamp"))
    within = list(moments[first:last])
    # A span tells about itself alone, a moment about what is near it.
    if first:
        before = moments[first - 1]
        if before.end > start - (0.0 if before.step_s else max_gap_s):
            within.append(before)
    if last < len(moments):
        after = moments[last]
        if not after.step_s and after.timestamp < end + max_gap_s:
            within.append(after)
    return together([moment.heat for moment in within])


def _power_w(card: Card, max_gap_s: float) -> float | None:
    missing_s = card.step_s - card.covered_s if card.step_s else 0.0
    return None if missing_s > max_gap_s else card.power_w


def _heat(card: Card, limits: HeatLimits) -> Heat:
    edge = _highest(card.temperature_max_c, card.temperature_c)
    junction = _highest(card.junction_temperature_max_c, card.junction_temperature_c)
    signs = []
    if card.thermal_share is not None:
        signs.append(card.thermal_share > 0)
    if junction is not None:
        signs.append(junction >= limits.junction_c)
    # The limit is that of the junction where the other temperature is unknown.
    limited = junction if edge is None else edge
    if limited is not None and card.temperature_limit_c is not None:
        signs.append(limited >= card.temperature_limit_c - limits.below_limit_c)
    return Heat(
        throttled=any(signs) if signs else None,
        max_temperature_c=_highest(edge, junction),
    )


def _highest(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)
