"""AMD cards through the files of the kernel's driver amdgpu; no tool, no library."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agentfarm.monitoring._gpu_source import (
    Unavailable,
    number,
    positive,
    scaled,
    whole,
)
from agentfarm.monitoring._gpu_throttle import amdgpu_reasons
from agentfarm.monitoring._gpu_values import GPUReading, GPUSource

DRM_PATH = Path("/sys/class/drm")
NAMES_PATH = Path("/usr/share/libdrm/amdgpu.ids")

_CARD = re.compile(r"card(\d+)")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", re.IGNORECASE)
_AMD = "0x1002"
_LABEL = re.compile(r"(?:temp|freq)\d+_label")
_SENSORS = {
    "edge": "temperature_c",
    "junction": "junction_temperature_c",
    "mem": "memory_temperature_c",
    "sclk": "core_clock_mhz",
    "mclk": "memory_clock_mhz",
}
_MILLI, _MICRO = 1e-3, 1e-6
# A table of some hundred bytes in its longest version.
_MOST_BYTES = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Value:
    """A file with a number in it.

    Attributes:
        path: Where it lies.
        factor: From its unit to ours.
        zero: Whether zero can be true; otherwise it says that nobody knows.
    """

    path: str
    factor: float = 1.0
    zero: bool = True

    def read(self) -> float | None:
        found = number(_text(self.path))
        return scaled(found if self.zero else positive(found), self.factor)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Card:
    """Where the values of a card lie, and those that never change.

    Attributes:
        known: The reading that the changing values are filled into.
        device, hwmon: Its folder, and that of its sensors if it has one.
        values: By attribute of `GPUReading`.
        power: The first that can be read counts.
    """

    known: GPUReading
    device: str
    hwmon: str
    values: dict[str, _Value]
    power: tuple[_Value, ...]


class AmdgpuSysfs:
    """Reads AMD cards in some 200 µs.

    Args:
        drm_path: Folder with ``card0``, ``card1``, …
        names_path: libdrm's list of product names.
    """

    name: GPUSource = "amdgpu"
    vendor: Literal["nvidia", "amd"] = "amd"

    def __init__(
        self, drm_path: Path = DRM_PATH, names_path: Path = NAMES_PATH
    ) -> None:
        self._drm_path = drm_path
        self._names_path = names_path
        self._names: dict[str, str] | None = None
        self._listed: frozenset[str] = frozenset()
        self._cards: dict[str, _Card] = {}

    def read(self, timeout_s: float) -> list[GPUReading]:
        """Read all cards, those included that have been here and are gone.

        Raises:
            Unavailable: There is no AMD card, or no such folder.
        """
        del timeout_s  # plain files; where the driver hangs, the caller leaves
        try:
            listed = frozenset(filter(_CARD.fullmatch, _names(self._drm_path)))
        except FileNotFoundError as error:
            raise Unavailable(f"there is no {self._drm_path}") from error
        except OSError as error:
            raise Unavailable(
                f"{self._drm_path} cannot be read: {error.strerror}"
            ) from error
        if listed != self._listed or any(map(_moved, self._cards.values())):
            self._find(listed)
        if not self._cards:
            raise Unavailable(f"no AMD card in {self._drm_path}")
        return [_read(card) for card in self._cards.values()]

    def close(self) -> None:
        """Nothing stays open."""

    def _find(self, listed: frozenset[str]) -> None:
        folders = sorted(listed, key=lambda name: int(name[4:]))
        devices = [self._drm_path / name / "device" for name in folders]
        amd = [d for d in devices if _text(str(d / "vendor")) == _AMD]
        found = [self._describe(device, i) for i, device in enumerate(amd)]
        # A card that is gone stays, and tells so; its address says whether it is back.
        self._cards |= {card.known.uuid: card for card in found}
        self._listed = listed

    def _describe(self, device: Path, index: int) -> _Card:
        hwmon = next(iter(sorted(device.glob("hwmon/hwmon*"))), device / "hwmon")
        sensors = _sensors(hwmon)
        edge = sensors.get("temperature_c") or sensors.get("junction_temperature_c")
        known = GPUReading(
            uuid=_address(device),
            index=index,
            vendor="amd",
            source="amdgpu",
            name=self._product(device),
            driver=_driver(device),
            temperature_limit_c=_limit(edge) if edge else None,
            vram_total_bytes=whole(
                positive(_text(str(device / "mem_info_vram_total")))
            ),
        )
        return _Card(
            known=known,
            device=str(device),
            hwmon=str(hwmon) if hwmon.is_dir() else "",
            values={
                **sensors,
                "utilization_percent": _Value(path=str(device / "gpu_busy_percent")),
                "memory_utilization_percent": _Value(
                    path=str(device / "mem_busy_percent")
                ),
                "power_limit_w": _watts(hwmon / "power1_cap"),
                "fan_rpm": _Value(path=str(hwmon / "fan1_input")),
                "fan_percent": _Value(path=str(hwmon / "pwm1"), factor=100 / 255),
                "vram_used_bytes": _Value(path=str(device / "mem_info_vram_used")),
            },
            # power1_input since Linux 6.6, where the card gives no average. The second
            # die of a card says 0 where only the first one knows.
            power=(_watts(hwmon / "power1_average"), _watts(hwmon / "power1_input")),
        )

    def _product(self, device: Path) -> str | None:
        """The product's name: of the board, else of libdrm's list."""
        if name := _text(str(device / "product_name")):
            return name
        if self._names is None:
            self._names = _product_names(self._names_path)
        chip, revision = _text(str(device / "device")), _text(str(device / "revision"))
        return self._names.get(f"{_hex(chip)}, {_hex(revision)}")


def _moved(card: _Card) -> bool:
    """Whether the driver was loaded anew, and counts its sensors otherwise."""
    return card.hwmon != "" and not _is_folder(card.hwmon) and _is_folder(card.device)


def _read(card: _Card) -> GPUReading:
    if not _is_folder(card.device):
        return replace(card.known, error="the card is gone from the system")
    if _text(f"{card.device}/power/runtime_status") == "suspended":
        # Reading a sensor would wake the card up.
        return replace(card.known, error="the card sleeps, and is not woken for this")
    values: dict[str, Any] = {name: file.read() for name, file in card.values.items()}
    values["vram_used_bytes"] = whole(values["vram_used_bytes"])
    power = (file.read() for file in card.power)
    values["power_w"] = next((watts for watts in power if watts is not None), None)
    values["throttle_reasons"] = amdgpu_reasons(_bytes(f"{card.device}/gpu_metrics"))
    if all(value is None for value in values.values()):
        return replace(card.known, error="none of its values can be read")
    return replace(card.known, **values)


def _watts(path: Path) -> _Value:
    return _Value(path=str(path), factor=_MICRO, zero=False)


def _limit(sensor: _Value) -> float | None:
    return replace(sensor, path=sensor.path.replace("_input", "_crit")).read()


def _sensors(hwmon: Path) -> dict[str, _Value]:
    """Temperatures and clocks, found by their labels: their numbers vary."""
    try:
        names = _names(hwmon)
    except OSError:
        return {}
    labels = {
        name: _text(str(hwmon / name)) for name in filter(_LABEL.fullmatch, names)
    }
    if not labels and "temp1_input" in names:
        labels = {"temp1_label": "edge"}  # the only sensor before Linux 5.3
    found = {}
    for name, label in labels.items():
        if attribute := _SENSORS.get(label or ""):
            path = str(hwmon / name.replace("_label", "_input"))
            hertz = name.startswith("freq")
            found[attribute] = _Value(
                path=path, factor=_MICRO if hertz else _MILLI, zero=hertz
            )
    return found


def _address(device: Path) -> str:
    """The PCI address, else what the kernel calls the card, e.g. ``card0``."""
    for line in (_text(str(device / "uevent")) or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PCI_SLOT_NAME":
            return value.lower()
    name = device.resolve().name
    return name.lower() if _PCI.fullmatch(name) else device.parent.name


def _driver(device: Path) -> str | None:
    """Version of amdgpu: its own where AMD's package brought it, else the kernel's."""
    driver = device / "driver"
    if not driver.exists():
        return None
    return _text(str(driver / "module" / "version")) or platform.release()


def _product_names(path: Path) -> dict[str, str]:
    """Product by ``chip, revision``, both in capitals, as in libdrm's amdgpu.ids."""
    found = {}
    for line in (_text(str(path), most_bytes=2**20) or "").splitlines():
        chip, _, rest = line.partition(",")
        revision, _, name = rest.partition(",")
        if name and not line.startswith("#"):
            found[f"{chip.strip().upper()}, {revision.strip().upper()}"] = name.strip()
    return found


def _hex(value: str | None) -> str:
    return (value or "").removeprefix("0x").upper()


# Not pathlib from here on: opening files is most of what a snapshot costs.


def _names(folder: Path) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def _text(path: str, *, most_bytes: int = _MOST_BYTES) -> str | None:
    """What a file says, without white space around it; None where it cannot be read."""
    text = _bytes(path, most_bytes=most_bytes).decode(errors="replace").strip()
    return text or None


def _bytes(path: str, *, most_bytes: int = _MOST_BYTES) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, most_bytes)
    except OSError:
        return b""  # amdgpu's answer for a sensor that this card lacks
    finally:
        os.close(file)
