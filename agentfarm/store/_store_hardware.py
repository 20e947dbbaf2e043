"""What a Store keeps of hardware, as the rest of the package sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from agentfarm.errors import StoreError

if TYPE_CHECKING:
    from agentfarm.store._claims import Claim
    from agentfarm.store._database import Database
    from agentfarm.store._hardware import Compactor
    from agentfarm.store._reader import Reader
    from agentfarm.store._records import GPUSampleRecord, HostSampleRecord
    from agentfarm.store._tables import RecordTable
    from agentfarm.store._writer import Writer

__all__ = ["HardwareStore"]

R = TypeVar("R")

# Reading shows one's own telemetry, but does not wait long for a stuck database.
_OWN_TELEMETRY_S = 1.0


class HardwareStore(ABC):
    """The part of a Store that samples of GPUs and machines go through."""

    _database: Database
    _writer: Writer | None
    _compactor: Compactor | None = None

    @property
    def dropped_samples(self) -> int:
        """Samples of hardware that were given up since it was opened."""
        from agentfarm.store._tables import GPU_SAMPLES, HOST_SAMPLES

        if self._writer is None:
            return 0
        dropped = self._writer.dropped
        return dropped[GPU_SAMPLES] + dropped[HOST_SAMPLES]

    def add_gpu_sample(self, sample: GPUSampleRecord) -> None:
        """Keep what a GPU did; from any thread, in microseconds.

        Raises:
            StoreError: The Store is closed or read-only.
        """
        from agentfarm.store._tables import GPU_SAMPLES

        self._writing().add(GPU_SAMPLES, sample)

    def add_host_sample(self, sample: HostSampleRecord) -> None:
        """Keep what a machine did; from any thread, in microseconds.

        Raises:
            StoreError: The Store is closed or read-only.
        """
        from agentfarm.store._tables import HOST_SAMPLES

        self._writing().add(HOST_SAMPLES, sample)

    def gpu_samples(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        step_s: int | None = None,
        hostname: str | None = None,
    ) -> list[GPUSampleRecord]:
        """What GPUs did, oldest first, this Store's own samples included.

        Args:
            since: Only from this Unix time on.
            until: Only before this Unix time.
            step_s: Means over so many seconds; 0 for moments alone; None for the
                finest there is: moments, and before them means over a minute.
            hostname: Only those of this machine.
        """
        from agentfarm.store._tables import GPU_SAMPLES

        return self._hardware(GPU_SAMPLES, since, until, step_s, hostname)

    def host_samples(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        step_s: int | None = None,
        hostname: str | None = None,
    ) -> list[HostSampleRecord]:
        """What machines did, oldest first; the arguments are those of `gpu_samples`."""
        from agentfarm.store._tables import HOST_SAMPLES

        return self._hardware(HOST_SAMPLES, since, until, step_s, hostname)

    def compact_samples(self, *, raw_before: float, keep_after: float) -> bool:
        """Do a small part of averaging old samples of hardware and deleting older ones.

        One call is one transaction of milliseconds: a killed process leaves every
        minute either whole or averaged. Samples of all machines are dealt with.

        Args:
            raw_before: Whole minutes before this Unix time are averaged.
            keep_after: Averages of minutes that began before it are deleted.

        Returns:
            Whether there was anything to do, so that there may be more.

        Raises:
            StoreError: The Store is closed or read-only, or cannot be written now.
        """
        from agentfarm.store._hardware import Compactor

        self._writing()
        if self._compactor is None:
            self._compactor = Compactor(self._database)
        return self._compactor.step(raw_before=raw_before, keep_after=keep_after)

    def claim(self, name: str) -> Claim:
        """Something that only one process of this machine may do on this Store.

        Its holder's death frees it at once.

        Raises:
            StoreError: The Store is closed or read-only.
        """
        self._writing()
        return self._database.claim(name)

    @abstractmethod
    def _reading(self) -> Reader: ...

    @abstractmethod
    def _writing(self) -> Writer: ...

    def _hardware(
        self,
        mapping: RecordTable[R],
        since: float | None,
        until: float | None,
        step_s: int | None,
        hostname: str | None,
    ) -> list[R]:
        reader = self._reading()
        self._write_telemetry()
        return reader.hardware(
            mapping, since=since, until=until, step_s=step_s, hostname=hostname
        )

    def _write_telemetry(self) -> None:
        """Let what was added be seen, unless the database is stuck."""
        if self._writer is not None:
            with suppress(StoreError):  # better what is there than nothing
                self._writer.flush(_OWN_TELEMETRY_S)
