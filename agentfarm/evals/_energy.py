"""What runs and samples cost in energy, and whether the GPUs ran hot meanwhile."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentfarm.evals._result import requests_of
from agentfarm.evals._sample_frame import SampleEnergy
from agentfarm.monitoring._energy import energy_meter, spans_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentfarm.events import RequestRecord
    from agentfarm.monitoring import RequestEnergy
    from agentfarm.store import SampleRecord, Store

__all__ = ["RunEnergy", "energy_of_run", "sample_energies"]

_SOLVED = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEnergy:
    """What a run cost in energy; None is what is not known.

    Attributes:
        run_id: Which.
        requests, measured_requests: How many it made, and how many have an energy.
        energy_j, energy_above_idle_j: Of all its requests, joules; where others ran
            at the same time, its part. None unless all are measured.
        span_energy_j: What the GPUs drew from its start to its end, whatever for.
        idle_power_w: What they draw when idle, watts.
        joules_per_request: Mean over the measured requests.
        joules_per_output_token: Of the measured requests that tell their tokens.
        solved_samples: Samples with a score of 1.
        joules_per_solved_sample: `energy_j` over them.
        throttled: Whether heat slowed a GPU down, or one was too hot, meanwhile.
        max_gpu_temperature_c: The hottest a GPU was meanwhile, °C.
    """

    run_id: str
    requests: int = 0
    measured_requests: int = 0
    energy_j: float | None = None
    energy_above_idle_j: float | None = None
    span_energy_j: float | None = None
    idle_power_w: float | None = None
    joules_per_request: float | None = None
    joules_per_output_token: float | None = None
    solved_samples: int = 0
    joules_per_solved_sample: float | None = None
    throttled: bool | None = None
    max_gpu_temperature_c: float | None = None


def energy_of_run(store: Store, run_id: str = "latest") -> RunEnergy:
    """What a run cost in energy, per request, per token and per solved sample.

    It is known from about a second after the run's last request on, when a sample of
    the hardware has come that is later.

    Args:
        store: Where run, requests and samples of the hardware are kept.
        run_id: Id, unique beginning of one, or ``latest``.

    Raises:
        StoreError: There is no such run; the message names near ones.
    """
    run = store.run(run_id)
    samples = store.samples(run.run_id)
    requests = requests_of(store, run.run_id, samples)
    hostname = run.hostname or socket.gethostname()
    meter = energy_meter(store, requests, hostname=hostname)
    spans = spans_of(requests, hostname)
    energies = [meter.request(span) for span in spans]
    total = _total(energies)
    known = [energy.energy_j for energy in energies if energy.energy_j is not None]
    solved = sum((sample.score or 0.0) >= _SOLVED for sample in samples)
    return RunEnergy(
        run_id=run.run_id,
        requests=len(requests),
        measured_requests=len(known),
        energy_j=total.energy_j,
        energy_above_idle_j=total.energy_above_idle_j,
        span_energy_j=None
        if run.finished_at is None
        else meter.between(run.started_at, run.finished_at),
        idle_power_w=meter.idle_power_w,
        joules_per_request=sum(known) / len(known) if known else None,
        joules_per_output_token=_per_token(requests, energies),
        solved_samples=solved,
        joules_per_solved_sample=None
        if total.energy_j is None or not solved
        else total.energy_j / solved,
        throttled=total.throttled,
        max_gpu_temperature_c=total.max_gpu_temperature_c,
    )


def sample_energies(
    store: Store,
    samples: Sequence[SampleRecord],
    requests: Sequence[RequestRecord],
    *,
    hostname: str | None,
) -> list[SampleEnergy]:
    """The energy of each sample of a run.

    Args:
        store: Where samples of the hardware are kept.
        samples: Of the run.
        requests: Of the run, those of its workflows too.
        hostname: The machine that it ran on; this one if None.
    """
    hostname = hostname or socket.gethostname()
    meter = energy_meter(store, requests, hostname=hostname)
    by_sample: dict[str | None, list[RequestEnergy]] = {}
    for request, span in zip(requests, spans_of(requests, hostname), strict=True):
        by_sample.setdefault(request.sample_id, []).append(meter.request(span))
    return [_total(by_sample.get(sample.sample_id, ())) for sample in samples]


def _total(energies: Sequence[RequestEnergy]) -> SampleEnergy:
    throttled = [each.throttled for each in energies if each.throttled is not None]
    heat = [each.max_temperature_c for each in energies]
    return SampleEnergy(
        energy_j=_sum(each.energy_j for each in energies),
        energy_above_idle_j=_sum(each.energy_above_idle_j for each in energies),
        throttled=any(throttled) if throttled else None,
        max_gpu_temperature_c=max(
            (each for each in heat if each is not None), default=None
        ),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum where all of at least one are known."""
    total = None
    for value in values:
        if value is None:
            return None
        total = value if total is None else total + value
    return total


def _per_token(
    requests: Sequence[RequestRecord], energies: Sequence[RequestEnergy]
) -> float | None:
    known = [
        (energy.energy_j, request.output_tokens)
        for request, energy in zip(requests, energies, strict=True)
        if energy.energy_j is not None and request.output_tokens is not None
    ]
    tokens = sum(count for _, count in known)
    return sum(energy for energy, _ in known) / tokens if tokens else None
