"""The samples of a run as a frame, with what the GPUs did for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentfarm.store import SampleRecord
from agentfarm.store._columns import records_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

__all__ = ["SampleEnergy", "samples_with_energy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleEnergy:
    """What the GPUs did for one sample, all its requests together.

    Attributes:
        energy_j, energy_above_idle_j: See `RequestEnergy`; None where that of a
            request is not known.
        throttled: Whether heat slowed a GPU down, or one was too hot, during one of
            them.
        max_gpu_temperature_c: The hottest a GPU was during one of them, °C.
    """

    energy_j: float | None = None
    energy_above_idle_j: float | None = None
    throttled: bool | None = None
    max_gpu_temperature_c: float | None = None


def samples_with_energy(
    samples: Sequence[SampleRecord], energies: Sequence[SampleEnergy] | None = None
) -> pd.DataFrame:
    """Every field of both, one row per sample; energies are unknown if None."""
    known = [SampleEnergy()] * len(samples) if energies is None else energies
    frame = records_frame(samples, SampleRecord)
    return frame.join(records_frame(known, SampleEnergy))
