"""GPUMonitor: what the GPUs of this machine do, now and from now on."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from agentfarm.errors import AgentFarmError
from agentfarm.monitoring._gpu_amd_smi import AmdSmi
from agentfarm.monitoring._gpu_nvidia_smi import NvidiaSmi
from agentfarm.monitoring._gpu_nvml import Nvml
from agentfarm.monitoring._gpu_rocm_smi import RocmSmi
from agentfarm.monitoring._gpu_source import GuardedSource, Source
from agentfarm.monitoring._gpu_sysfs import DRM_PATH, AmdgpuSysfs
from agentfarm.monitoring._gpu_tool import Tools
from agentfarm.monitoring._gpu_values import (
    GPUCapabilities,
    GPUReading,
    GPUSnapshot,
    GPUSource,
    capabilities_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path
    from types import TracebackType

_Tried = list[tuple[GPUSource, str]]


class GPUMonitor:
    """Reads NVIDIA and AMD GPUs; cheap to make, safe to share between loops and threads.

    Nothing is looked for before the first reading. Per vendor, the first source that
    answers is used: NVML, then ``nvidia-smi``; the files of the driver amdgpu, then
    ``amd-smi``, then ``rocm-smi``. One that fails is tried again after 1 s, 2 s, 4 s
    … up to 60 s, so that a driver or card that comes later is found. Readings run in
    threads, with a timeout: nothing here can stall an event loop.

    Args:
        timeout_s: Longest time that a source may take for a reading, seconds.
        drm_path: Where the kernel lists graphics cards.
        search_path: Folders to look for tools in, separated as in ``PATH``; ``PATH``
            and ROCm's own folder if None.
        nvml: The module ``pynvml``; imported at the first reading if None.
        clock: Seconds, for the waits between attempts.

    Raises:
        AgentFarmError: `timeout_s` is not positive.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 5.0,
        drm_path: Path = DRM_PATH,
        search_path: str | None = None,
        nvml: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if timeout_s <= 0:
            raise AgentFarmError(
                f"GPUMonitor(timeout_s={timeout_s}) could read nothing.",
                remedy="Use timeout_s > 0.",
            )
        tools = Tools(search_path)

        def guarded(*sources: Source) -> list[GuardedSource]:
            return [
                GuardedSource(one, timeout_s=timeout_s, clock=clock) for one in sources
            ]

        self._vendors = (
            _Vendor(guarded(Nvml(nvml), NvidiaSmi(tools))),
            _Vendor(guarded(AmdgpuSysfs(drm_path), AmdSmi(tools), RocmSmi(tools))),
        )
        self._lock = threading.Lock()
        self._reading: Future[GPUSnapshot] | None = None
        self._closed = False
        # At the latest when the interpreter ends: a hanging tool must not survive it.
        self._end_tools = weakref.finalize(self, tools.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def snapshot(self) -> GPUSnapshot:
        """Read all GPUs now.

        Who asks while a reading is under way gets that one. Missing hardware, and
        whatever goes wrong with it, is a value: see `GPUSnapshot.tried` and
        `GPUReading.error`.

        Raises:
            AgentFarmError: This monitor is closed.
        """
        return await _awaited(self._begun())

    def watch(self, interval_s: float = 1.0) -> AsyncIterator[GPUSnapshot]:
        """Read all GPUs again and again, beginning now.

        A reading that takes longer than the interval leaves out what it missed.

        Args:
            interval_s: From the begin of a reading to the begin of the next, seconds.

        Raises:
            AgentFarmError: `interval_s` is not positive.
        """
        if interval_s <= 0:
            raise AgentFarmError(
                f"GPUMonitor.watch(interval_s={interval_s}) would never rest.",
                remedy="Use interval_s > 0, e.g. 1.0.",
            )
        return self._watch(interval_s)

    async def capabilities(self) -> GPUCapabilities:
        """Read all GPUs, and tell who said what and which values are unknown."""
        return capabilities_of(await self.snapshot())

    def close(self) -> None:
        """End running tools and leave NVML."""
        with self._lock:
            self._closed = True
        self._end_tools()
        for vendor in self._vendors:
            vendor.close()

    async def _watch(self, interval_s: float) -> AsyncIterator[GPUSnapshot]:
        due = time.monotonic()
        while True:
            yield await self.snapshot()
            due += interval_s * ((time.monotonic() - due) // interval_s + 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _begun(self) -> Future[GPUSnapshot]:
        with self._lock:
            if self._closed:
                raise AgentFarmError(
                    "This GPUMonitor is closed.", remedy="Make a new one."
                )
            if self._reading is None or self._reading.done():
                reading = Future[GPUSnapshot]()
                threading.Thread(
                    target=self._read, args=(reading,), name="gpu-monitor", daemon=True
                ).start()
                self._reading = reading
            return self._reading

    def _read(self, reading: Future[GPUSnapshot]) -> None:
        try:
            reading.set_result(_snapshot(self._vendors))
        except BaseException as error:  # noqa: BLE001 - the awaiting side raises it
            reading.set_exception(error)


class _Vendor:
    """The sources of one vendor, best first, and the cards that they have shown."""

    def __init__(self, sources: Sequence[GuardedSource]) -> None:
        self._sources = sources
        self._seen: list[GPUReading] = []

    @property
    def due(self) -> bool:
        """Whether there is a source to be asked now."""
        return any(source.due for source in self._sources)

    def read(self) -> tuple[list[GPUReading], _Tried]:
        """The cards, and why the sources before the one that answered did not.

        Cards that no source shows any more are errors, and don't just vanish.
        """
        tried: _Tried = []
        for source in self._sources:
            cards = source.read()
            if cards:
                self._seen = cards
                return cards, tried
            tried.append((source.name, source.reason))
        why = "; ".join(f"{name}: {reason}" for name, reason in tried)
        return [_gone(card, why) for card in self._seen], tried

    def close(self) -> None:
        """Let go of what was opened."""
        for source in self._sources:
            source.close()


def _gone(card: GPUReading, why: str) -> GPUReading:
    return GPUReading(
        uuid=card.uuid,
        index=card.index,
        vendor=card.vendor,
        source=card.source,
        name=card.name,
        driver=card.driver,
        parent=card.parent,
        error=f"no source shows it any more ({why})",
    )


def _snapshot(vendors: Sequence[_Vendor]) -> GPUSnapshot:
    """Ask all vendors at once: a slow tool of one costs the other nothing."""
    timestamp, started = time.time(), time.perf_counter()
    found: dict[_Vendor, tuple[list[GPUReading], _Tried]] = {}

    def ask(vendor: _Vendor) -> None:
        found[vendor] = vendor.read()

    # A vendor with nothing to ask takes no time, and so needs no thread.
    busy = [vendor for vendor in vendors if vendor.due][1:]
    threads = [threading.Thread(target=ask, args=(v,), daemon=True) for v in busy]
    for thread in threads:
        thread.start()
    for vendor in vendors:
        if vendor not in busy:
            ask(vendor)
    for thread in threads:
        thread.join()
    gpus = [card for vendor in vendors for card in found[vendor][0]]
    return GPUSnapshot(
        timestamp=timestamp,
        gpus=tuple(gpus),
        reason="" if gpus else "No GPU found",
        tried=tuple(entry for vendor in vendors for entry in found[vendor][1]),
        duration_s=time.perf_counter() - started,
    )


async def _awaited(reading: Future[GPUSnapshot]) -> GPUSnapshot:
    """Await a thread's result; who is cancelled leaves it to the others."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[None] = loop.create_future()

    def wake(_: Future[GPUSnapshot]) -> None:
        with suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(_settle, result)

    reading.add_done_callback(wake)
    await result
    return reading.result()


def _settle(result: asyncio.Future[None]) -> None:
    if not result.done():
        result.set_result(None)
