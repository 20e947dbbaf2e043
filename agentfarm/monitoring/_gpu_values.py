"""What is known of GPUs at one moment; what is unknown is None, never zero."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType

GPUSource = Literal["nvml", "amdgpu", "amd-smi", "rocm-smi", "nvidia-smi"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GPUReading:
    """One card, or one MIG instance of a card, at one moment.

    Attributes:
        uuid: Stable over restarts and the same in every source of the vendor: NVIDIA's
            UUID, the PCI address of an AMD card (dies of one card share its UUID).
        index: Position among the cards of its source; that of its card for a MIG
            instance.
        vendor: ``nvidia`` or ``amd``.
        source: Who said all this.
        name: The product's, e.g. ``AMD Radeon RX 7800 XT``.
        driver: Its version.
        parent: `uuid` of the card that a MIG instance is a part of; None for a card.
        temperature_c: Edge (AMD) or GPU (NVIDIA), °C.
        junction_temperature_c: Hottest spot, °C.
        memory_temperature_c: °C.
        temperature_limit_c: Where the card slows itself down, °C; of the junction
            where `temperature_c` is unknown.
        vram_used_bytes, vram_total_bytes: Memory on the card.
        power_w, power_limit_w: Drawn now, and the cap, watts.
        utilization_percent: Share of time in which it computed.
        memory_utilization_percent: Share of time in which its memory was accessed.
        core_clock_mhz, memory_clock_mhz: Now.
        fan_percent: Of the fastest.
        fan_rpm: Turns a minute.
        throttle_reasons: Why it is slower than it could be, sorted, e.g.
            ``hw_thermal_slowdown``, ``sw_power_cap``; all that are about heat contain
            ``thermal``. Empty where nothing slows it, None where nobody says. An idle
            card is not throttled.
        error: Why it could not be read; then all else may be None.
    """

    uuid: str
    index: int
    vendor: Literal["nvidia", "amd"]
    source: GPUSource
    name: str | None = None
    driver: str | None = None
    parent: str | None = None
    temperature_c: float | None = None
    junction_temperature_c: float | None = None
    memory_temperature_c: float | None = None
    temperature_limit_c: float | None = None
    vram_used_bytes: int | None = None
    vram_total_bytes: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    utilization_percent: float | None = None
    memory_utilization_percent: float | None = None
    core_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    fan_percent: float | None = None
    fan_rpm: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GPUSnapshot:
    """All GPUs at one moment.

    Attributes:
        timestamp: Unix time, seconds.
        gpus: Cards and MIG instances, a card before its instances; empty where
            there are none.
        reason: ``No GPU found`` where there are none; `""` otherwise.
        tried: What was looked at and why it gave nothing, by source.
        duration_s: Seconds that the reading took.
    """

    timestamp: float
    gpus: tuple[GPUReading, ...] = ()
    reason: str = ""
    tried: tuple[tuple[GPUSource, str], ...] = ()
    duration_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The snapshot as JSON values."""
        return {
            "timestamp": self.timestamp,
            "duration_s": self.duration_s,
            "power_w": self.power_w,
            "reason": self.reason,
            "gpus": [asdict(gpu) for gpu in self.gpus],
            "tried": dict(self.tried),
        }

    def __rich__(self) -> RenderableType:
        from agentfarm.monitoring._gpu_render import rich_table

        return rich_table(self)

    def _repr_html_(self) -> str:
        from agentfarm.monitoring._gpu_render import html_table

        return html_table(self)

    @property
    def power_w(self) -> float | None:
        """Power of all cards together, watts; None where any of them is unknown."""
        cards = [gpu.power_w for gpu in self.gpus if gpu.parent is None]
        known = [power for power in cards if power is not None]
        return sum(known) if cards and len(known) == len(cards) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class GPUAbilities:
    """What one card, or MIG instance, tells about itself.

    Attributes:
        uuid, name, source: As in its `GPUReading`.
        known: Names of the values of `GPUReading` that it gave.
        unknown: Names of those that it did not give.
    """

    uuid: str
    name: str | None
    source: GPUSource
    known: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GPUCapabilities:
    """What can be known of the GPUs here, and who says it.

    Attributes:
        sources: Those that answered.
        gpus: By card and MIG instance.
        tried: What was looked at and why it gave nothing, by source. A source that
            was not needed is in neither.
    """

    sources: tuple[GPUSource, ...] = ()
    gpus: tuple[GPUAbilities, ...] = ()
    tried: tuple[tuple[GPUSource, str], ...] = ()


_IDENTITY = {"uuid", "index", "vendor", "source", "name", "driver", "parent", "error"}


def capabilities_of(snapshot: GPUSnapshot) -> GPUCapabilities:
    """What the cards of a snapshot told."""
    gpus = []
    for gpu in snapshot.gpus:
        values = {k: v for k, v in asdict(gpu).items() if k not in _IDENTITY}
        gpus.append(
            GPUAbilities(
                uuid=gpu.uuid,
                name=gpu.name,
                source=gpu.source,
                known=tuple(k for k, v in values.items() if v is not None),
                unknown=tuple(k for k, v in values.items() if v is None),
            )
        )
    return GPUCapabilities(
        sources=tuple(dict.fromkeys(gpu.source for gpu in snapshot.gpus)),
        gpus=tuple(gpus),
        tried=snapshot.tried,
    )
