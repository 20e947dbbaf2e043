"""NVIDIA cards through ``nvidia-smi --query-gpu``, where NVML cannot be used."""

from __future__ import annotations

import csv
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from agentfarm.monitoring._gpu_source import (
    Unavailable,
    number,
    positive,
    said,
    scaled,
    whole,
)
from agentfarm.monitoring._gpu_throttle import nvidia_reasons
from agentfarm.monitoring._gpu_values import GPUReading, GPUSource

if TYPE_CHECKING:
    from agentfarm.monitoring._gpu_tool import ToolOutput, Tools

_MIB = 2.0**20
_FIELDS = (
    "index",
    "uuid",
    "pci.bus_id",
    "name",
    "driver_version",
    "temperature.gpu",
    "temperature.memory",
    "utilization.gpu",
    "utilization.memory",
    "memory.used",
    "memory.total",
    "power.draw",
    "power.limit",
    "fan.speed",
    "clocks.gr",
    "clocks.mem",
    "clocks_throttle_reasons.active",
)
# A field's other name: drivers print theirs in the heading, whichever was asked for.
_ALIASES = {
    "clocks.current.graphics": "clocks.gr",
    "clocks.current.memory": "clocks.mem",
    "clocks_event_reasons.active": "clocks_throttle_reasons.active",
}
_REFUSED = re.compile(r'Field "([^"]+)" is not a valid field')
# After "for" comes e.g. GPU 0000:02:00.0, GPU0000:65:00.0, GPU2, GPU0: 0000:01:00.0.
_LOST = re.compile(
    r"Unable to determine the device handle for gpu\s*(?:(?P<index>\d{1,3}):(?=\s))?\s*"
    r"(?P<pci>(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])?:?\s*(?P<error>.+)",
    re.IGNORECASE,
)
# Values that say "there is no such thing" and not "it could not be read".
_ABSENT = re.compile(r"n/a|not supported|not available|deprecated", re.IGNORECASE)
_MOST_CARDS = 32

Row = dict[str, str]


class NvidiaSmi:
    """Reads NVIDIA cards, without MIG instances: this way has no values for them.

    A card that is lost ends the listing of all. Then each is asked for by itself.
    """

    name: GPUSource = "nvidia-smi"
    vendor: Literal["nvidia", "amd"] = "nvidia"

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._fields: tuple[str, ...] = _FIELDS
        self._uuids: dict[str, str] = {}

    def read(self, timeout_s: float) -> list[GPUReading]:
        """Read all cards.

        Raises:
            Unavailable: The tool is not there, fails or names no card.
        """
        deadline = time.monotonic() + timeout_s
        output = self._query(deadline)
        cards = {card.uuid: card for card in self._cards(output)}
        if not cards:
            raise Unavailable(output.reason)
        if lost_cards(output):
            cards |= {card.uuid: card for card in self._one_by_one(deadline)}
        return sorted(cards.values(), key=lambda card: card.index)

    def close(self) -> None:
        """Nothing stays open."""

    def _cards(self, output: ToolOutput) -> list[GPUReading]:
        """The cards of one output, lost ones under the UUID that they had before."""
        rows = parse(output.stdout)
        for row in rows:
            uuid = _uuid(row)
            self._uuids |= {_pci(row.get("pci.bus_id", "")): uuid}
            self._uuids |= {f"nvidia-smi:{row['index']}": uuid}
        lost = lost_cards(output)
        return [
            *map(reading, rows),
            *(replace(one, uuid=self._uuids.get(one.uuid, one.uuid)) for one in lost),
        ]

    def _one_by_one(self, deadline: float) -> list[GPUReading]:
        found: list[GPUReading] = []
        for index in range(_MOST_CARDS):
            try:
                output = self._query(deadline, f"--id={index}")
            except Unavailable:
                break
            cards = self._cards(output)
            if not cards:
                break  # "No devices were found": there are no more
            found += (replace(card, index=index) for card in cards)
        return found

    def _query(self, deadline: float, *which: str) -> ToolOutput:
        while True:
            output = self._tools.run(
                "nvidia-smi",
                f"--query-gpu={','.join(self._fields)}",
                "--format=csv,nounits",
                *which,
                timeout_s=max(0.1, deadline - time.monotonic()),
            )
            refused = _REFUSED.search(output.stdout + output.stderr)
            if refused is None or refused[1] not in self._fields:
                return output
            # Older and newer drivers do not know every field.
            self._fields = tuple(f for f in self._fields if f != refused[1])


