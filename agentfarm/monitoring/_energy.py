"""What requests cost in energy, and whether the GPUs ran hot meanwhile.

Power is that of all cards of a machine. Requests that run at the same time share it
by equal parts: which of them a card worked for is not known.
"""

from __future__ import annotations

import ipaddress
import math
import socket
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from agentfarm.errors import StoreError
from agentfarm.monitoring._power import (
    MAX_GAP_S,
    HeatLimits,
    PowerCurve,
    heat_between,
    moments_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentfarm.events import RequestRecord
    from agentfarm.monitoring._power import Card, Heat, Moment
    from agentfarm.store import Store

__all__ = ["EnergyMeter", "RequestEnergy", "Span", "energy_meter", "spans_of"]

# The embedded server's host, alone or before a label.
_EMBEDDED = "embedded"
# A GPU takes some seconds to come down to idling.
_SETTLE_S = 5.0
_IDLE_SHARE = 0.05
_LEAST_IDLE = 20
# So far around requests idling is looked for, and requests that began before.
_AROUND_S = 300.0
_LONGEST_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestEnergy:
    """What the GPUs of the machine did for one request.

    Attributes:
        request_id: Which.
        energy_j: Its part of what the GPUs drew while it ran, joules; None where
            that is not known of all that time, and for a request to another machine.
        energy_above_idle_j: The same without what they draw when idle; None where
            the idle power is unknown too.
        throttled: Whether a GPU was slowed down by heat, or too hot, meanwhile; None
            where nothing tells.
        max_temperature_c: The hottest a GPU was meanwhile, °C.
    """

    request_id: str
    energy_j: float | None = None
    energy_above_idle_j: float | None = None
    throttled: bool | None = None
    max_temperature_c: float | None = None


class Sent(Protocol):
    """What is used of a `RequestRecord`."""

    @property
    def request_id(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def started_at(self) -> float: ...
    @property
    def latency_s(self) -> float: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """When a request ran, Unix time in seconds, and whether on this machine."""

    request_id: str
    start: float
    end: float
    local: bool

    @property
    def known(self) -> bool:
        """Whether it can have an energy at all."""
        return self.local and math.isfinite(self.start) and self.end >= self.start


class EnergyMeter:
    """Tells energies out of samples of one machine's GPUs and the requests meanwhile.

    Args:
        cards: Samples of GPUs.
        spans: All requests of the time, so that they share its power.
        idle_power_w: What the GPUs draw when idle, watts; if None, the lowest 5th
            percentile of the samples at which no request had run for 5 s, unless
            there are fewer than 20.
        max_gap_s: Nothing is known between samples that are further apart, seconds.
        limits: From where on a card counts as too hot.
    """

    def __init__(
        self,
        cards: Iterable[Card],
        spans: Iterable[Span],
        *,
        idle_power_w: float | None = None,
        max_gap_s: float = MAX_GAP_S,
        limits: HeatLimits | None = None,
    ) -> None:
        self._max_gap_s = max_gap_s
        self._moments = moments_of(
            cards, max_gap_s=max_gap_s, limits=limits or HeatLimits()
        )
        self._curve = PowerCurve(self._moments, max_gap_s=max_gap_s)
        own = [span for span in spans if span.known]
        self._edges = sorted({time for span in own for time in (span.start, span.end)})
        self._active = self._count_active(own)
        self.idle_power_w = self._idle_w() if idle_power_w is None else idle_power_w
        self._shares = self._shared(0.0)
        self._shares_above_idle = self._shared(self.idle_power_w or 0.0)

    def request(self, span: Span) -> RequestEnergy:
        """What one of the requests cost."""
        if not span.known:
            return RequestEnergy(request_id=span.request_id)
        heat = self.heat(span.start, span.end)
        energy_j = above_j = None
        if self._curve.knows(span.start, span.end):
            first = bisect_left(self._edges, span.start)
            last = bisect_left(self._edges, span.end)
            energy_j = self._shares[last] - self._shares[first]
            if self.idle_power_w is not None:
                above_j = self._shares_above_idle[last] - self._shares_above_idle[first]
                # Noise can take it below the idle power.
                above_j = max(0.0, above_j)
        return RequestEnergy(
            request_id=span.request_id,
            energy_j=energy_j,
            energy_above_idle_j=above_j,
            throttled=heat.throttled,
            max_temperature_c=heat.max_temperature_c,
        )

    def between(self, start: float, end: float) -> float | None:
        """What the GPUs drew in a time, joules, whatever for; None where unknown."""
        if not self._curve.knows(start, end):
            return None
        return self._curve.energy_until(end) - self._curve.energy_until(start)

    def heat(self, start: float, end: float) -> Heat:
        """How hot the GPUs were in a time."""
        return heat_between(self._moments, start, end, max_gap_s=self._max_gap_s)

    def _count_active(self, spans: Sequence[Span]) -> list[int]:
        """How many requests run from each edge to the next."""
        steps = [0] * len(self._edges)
        for span in spans:
            steps[bisect_left(self._edges, span.start)] += 1
            steps[bisect_left(self._edges, span.end)] -= 1
        return list(accumulate(steps))

    def _shared(self, idle_w: float) -> list[float]:
        """At each edge, what one request would have got from the first edge on."""
        until = [self._curve.energy_until(edge) for edge in self._edges]
        parts = [
            (energies[1] - energies[0] - idle_w * (edges[1] - edges[0])) / (active or 1)
            for edges, energies, active in zip(
                pairwise(self._edges), pairwise(until), self._active, strict=False
            )
        ]
        return list(accumulate(parts, initial=0.0))

    def _idle_w(self) -> float | None:
        idle = sorted(
            (moment.power_w, moment.samples)
            for moment in self._moments
            if moment.power_w is not None and not self._is_busy(moment)
        )
        total = sum(samples for _, samples in idle)
        if total < _LEAST_IDLE:
            return None
        reached = accumulate(samples for _, samples in idle)
        return next(
            power
            for (power, _), samples in zip(idle, reached, strict=True)
            if samples >= _IDLE_SHARE * total
        )

    def _is_busy(self, moment: Moment) -> bool:
        """Whether a request ran in a moment's time, or shortly before it."""
        first = bisect_left(self._edges, moment.timestamp - _SETTLE_S)
        last = bisect_right(self._edges, moment.end)
        return any(self._active[max(0, first - 1) : last])


def energy_meter(
    store: Store, requests: Sequence[RequestRecord], *, hostname: str | None = None
) -> EnergyMeter:
    """The meter for requests of one machine, out of what the Store has of their time.

    Args:
        store: Keeps samples and requests.
        requests: What shall be measured.
        hostname: The machine that sent them; this one if None.
    """
    hostname = hostname or socket.gethostname()
    spans = [span for span in spans_of(requests, hostname) if span.known]
    if not spans:
        return EnergyMeter((), ())
    since = min(span.start for span in spans)
    until = max(span.end for span in spans)
    cards = store.gpu_samples(
        since=since - _AROUND_S, until=until + _AROUND_S, hostname=hostname
    )
    if cards:
        others = store.requests(since=since - _LONGEST_S, until=until + _AROUND_S)
        mine = {request.request_id for request in requests}
        others = [other for other in others if other.request_id not in mine]
        spans += spans_of(_sent_by(store, others, hostname), hostname)
    return EnergyMeter(cards, spans)


def spans_of(requests: Iterable[Sent], hostname: str) -> list[Span]:
    """When requests ran, and which of them on the machine that sent them."""
    requests = list(requests)
    local = {host: _is_on(host, hostname) for host in {r.host for r in requests}}
    return [
        Span(
            request_id=request.request_id,
            start=request.started_at,
            end=request.started_at + request.latency_s,
            local=local[request.host],
        )
        for request in requests
    ]


def _sent_by(
    store: Store, requests: Iterable[RequestRecord], hostname: str
) -> list[RequestRecord]:
    """Without those of runs on other machines; nobody says who sent the others."""
    senders: dict[str | None, str | None] = {None: None}
    found = []
    for request in requests:
        if request.run_id not in senders:
            senders[request.run_id] = _sender(store, request.run_id or "")
        if senders[request.run_id] in (None, hostname):
            found.append(request)
    return found


def _sender(store: Store, run_id: str) -> str | None:
    for find in (store.run, store.workflow):
        try:
            return find(run_id).hostname
        except StoreError:
            continue
    return None


def _is_on(host: str, hostname: str) -> bool:
    """Whether a request's host is the machine itself: as loopback, by name or address.

    The addresses are known of the machine that this runs on.
    """
    if host.partition(":")[0] == _EMBEDDED:
        return True
    try:
        name = urlsplit(host).hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == hostname.lower()
    if address.is_loopback or address.is_unspecified:
        return True
    return hostname == socket.gethostname() and str(address) in _own_addresses()


def _own_addresses() -> set[str]:
    import psutil

    return {
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    }
