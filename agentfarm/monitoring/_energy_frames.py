"""Energies of requests as a pandas frame, out of frames."""

from __future__ import annotations

import math
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from agentfarm.errors import AgentFarmError
from agentfarm.monitoring._energy import EnergyMeter, RequestEnergy, spans_of
from agentfarm.monitoring._power import MAX_GAP_S
from agentfarm.store._columns import records_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from agentfarm.monitoring._power import HeatLimits

__all__ = ["energy_by_request"]

# Columns, and what stands for an unknown value.
_REQUEST_COLUMNS = {
    "request_id": "",
    "host": "",
    "started_at": math.nan,
    "latency_s": math.nan,
}
_GPU_COLUMNS = {"timestamp": math.nan, "step_s": 0, "hostname": "", "power_w": None}
# These may be missing.
_OTHER_GPU_COLUMNS = {
    "parent": None,
    "samples": 1,
    "covered_s": 0.0,
    "temperature_c": None,
    "temperature_max_c": None,
    "junction_temperature_c": None,
    "junction_temperature_max_c": None,
    "temperature_limit_c": None,
    "thermal_share": None,
}


def energy_by_request(
    requests: pd.DataFrame,
    gpus: pd.DataFrame,
    *,
    hostname: str | None = None,
    idle_power_w: float | None = None,
    max_gap_s: float = MAX_GAP_S,
    limits: HeatLimits | None = None,
) -> pd.DataFrame:
    """What each request cost in energy, and how hot the GPUs were meanwhile.

    Power is integrated by trapezoids between samples, interpolated at both ends, and
    taken as constant over the minute of an average. Requests that ran at the same
    time share it by equal parts, so give all requests of the time, not only those
    that you look for. Power is that of all cards of the machine.

    Args:
        requests: Requests, as from ``evals.requests_frame``; needs ``request_id``,
            ``host``, ``started_at`` and ``latency_s``. All were sent by one machine.
        gpus: Samples, as from `gpu_samples_frame`; needs ``timestamp``, ``step_s``,
            ``hostname`` and ``power_w``.
        hostname: The machine that sent the requests; this one if None.
        idle_power_w: What its GPUs draw when idle, watts; if None, the lowest 5th
            percentile of the samples at which no request had run for 5 s, unless
            there are fewer than 20.
        max_gap_s: Nothing is known between samples that are further apart, seconds.
        limits: From where on a card counts as too hot.

    Returns:
        One row per request, in the same order: the fields of `RequestEnergy`.

    Raises:
        AgentFarmError: A column is missing.
    """
    hostname = hostname or socket.gethostname()
    spans = spans_of(_rows(requests, "requests", _REQUEST_COLUMNS), hostname)
    cards = _rows(gpus, "gpus", _GPU_COLUMNS, _OTHER_GPU_COLUMNS)
    meter = EnergyMeter(
        (card for card in cards if card.hostname == hostname),
        spans,
        idle_power_w=idle_power_w,
        max_gap_s=max_gap_s,
        limits=limits,
    )
    return records_frame([meter.request(span) for span in spans], RequestEnergy)


def _rows(
    frame: pd.DataFrame,
    name: str,
    needed: Mapping[str, Any],
    others: Mapping[str, Any] | None = None,
) -> Iterator[Any]:
    """The rows as objects, unknown values as None, times as Unix times."""
    missing = [column for column in needed if column not in frame]
    if missing:
        raise AgentFarmError(
            f"energy_by_request() finds no {', '.join(missing)} in {name}.",
            remedy="Give it frames of evals.requests_frame and gpu_samples_frame.",
        )
    defaults = {**needed, **(others or {})}
    names = [column for column in defaults if column in frame]
    columns = [_values(frame[column]) for column in names]
    for values in zip(*columns, strict=True):
        known = {k: v for k, v in zip(names, values, strict=True) if v is not None}
        yield SimpleNamespace(**(defaults | known))


def _values(column: pd.Series[Any]) -> list[Any]:
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        epoch = pd.Timestamp(0, tz="UTC")
        column = (column - epoch) / pd.Timedelta(seconds=1)
    return column.astype("object").where(column.notna(), None).tolist()