def parse(text: str) -> list[Row]:
    """The cards of a CSV output with headings, whatever lines come before them."""
    lines = text.splitlines()
    headings = [[_field(cell) for cell in line.split(",")] for line in lines]
    start = next((i for i, h in enumerate(headings) if "index" in h and len(h) > 1), -1)
    if start < 0:
        return []
    heading = headings[start]
    rows = csv.reader(lines[start + 1 :], skipinitialspace=True)
    return [
        dict(zip(heading, cells, strict=True))
        for cells in rows
        if len(cells) == len(heading)
    ]


def lost_cards(output: ToolOutput) -> list[GPUReading]:
    """Cards whose handle the tool could not get; its uuid is then the PCI address."""
    found = []
    for match in _LOST.finditer(output.stdout + "\n" + output.stderr):
        index, pci = match["index"], _pci(match["pci"] or "")
        found.append(
            GPUReading(
                uuid=pci or f"nvidia-smi:{index or '?'}",
                index=int(index or 0),
                vendor="nvidia",
                source="nvidia-smi",
                error=said(match["error"]),
            )
        )
    return found


def reading(row: Row) -> GPUReading:
    """One card; what it does not tell is None."""
    mask = _mask(row.get("clocks_throttle_reasons.active", ""))
    values = {
        "temperature_c": positive(row.get("temperature.gpu")),
        "memory_temperature_c": positive(row.get("temperature.memory")),
        "vram_used_bytes": whole(scaled(number(row.get("memory.used")), _MIB)),
        "vram_total_bytes": whole(scaled(positive(row.get("memory.total")), _MIB)),
        "power_w": positive(row.get("power.draw")),
        "power_limit_w": positive(row.get("power.limit")),
        "utilization_percent": number(row.get("utilization.gpu")),
        "memory_utilization_percent": number(row.get("utilization.memory")),
        "core_clock_mhz": number(row.get("clocks.gr")),
        "memory_clock_mhz": number(row.get("clocks.mem")),
        "fan_percent": number(row.get("fan.speed")),
        "throttle_reasons": None if mask is None else nvidia_reasons(mask),
    }
    nothing = all(value is None for value in values.values())
    return GPUReading(
        uuid=_uuid(row),
        index=int(number(row["index"]) or 0),
        vendor="nvidia",
        source="nvidia-smi",
        name=_text(row.get("name", "")),
        driver=_text(row.get("driver_version", "")),
        error=_problem(row) if nothing else None,
        **values,  # type: ignore[arg-type]
    )


def _field(cell: str) -> str:
    name = cell.strip().partition(" [")[0]
    return _ALIASES.get(name, name)


def _uuid(row: Row) -> str:
    return (
        _text(row.get("uuid", ""))
        or _pci(row.get("pci.bus_id", ""))
        or f"nvidia-smi:{row['index']}"
    )


def _pci(text: str) -> str:
    """A PCI address as the kernel writes it: ``00000000:0A:00.0`` has a long domain."""
    address = text.strip().lower()
    domain, _, rest = address.partition(":")
    return f"{domain[-4:]}:{rest}" if len(domain) == 8 and rest else address


def _text(value: str) -> str | None:
    text = value.strip()
    return None if not text or text[0] == "[" or _ABSENT.fullmatch(text) else text


def _mask(value: str) -> int | None:
    try:
        return int(value.strip(), 16)
    except ValueError:
        return None


def _problem(row: Row) -> str:
    """Why a card tells nothing, in the tool's words: e.g. ``GPU is lost``."""
    for value in row.values():
        if value.startswith("[") and not _ABSENT.search(value):
            return value.strip("[] ")
    return "none of its values can be read"
