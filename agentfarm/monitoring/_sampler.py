"""The one process per Store and machine that writes down what the hardware does."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import anyio.to_thread

from agentfarm.errors import StoreError
from agentfarm.events import EventType
from agentfarm.monitoring._host import HostMeter
from agentfarm.monitoring._power import MAX_GAP_S
from agentfarm.monitoring._samples import reading_of, sample_of
from agentfarm.store import HostSampleRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from agentfarm.config import SamplerSettings
    from agentfarm.events import EventBus
    from agentfarm.monitoring._gpu_values import GPUSnapshot
    from agentfarm.store import GPUSampleRecord, Store

__all__ = ["Sampler", "SnapshotSource"]

T = TypeVar("T")

_log = logging.getLogger("agentfarm.monitoring")

# So often whoever waits looks whether the one that samples is gone.
_WATCH_S = 2.0
_TIDY_S = 60.0
# Between two small transactions of tidying, others may write.
_TIDY_PAUSE_S = 0.005
_OF_A_ROW = {"step_s", "samples", "covered_s"}


class SnapshotSource(Protocol):
    """What tells about GPUs, such as a `GPUMonitor`."""

    async def snapshot(self) -> GPUSnapshot:
        """All GPUs now."""


class Sampler:
    """Samples GPUs and machine into the Store, unless another process does already.

    Of all samplers of one Store on one machine, one samples; the others wait, and
    one of them takes over within seconds when it is gone. Every one publishes
    HARDWARE events on its own bus: ``gpus``, the fields of `GPUReading`; ``host``,
    those of `HostSampleRecord` that tell of a moment; ``timestamp``; ``hostname``;
    ``reason`` where there is no GPU; and ``errors``, what could not be read and why.

    What goes wrong is logged once and counted as unknown; it ends nothing.

    Args:
        store: Where samples go; open for writing.
        bus: Where events go.
        gpus: Tells about GPUs; None samples the machine alone.
        settings: How often, and for how long samples are kept.
        disk: A path on the file system whose space is sampled.
        patience_s: When a snapshot is given up, seconds; a source has timeouts of its
            own.
    """

    def __init__(
        self,
        *,
        store: Store,
        bus: EventBus,
        gpus: SnapshotSource | None,
        settings: SamplerSettings,
        disk: Path,
        patience_s: float = 10.0,
    ) -> None:
        self._store = store
        self._bus = bus
        self._gpus = gpus
        self._settings = settings
        self._disk = disk
        self._patience_s = patience_s
        self._host = HostMeter(disk)
        self._hostname = socket.gethostname()
        self._claim = store.claim("sampler")
        self._sampled_at: dict[str, float] = {}
        self._relayed_at = time.time()
        self._sampling = False
        self._failed: set[str] = set()
        # Threads of its own: it must not wait for those of everybody else.
        self._threads = anyio.CapacityLimiter(2)
        self._running: tuple[asyncio.Task[None], anyio.CancelScope] | None = None

    @property
    def sampling(self) -> bool:
        """Whether this one samples, and not another one."""
        return self._sampling

    def start(self) -> None:
        """Run in the background of the running loop, until `aclose`."""
        if self._running is None:
            scope = anyio.CancelScope()
            # It outlives the notebook cell that asked for it, so no task group can
            # hold it.
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._run_in(scope), name="agentfarm.sampler")
            self._running = task, scope

    async def aclose(self) -> None:
        """Stop what `start` began, and let another process sample."""
        running, self._running = self._running, None
        if running is not None:
            task, scope = running
            # Not task.cancel(): a thread that is at work would go on by itself.
            scope.cancel()
            await task

    async def run(self) -> None:
        """Sample, or wait for the turn to, until it is cancelled."""
        try:
            while True:
                if await self._attempt("claim", self._threaded(self._claim.take)):
                    await self._sample_while_held()
                else:
                    await self._attempt("relay", self._relay)
                    await anyio.sleep(min(_WATCH_S, self._settings.interval_s))
        finally:
            self._claim.release()

    async def _run_in(self, scope: anyio.CancelScope) -> None:
        with scope:
            await self.run()

    async def _sample_while_held(self) -> None:
        # What was counted since a turn long ago is not of now.
        self._host = HostMeter(self._disk)
        self._sampled_at.clear()
        self._sampling = True
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._tidy_for_ever)
                due = time.monotonic()
                while await self._attempt("claim", self._threaded(self._claim.held)):
                    await self._sample()
                    # A sample that took too long leaves out what it missed.
                    now = time.monotonic()
                    due = max(due + self._settings.interval_s, now)
                    await anyio.sleep(due - now)
                group.cancel_scope.cancel()
        finally:
            self._sampling = False

    async def _sample(self) -> None:
        errors: dict[str, str] = {}
        host = await self._attempt("host", self._threaded(self._host.read), errors)
        if host is None:
            host = HostSampleRecord(
                step_s=0,
                timestamp=time.time(),
                hostname=self._hostname,
                error=errors["host"],
            )
        host = replace(host, covered_s=self._covered_s("", host.timestamp, host.error))
        snapshot = await self._attempt("gpus", self._snapshot, errors)
        gpus = [] if snapshot is None else self._rows(snapshot)
        try:
            self._store.add_host_sample(host)
            for gpu in gpus:
                self._store.add_gpu_sample(gpu)
        except StoreError as error:
            self._note("store", error, errors)
        reason = "" if snapshot is None else snapshot.reason
        self._publish(host, gpus, reason=reason, errors=errors)

    async def _snapshot(self) -> GPUSnapshot | None:
        if self._gpus is None:
            return None
        try:
            with anyio.fail_after(self._patience_s):
                return await self._gpus.snapshot()
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._patience_s:g} s") from None

    def _rows(self, snapshot: GPUSnapshot) -> list[GPUSampleRecord]:
        at = snapshot.timestamp
        return [
            sample_of(
                gpu,
                timestamp=at,
                hostname=self._hostname,
                covered_s=self._covered_s(gpu.uuid, at, gpu.error),
            )
            for gpu in snapshot.gpus
        ]

    def _covered_s(self, what: str, at: float, error: str | None) -> float:
        """Seconds since the sample before of the same, unless that is too long ago."""
        before = self._sampled_at.pop(what, None)
        if error is not None:
            return 0.0
        self._sampled_at[what] = at
        return at - before if before and 0 < at - before <= MAX_GAP_S else 0.0

    async def _relay(self) -> None:
        """Publish the newest of what another process has sampled."""
        since = max(self._relayed_at, time.time() - MAX_GAP_S)
        gpus, hosts = await self._in_thread(lambda: self._newest(since))
        times = [row.timestamp for row in gpus] + [row.timestamp for row in hosts]
        newest = max(times, default=since)
        if newest > since and hosts:
            self._relayed_at = newest
            self._publish(hosts[-1], gpus, reason="", errors={})

    def _newest(
        self, since: float
    ) -> tuple[list[GPUSampleRecord], list[HostSampleRecord]]:
        own: dict[str, Any] = {"since": since, "step_s": 0, "hostname": self._hostname}
        gpus = self._store.gpu_samples(**own)
        last = gpus[-1].timestamp if gpus else None
        return (
            [row for row in gpus if row.timestamp == last],
            self._store.host_samples(**own),
        )

    def _publish(
        self,
        host: HostSampleRecord,
        gpus: list[GPUSampleRecord],
        *,
        reason: str,
        errors: Mapping[str, str],
    ) -> None:
        data = {
            "timestamp": host.timestamp,
            "hostname": host.hostname,
            "gpus": [asdict(reading_of(gpu)) for gpu in gpus],
            "reason": reason,
            "host": {
                name: value
                for name, value in asdict(host).items()
                if name not in _OF_A_ROW and not re.search("_(min|max)_", name)
            },
            "errors": dict(errors),
        }
        self._bus.emit(EventType.HARDWARE, data)

    async def _tidy_for_ever(self) -> None:
        """Average and delete what is old, in small steps, once a minute."""
        while True:
            more = await self._attempt("tidy", self._threaded(self._tidy))
            await anyio.sleep(_TIDY_PAUSE_S if more else _TIDY_S)

    def _tidy(self) -> bool:
        now = time.time()
        return self._store.compact_samples(
            raw_before=now - self._settings.raw_hours * 3600,
            keep_after=now - self._settings.retention_days * 86_400,
        )

    async def _attempt(
        self,
        what: str,
        call: Callable[[], Awaitable[T]],
        errors: dict[str, str] | None = None,
    ) -> T | None:
        """What a call returns, or None and a note where it fails."""
        try:
            return await call()
        except Exception as error:  # noqa: BLE001 - a failure is data
            self._note(what, error, errors)
            return None

    def _note(self, what: str, error: Exception, errors: dict[str, str] | None) -> None:
        reason = str(error) or type(error).__name__
        if errors is not None:
            errors[what] = reason
        if what not in self._failed:
            self._failed.add(what)
            _log.warning(
                "The sampler of hardware failed at %r: %s. It goes on, and does not "
                "log this again.",
                what,
                reason,
            )

    def _threaded(self, call: Callable[[], T]) -> Callable[[], Awaitable[T]]:
        return partial(self._in_thread, call)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(call, limiter=self._threads)
