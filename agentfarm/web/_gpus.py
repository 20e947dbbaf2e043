"""The GPUs now, read once for all who ask at about the same time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from agentfarm.web._models import GPUState, TriedSource

if TYPE_CHECKING:
    from agentfarm.monitoring import GPUSnapshot, SnapshotSource

__all__ = ["GPUFeed"]

_FRESH_S = 1.0


class GPUFeed:
    """Snapshots of a reader, one a second at most, however many ask.

    Args:
        reader: Reads them.
    """

    def __init__(self, reader: SnapshotSource) -> None:
        self._reader = reader
        self._lock = anyio.Lock()
        self._newest: GPUSnapshot | None = None
        self._read_at = 0.0

    async def snapshot(self) -> GPUSnapshot:
        """The GPUs, a second ago at most."""
        async with self._lock:
            now = time.monotonic()
            if self._newest is None or now - self._read_at >= _FRESH_S:
                self._newest = await self._reader.snapshot()
                self._read_at = now
            return self._newest

    async def state(self) -> GPUState:
        """The same, as the API says it."""
        snapshot = await self.snapshot()
        return GPUState(
            timestamp=snapshot.timestamp,
            duration_s=snapshot.duration_s,
            power_w=snapshot.power_w,
            reason=snapshot.reason,
            gpus=list(snapshot.gpus),
            tried=[
                TriedSource(source=source, reason=reason)
                for source, reason in snapshot.tried
            ],
        )
