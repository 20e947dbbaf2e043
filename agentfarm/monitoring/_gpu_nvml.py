"""NVIDIA cards through NVML, the library that nvidia-smi itself asks."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agentfarm.monitoring._gpu_source import (
    Unavailable,
    number,
    positive,
    scaled,
    whole,
)
from agentfarm.monitoring._gpu_throttle import nvidia_reasons
from agentfarm.monitoring._gpu_values import GPUReading, GPUSource

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLOSE_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Card:
    """What of a card never changes."""

    index: int
    handle: Any
    uuid: str
    name: str | None
    temperature_limit_c: float | None
    fans: int


class _Lost(Exception):  # a finding, not an error
    """This card does not answer any more; the others may."""


class Nvml:
    """Reads NVIDIA cards and their MIG instances; the library is loaded when asked.

    Args:
        library: The module ``pynvml``, of the package nvidia-ml-py, or what takes its
            place; it is imported at the first reading if None.
    """

    name: GPUSource = "nvml"
    vendor: Literal["nvidia", "amd"] = "nvidia"

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._open = False
        self._driver: str | None = None
        self._cards: dict[int, _Card] = {}
        self._seen: dict[int, _Card] = {}
        self._refusal = ""

    def read(self, timeout_s: float) -> list[GPUReading]:
        """Read all cards, a card before its MIG instances.

        Raises:
            Unavailable: There is no driver, no card, or NVML fails as a whole.
        """
        del timeout_s  # a call into the driver cannot be interrupted
        with self._lock:
            try:
                self._start()
                count = self._must("nvmlDeviceGetCount")
                found = [one for index in range(count) for one in self._card(index)]
            except Unavailable:
                self._stop()
                raise
        if not found:
            raise Unavailable("NVML works, and knows of no card")
        return found

    def close(self) -> None:
        """Leave NVML, unless a reading hangs in it."""
        if self._lock.acquire(timeout=_CLOSE_S):
            try:
                self._stop()
            finally:
                self._lock.release()

    def _start(self) -> None:
        if self._open:
            return
        if self._library is None:
            try:
                import pynvml
            except ImportError as error:
                raise Unavailable("the package nvidia-ml-py is not here") from error
            self._library = pynvml
        self._must("nvmlInit")
        self._open = True
        self._driver = self._ask("nvmlSystemGetDriverVersion")

    def _stop(self) -> None:
        self._cards = {}
        if self._open:
            self._open = False
            try:
                self._library.nvmlShutdown()
            except self._library.NVMLError:
                return  # it has gone by itself

    def _must(self, function: str, *arguments: Any) -> Any:
        """Call a function without which nothing works."""
        try:
            return getattr(self._library, function)(*arguments)
        except self._library.NVMLError as error:
            raise Unavailable(self._words(error)) from error

    def _ask(self, function: str, *arguments: Any) -> Any:
        """A value, or None where this card, driver or binding does not give it."""
        try:
            return getattr(self._library, function)(*arguments)
        except AttributeError:
            return None
        except self._library.NVMLError as error:
            self._raise_if_grave(error)
            self._refusal = str(error)
            return None

    def _raise_if_grave(self, error: Any) -> None:
        """Tell "there is no such value" from a lost card and from a lost driver."""
        library = self._library
        if error.value in {
            library.NVML_ERROR_GPU_IS_LOST,
            library.NVML_ERROR_RESET_REQUIRED,
        }:
            raise _Lost(str(error)) from error
        if error.value in {
            library.NVML_ERROR_UNINITIALIZED,
            library.NVML_ERROR_DRIVER_NOT_LOADED,
            library.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        }:
            raise Unavailable(self._words(error)) from error

    def _words(self, error: Any) -> str:
        if error.value == self._library.NVML_ERROR_LIBRARY_NOT_FOUND:
            return "no NVIDIA driver: libnvidia-ml.so.1 is not here"
        if error.value == self._library.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return "the driver was updated while in use; it needs a restart"
        return f"NVML says: {error}"

    def _card(self, index: int) -> list[GPUReading]:
        """A card and its MIG instances; one that is lost is an error of its own."""
        try:
            card = self._cards.get(index) or self._describe(index)
            self._cards[index] = self._seen[index] = card
            return [self._reading(card), *self._instances(card)]
        except _Lost as loss:
            self._cards.pop(index, None)  # a reset gives it another handle
            seen = self._seen.get(index)
            return [
                GPUReading(
                    uuid=seen.uuid if seen else f"nvml:{index}",
                    index=index,
                    vendor="nvidia",
                    source="nvml",
                    name=seen.name if seen else None,
                    driver=self._driver,
                    error=str(loss),
                )
            ]

    def _describe(self, index: int) -> _Card:
        library = self._library
        try:
            handle = library.nvmlDeviceGetHandleByIndex(index)
        except library.NVMLError as error:
            self._raise_if_grave(error)
            # Whatever else it is, e.g. no permission: the other cards may work.
            raise _Lost(str(error)) from error
        return _Card(
            index=index,
            handle=handle,
            uuid=_text(self._ask("nvmlDeviceGetUUID", handle)) or f"nvml:{index}",
            name=_text(self._ask("nvmlDeviceGetName", handle)),
            temperature_limit_c=positive(
                self._ask(
                    "nvmlDeviceGetTemperatureThreshold",
                    handle,
                    library.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
                )
            ),
            fans=self._ask("nvmlDeviceGetNumFans", handle) or 0,
        )

    def _reading(self, card: _Card) -> GPUReading:
        library, handle = self._library, card.handle
        used, total = self._memory(handle)
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        values = {
            "temperature_c": self._temperature(handle),
            "memory_temperature_c": self._memory_temperature(handle),
            "vram_used_bytes": used,
            "vram_total_bytes": total,
            "power_w": scaled(
                positive(self._ask("nvmlDeviceGetPowerUsage", handle)), 1e-3
            ),
            "power_limit_w": self._power_limit(handle),
            "utilization_percent": number(getattr(rates, "gpu", None)),
            "memory_utilization_percent": number(getattr(rates, "memory", None)),
            "core_clock_mhz": self._clock(handle, library.NVML_CLOCK_GRAPHICS),
            "memory_clock_mhz": self._clock(handle, library.NVML_CLOCK_MEM),
            "fan_percent": self._fan_percent(card),
            "fan_rpm": self._fan_rpm(card),
            "throttle_reasons": self._throttle_reasons(handle),
        }
        if all(value is None for value in values.values()):
            raise _Lost(f"none of its values can be read: {self._refusal}")
        return GPUReading(
            uuid=card.uuid,
            index=card.index,
            vendor="nvidia",
            source="nvml",
            name=card.name,
            driver=self._driver,
            temperature_limit_c=card.temperature_limit_c,
            **values,  # type: ignore[arg-type]
        )

    def _instances(self, card: _Card) -> Iterator[GPUReading]:
        """MIG instances; of sensors they have those of their card alone."""
        mode = self._ask("nvmlDeviceGetMigMode", card.handle)
        if not mode or mode[0] != self._library.NVML_DEVICE_MIG_ENABLE:
            return
        for slot in range(
            self._ask("nvmlDeviceGetMaxMigDeviceCount", card.handle) or 0
        ):
            handle = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", card.handle, slot)
            if handle is None:
                continue  # an empty slot
            used, total = self._memory(handle)
            yield GPUReading(
                uuid=_text(self._ask("nvmlDeviceGetUUID", handle))
                or f"{card.uuid}/mig{slot}",
                index=card.index,
                vendor="nvidia",
                source="nvml",
                name=_text(self._ask("nvmlDeviceGetName", handle)),
                driver=self._driver,
                parent=card.uuid,
                vram_used_bytes=used,
                vram_total_bytes=total,
            )

    def _memory(self, handle: Any) -> tuple[int | None, int | None]:
        # The second version leaves out what the driver reserves, as nvidia-smi does.
        version = getattr(self._library, "nvmlMemory_v2", None)
        memory = version and self._ask("nvmlDeviceGetMemoryInfo", handle, version)
        memory = memory or self._ask("nvmlDeviceGetMemoryInfo", handle)
        if memory is None or memory.total == 0:
            return None, None
        return whole(number(memory.used)), whole(number(memory.total))

    def _temperature(self, handle: Any) -> float | None:
        sensor = self._library.NVML_TEMPERATURE_GPU
        found = self._ask("nvmlDeviceGetTemperature", handle, sensor)
        if found is None:  # deprecated, and perhaps gone one day
            found = self._ask("nvmlDeviceGetTemperatureV", handle, sensor)
        return positive(found)

    def _memory_temperature(self, handle: Any) -> float | None:
        field = self._library.NVML_FI_DEV_MEMORY_TEMP
        values = self._ask("nvmlDeviceGetFieldValues", handle, [field])
        if not values or values[0].nvmlReturn != self._library.NVML_SUCCESS:
            return None
        # Cards without the sensor say 0 where the driver is old.
        return positive(values[0].value.uiVal)

    def _power_limit(self, handle: Any) -> float | None:
        limit = positive(self._ask("nvmlDeviceGetEnforcedPowerLimit", handle))
        if limit is None:
            limit = positive(self._ask("nvmlDeviceGetPowerManagementLimit", handle))
        return scaled(limit, 1e-3)

    def _clock(self, handle: Any, which: int) -> float | None:
        return number(self._ask("nvmlDeviceGetClockInfo", handle, which))

    def _fan_percent(self, card: _Card) -> float | None:
        speeds = [
            number(self._ask("nvmlDeviceGetFanSpeed_v2", card.handle, fan))
            for fan in range(card.fans)
        ]
        return max((speed for speed in speeds if speed is not None), default=None)

    def _fan_rpm(self, card: _Card) -> float | None:
        if not card.fans:
            return None
        return number(self._ask("nvmlDeviceGetFanSpeedRPM", card.handle))

    def _throttle_reasons(self, handle: Any) -> tuple[str, ...] | None:
        mask = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if mask is None:  # its name before driver 535
            mask = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return None if mask is None else nvidia_reasons(mask)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value or None
