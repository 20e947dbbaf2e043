"""Readings of GPUs as rows of the Store, and back; both as frames."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, cast

from agentfarm.monitoring._gpu_values import GPUReading, GPUSource
from agentfarm.store import GPUSampleRecord, HostSampleRecord
from agentfarm.store._columns import records_frame

if TYPE_CHECKING:
    import pandas as pd

    from agentfarm.store import Store

__all__ = ["gpu_samples_frame", "host_samples_frame", "reading_of", "sample_of"]

# What both have under one name.
_SHARED = {field.name for field in fields(GPUReading)} & {
    field.name for field in fields(GPUSampleRecord)
} - {"throttle_reasons"}


def sample_of(
    gpu: GPUReading, *, timestamp: float, hostname: str, covered_s: float
) -> GPUSampleRecord:
    """The row of a reading.

    Args:
        gpu: The reading.
        timestamp: When it was taken, Unix time, seconds.
        hostname: Where.
        covered_s: Seconds that it tells about, see `GPUSampleRecord`.
    """
    reasons = gpu.throttle_reasons
    hot = None if reasons is None else any("thermal" in each for each in reasons)
    values: dict[str, Any] = {name: getattr(gpu, name) for name in _SHARED}
    return GPUSampleRecord(
        step_s=0,
        timestamp=timestamp,
        hostname=hostname,
        gpu_index=gpu.index,
        covered_s=covered_s,
        throttled_share=None if reasons is None else float(bool(reasons)),
        thermal_share=None if hot is None else float(hot),
        throttle_reasons=None if reasons is None else ",".join(reasons),
        **values,
    )


def reading_of(sample: GPUSampleRecord) -> GPUReading:
    """The reading that a row of a moment was made of."""
    reasons = sample.throttle_reasons
    values: dict[str, Any] = {name: getattr(sample, name) for name in _SHARED}
    values["vendor"] = cast("Literal['nvidia', 'amd']", sample.vendor)
    values["source"] = cast("GPUSource", sample.source)
    return GPUReading(
        index=sample.gpu_index,
        throttle_reasons=None
        if reasons is None
        else tuple(each for each in reasons.split(",") if each),
        **values,
    )


def gpu_samples_frame(
    store: Store,
    *,
    since: float | None = None,
    until: float | None = None,
    step_s: int | None = None,
    hostname: str | None = None,
) -> pd.DataFrame:
    """What GPUs did, oldest first: every field of GPUSampleRecord, times as UTC.

    Args:
        store: Where it is kept.
        since: Only from this Unix time on.
        until: Only before this Unix time.
        step_s: Means over so many seconds; 0 for moments alone; None for the finest
            there is: moments, and before them means over a minute.
        hostname: Only those of this machine.
    """
    samples = store.gpu_samples(
        since=since, until=until, step_s=step_s, hostname=hostname
    )
    return records_frame(samples, GPUSampleRecord)


def host_samples_frame(
    store: Store,
    *,
    since: float | None = None,
    until: float | None = None,
    step_s: int | None = None,
    hostname: str | None = None,
) -> pd.DataFrame:
    """What machines did, oldest first: every field of HostSampleRecord.

    The arguments are those of `gpu_samples_frame`.
    """
    samples = store.host_samples(
        since=since, until=until, step_s=step_s, hostname=hostname
    )
    return records_frame(samples, HostSampleRecord)
