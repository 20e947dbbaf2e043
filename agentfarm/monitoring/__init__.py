"""How models, agents and hardware perform: requests, and what the GPUs do."""

from __future__ import annotations

from agentfarm.monitoring._energy import RequestEnergy
from agentfarm.monitoring._energy_frames import energy_by_request
from agentfarm.monitoring._gpu_monitor import GPUMonitor
from agentfarm.monitoring._gpu_values import (
    GPUAbilities,
    GPUCapabilities,
    GPUReading,
    GPUSnapshot,
)
from agentfarm.monitoring._power import HeatLimits
from agentfarm.monitoring._sampler import Sampler, SnapshotSource
from agentfarm.monitoring._samples import gpu_samples_frame, host_samples_frame
from agentfarm.monitoring._stats import (
    LifetimeTotals,
    PerformanceSnapshot,
    RequestStats,
)
from agentfarm.monitoring._tracker import PerformanceTracker

__all__ = [
    "GPUAbilities",
    "GPUCapabilities",
    "GPUMonitor",
    "GPUReading",
    "GPUSnapshot",
    "HeatLimits",
    "LifetimeTotals",
    "PerformanceSnapshot",
    "PerformanceTracker",
    "RequestEnergy",
    "RequestStats",
    "Sampler",
    "SnapshotSource",
    "energy_by_request",
    "gpu_samples_frame",
    "host_samples_frame",
]
