"""AMD cards through ``rocm-smi --json``, of ROCm 4 to 6."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from agentfarm.monitoring._gpu_source import (
    Unavailable,
    number,
    positive,
    whole,
)
from agentfarm.monitoring._gpu_tool import json_documents
from agentfarm.monitoring._gpu_values import GPUReading, GPUSource

if TYPE_CHECKING:
    from agentfarm.monitoring._gpu_tool import Tools

_ARGUMENTS = (
    "--showproductname",
    "--showuniqueid",
    "--showbus",
    "--showtemp",
    "--showuse",
    "--showmemuse",
    "--showmeminfo",
    "vram",
    "--showpower",
    "--showmaxpower",
    "--showclocks",
    "--showfan",
    "--showdriverversion",
    "--json",
)
_CARD = re.compile(r"card(\d+)$", re.IGNORECASE)
# Keys in small letters: versions disagree about capitals.
_POWER = (
    "average graphics package power (w)",
    "current socket graphics package power (w)",
    "current graphics package power (w)",
)
_MEMORY_USE = ("gpu memory read/write activity (%)", "gpu memory use (%)")
_HBM = "temperature (sensor hbm"


class RocmSmi:
    """Reads AMD cards with the tool that amd-smi replaces."""

    name: GPUSource = "rocm-smi"
    vendor: Literal["nvidia", "amd"] = "amd"

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def read(self, timeout_s: float) -> list[GPUReading]:
        """Read all cards.

        Raises:
            Unavailable: The tool is not there, fails or names no card.
        """
        output = self._tools.run("rocm-smi", *_ARGUMENTS, timeout_s=timeout_s)
        found = parse(output.stdout)
        if not found:
            raise Unavailable(output.reason)
        return found

    def close(self) -> None:
        """Nothing stays open."""


def parse(text: str) -> list[GPUReading]:
    """The cards of a JSON output, whatever lines come before it.

    Beside ``card0``, ``card1``, … there may be ``system``, with the driver and with
    the processes that use the cards.
    """
    for document in json_documents(text):
        if not isinstance(document, dict):
            continue
        cards = {
            int(match[1]): values
            for key, values in document.items()
            if (match := _CARD.match(key)) and isinstance(values, dict)
        }
        if cards:
            system = document.get("system")
            driver = system.get("Driver version") if isinstance(system, dict) else None
            return [reading(i, cards[i], _text(driver)) for i in sorted(cards)]
    return []


def reading(index: int, values: dict[str, Any], driver: str | None) -> GPUReading:
    """One card; what it does not tell is None."""
    card = {key.strip().lower(): value for key, value in values.items()}
    return GPUReading(
        uuid=(
            _text(card.get("pci bus"))
            or _text(card.get("unique id"))
            or f"rocm-smi:{index}"
        ).lower(),
        index=index,
        vendor="amd",
        source="rocm-smi",
        name=_name(card),
        driver=driver,
        temperature_c=_temperature(card, "edge"),
        junction_temperature_c=_temperature(card, "junction"),
        memory_temperature_c=_temperature(card, "memory", "mem") or _hottest_hbm(card),
        vram_used_bytes=whole(number(card.get("vram total used memory (b)"))),
        vram_total_bytes=whole(positive(card.get("vram total memory (b)"))),
        power_w=_first_positive(card, *_POWER),
        power_limit_w=_first_positive(card, "max graphics package power (w)"),
        utilization_percent=number(card.get("gpu use (%)")),
        # "GPU Memory Allocated (VRAM%)", which took the old key's place in ROCm 6,
        # says how full the memory is, not how busy.
        memory_utilization_percent=_first(card, *_MEMORY_USE),
        core_clock_mhz=number(card.get("sclk clock speed:")),
        memory_clock_mhz=number(card.get("mclk clock speed:")),
        fan_percent=number(card.get("fan speed (%)")),
        fan_rpm=number(card.get("fan rpm")),
    )


def _temperature(card: dict[str, Any], *sensors: str) -> float | None:
    return _first_positive(card, *(f"temperature (sensor {s}) (c)" for s in sensors))


def _hottest_hbm(card: dict[str, Any]) -> float | None:
    found = [positive(v) for k, v in card.items() if k.startswith(_HBM)]
    return max((t for t in found if t is not None), default=None)


def _first(card: dict[str, Any], *keys: str) -> float | None:
    """One output may have several of these keys, and only one of them a number."""
    return next((n for key in keys if (n := number(card.get(key))) is not None), None)


def _first_positive(card: dict[str, Any], *keys: str) -> float | None:
    return next((n for key in keys if (n := positive(card.get(key))) is not None), None)


def _name(card: dict[str, Any]) -> str | None:
    for key in ("card series", "device name", "card model"):
        name = _text(card.get(key))
        if name is not None and not name.startswith("0x"):
            return name
    return None


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return None if text.upper() in {"", "N/A"} else text
