"""What the machine does beside its GPUs."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentfarm.store import HostSampleRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["HostMeter"]

# Linux counts the time of guests in that of their programs too.
_COUNTED_TWICE = ("guest", "guest_nice")
_IDLE = ("idle", "iowait")


@dataclass(frozen=True, slots=True)
class _Counters:
    """Counters that grow, of which two readings make a rate; None where unknown."""

    at_s: float
    busy_s: float
    total_s: float
    read_bytes: int | None
    write_bytes: int | None
    received_bytes: int | None
    sent_bytes: int | None


class HostMeter:
    """Reads processors, memory, disk and network of this machine.

    What is counted since a moment before, such as a rate, is None in the first
    reading. A value that the system does not tell is None in all.

    Args:
        disk: A path on the file system whose space is told.
    """

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._before: _Counters | None = None

    def read(self) -> HostSampleRecord:
        """The state now; it takes about a millisecond, and belongs into a thread.

        Raises:
            OSError: The system refuses to tell.
        """
        import psutil

        now = _counters()
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(str(self._disk))
        sample = HostSampleRecord(
            step_s=0,
            timestamp=time.time(),
            hostname=socket.gethostname(),
            load_1m=psutil.getloadavg()[0],
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_used_bytes=disk.used,
            disk_total_bytes=disk.total,
            **_rates(self._before, now),
        )
        self._before = now
        return sample


def _counters() -> _Counters:
    import psutil

    cpu: dict[str, float] = psutil.cpu_times()._asdict()
    total_s = sum(cpu.values()) - sum(cpu.get(name, 0.0) for name in _COUNTED_TWICE)
    disks = psutil.disk_io_counters()
    network = list(_outward())
    return _Counters(
        at_s=time.monotonic(),
        busy_s=total_s - sum(cpu.get(name, 0.0) for name in _IDLE),
        total_s=total_s,
        read_bytes=disks.read_bytes if disks else None,
        write_bytes=disks.write_bytes if disks else None,
        received_bytes=sum(each.bytes_recv for each in network) if network else None,
        sent_bytes=sum(each.bytes_sent for each in network) if network else None,
    )


def _outward() -> Iterator[Any]:
    """Counters of the interfaces but the loopback."""
    import psutil

    states = psutil.net_if_stats()
    for name, counters in psutil.net_io_counters(pernic=True).items():
        state = states.get(name)
        if state is None or "loopback" not in state.flags.split(","):
            yield counters


def _rates(before: _Counters | None, now: _Counters) -> dict[str, Any]:
    if before is None:
        return {}
    span_s = now.at_s - before.at_s
    total_s = now.total_s - before.total_s
    busy_s = now.busy_s - before.busy_s

    def rate(old: int | None, new: int | None) -> float | None:
        # A counter that went back belongs to a device that was there afresh.
        if old is None or new is None or new < old or span_s <= 0:
            return None
        return (new - old) / span_s

    return {
        "cpu_percent": min(100.0, max(0.0, 100 * busy_s / total_s))
        if total_s > 0
        else None,
        "disk_read_bytes_per_s": rate(before.read_bytes, now.read_bytes),
        "disk_write_bytes_per_s": rate(before.write_bytes, now.write_bytes),
        "network_received_bytes_per_s": rate(before.received_bytes, now.received_bytes),
        "network_sent_bytes_per_s": rate(before.sent_bytes, now.sent_bytes),
    }
