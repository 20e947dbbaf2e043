"""How models and agents perform: rolling statistics of LLM requests."""

from __future__ import annotations

from agentfarm.monitoring._stats import (
    LifetimeTotals,
    PerformanceSnapshot,
    RequestStats,
)
from agentfarm.monitoring._tracker import PerformanceTracker

__all__ = [
    "LifetimeTotals",
    "PerformanceSnapshot",
    "PerformanceTracker",
    "RequestStats",
]
