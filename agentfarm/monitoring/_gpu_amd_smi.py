"""AMD cards through ``amd-smi metric --json``, of ROCm 5.7 to 7."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from agentfarm.monitoring._gpu_source import (
    Unavailable,
    number,
    positive,
    scaled,
    whole,
)
from agentfarm.monitoring._gpu_tool import json_documents
from agentfarm.monitoring._gpu_values import GPUReading, GPUSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentfarm.monitoring._gpu_tool import Tools

_BYTES = {"B": 1.0, "KB": 2.0**10, "MB": 2.0**20, "GB": 2.0**30, "TB": 2.0**40}
_UNKNOWN_CLOCK_MHZ = 65535
_VIOLATIONS = {
    "ppt_violation_status": "power_ppt",
    "prochot_violation_status": "thermal_prochot",
    "socket_thermal_violation_status": "thermal_socket",
    "vr_thermal_violation_status": "thermal_vr",
    "hbm_thermal_violation_status": "thermal_hbm",
}

Card = dict[str, Any]


class AmdSmi:
    """Reads AMD cards; their names and limits once, for they do not change."""

    name: GPUSource = "amd-smi"
    vendor: Literal["nvidia", "amd"] = "amd"

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._static: dict[int, Card] = {}

    def read(self, timeout_s: float) -> list[GPUReading]:
        """Read all cards.

        Raises:
            Unavailable: The tool is not there, fails or names no card.
        """
        deadline = time.monotonic() + timeout_s
        output = self._tools.run("amd-smi", "metric", "--json", timeout_s=timeout_s)
        cards = parse(output.stdout)
        if not cards:
            raise Unavailable(output.reason)
        if cards.keys() != self._static.keys():
            found = self._read_static(deadline)
            self._static = {index: found.get(index, {}) for index in cards}
        return [
            reading(index, card, self._static[index]) for index, card in cards.items()
        ]

    def close(self) -> None:
        """Nothing stays open."""

    def _read_static(self, deadline: float) -> dict[int, Card]:
        left_s = max(0.1, deadline - time.monotonic())
        try:
            output = self._tools.run("amd-smi", "static", "--json", timeout_s=left_s)
        except Unavailable:
            return {}  # then the cards have no names
        return parse(output.stdout)


def parse(text: str) -> dict[int, Card]:
    """The cards of a JSON output, by index, whatever lines come before it.

    A list of cards until ROCm 6, ``{"gpu_data": [...]}`` since.
    """
    for document in json_documents(text):
        listed = document.get("gpu_data") if isinstance(document, dict) else document
        cards = {
            int(index): card
            for card in (listed if isinstance(listed, list) else ())
            if isinstance(card, dict) and (index := number(card.get("gpu"))) is not None
        }
        if cards:
            return cards
    return {}


def reading(index: int, card: Card, static: Card) -> GPUReading:
    """One card; what it does not tell is None."""
    temperature, clock = _part(card, "temperature"), _part(card, "clock")
    power, usage = _part(card, "power"), _part(card, "usage")
    fan, memory = _part(card, "fan"), _part(card, "mem_usage")
    limit = _part(static, "limit")
    edge = positive(_first(temperature, "edge"))
    slowdown = "slowdown_hotspot_temperature" if edge is None else _EDGE_LIMIT
    return GPUReading(
        uuid=(_text(static, "bus", "bdf") or f"amd-smi:{index}").lower(),
        index=index,
        vendor="amd",
        source="amd-smi",
        name=_text(static, "asic", "market_name")
        or _text(static, "board", "product_name"),
        driver=_text(static, "driver", "version")
        or _text(static, "driver", "driver_version"),
        temperature_c=edge,
        junction_temperature_c=positive(_first(temperature, "hotspot", "junction")),
        memory_temperature_c=positive(_first(temperature, "mem", "vram")),
        temperature_limit_c=positive(_first(limit, slowdown)),
        vram_used_bytes=_bytes(memory, "used_vram"),
        vram_total_bytes=_bytes(memory, "total_vram") or None,
        power_w=positive(
            _first(
                power, "socket_power", "current_socket_power", "average_socket_power"
            )
        ),
        power_limit_w=_power_limit(limit),
        utilization_percent=number(_first(usage, "gfx_activity")),
        memory_utilization_percent=number(_first(usage, "umc_activity")),
        core_clock_mhz=_clock(clock, "gfx_0", "gfx"),
        memory_clock_mhz=_clock(clock, "mem_0", "mem"),
        fan_percent=number(_first(fan, "usage")),
        fan_rpm=number(_first(fan, "rpm")),
        throttle_reasons=_reasons(power, _part(card, "throttle")),
    )


_EDGE_LIMIT = "slowdown_edge_temperature"


def _part(card: Mapping[str, Any], name: str) -> Card:
    """A section; a whole one may be ``"N/A"``."""
    part = card.get(name)
    return part if isinstance(part, dict) else {}


def _text(card: Card, section: str, name: str) -> str | None:
    value = _part(card, section).get(name)
    if not isinstance(value, str) or value.strip() in {"", "N/A"}:
        return None
    return None if value.startswith("0x") else value.strip()


def _first(section: Card, *names: str) -> Any:
    """The first of these values that is a number, as it stands in its unit."""
    for name in names:
        value = section.get(name)
        if isinstance(value, dict):
            value = value.get("value")
        if number(value) is not None:
            return value
    return None


def _bytes(section: Card, name: str) -> int | None:
    value = section.get(name)
    unit = value.get("unit") if isinstance(value, dict) else str(value).split(" ")[-1]
    # Its MB are 2**20 bytes.
    factor = _BYTES.get(str(unit).upper(), _BYTES["MB"])
    return whole(scaled(number(_first(section, name)), factor))


def _clock(section: Card, *names: str) -> float | None:
    for name in names:
        clock = number(_first(_part(section, name), "clk", "cur_clk"))
        if clock is not None and clock < _UNKNOWN_CLOCK_MHZ:
            return clock
    return None


def _power_limit(limit: Card) -> float | None:
    ppt0 = _part(limit, "ppt0")
    for value in (
        _first(ppt0, "socket_power_limit"),
        _first(limit, "socket_power", "current_power"),
        _first(ppt0, "max_power_limit"),
        _first(limit, "max_power"),
    ):
        if (watts := positive(value)) is not None:
            return watts
    return None


def _reasons(power: Card, throttle: Card) -> tuple[str, ...] | None:
    said = {reason: throttle.get(key) for key, reason in _VIOLATIONS.items()}
    active = tuple(sorted(r for r, status in said.items() if status == "ACTIVE"))
    status = power.get("throttle_status")
    if active:
        return active
    if status == "THROTTLED":
        return ("throttled",)
    if status == "UNTHROTTLED" or "NOT ACTIVE" in said.values():
        return ()
    return None
