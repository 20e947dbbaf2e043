"""GPUs as a table: in a terminal by rich, in a notebook as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agentfarm.monitoring._gpu_values import GPUReading, GPUSnapshot

_COLUMNS = (
    "GPU",
    "use",
    "memory use",
    "VRAM used",
    "VRAM",
    "power",
    "power limit",
    "temperature",
    "slows down at",
    "hot spot",
    "memory temperature",
    "core clock",
    "memory clock",
    "fan",
    "slowed by",
)
# Two lines of a row in a terminal, so that a table fits 80 characters.
_PAIRS = (
    "use\nmem.",
    "VRAM used\nof",
    "power\nlimit",
    "temp.\nlimit",
    "hot spot\nmemory",
    "clock\nmemory",
)
_NONE = "-"
_REMEDY = (
    "Models run on the processor. If there is a GPU here: an NVIDIA card needs its "
    "driver (`nvidia-smi` must work; in a container, `--gpus all`), an AMD card the "
    "kernel's driver amdgpu (in a container, `--device /dev/kfd --device /dev/dri`)."
)


def rich_table(snapshot: GPUSnapshot) -> RenderableType:
    """One row for each GPU; what was tried where there is none."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not snapshot.gpus:
        return Text("\n".join([f"{snapshot.reason}.", *_tried(snapshot), _REMEDY]))
    table = Table(
        title=_title(snapshot),
        title_justify="left",
        box=box.HORIZONTALS,
        show_lines=True,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("GPU", overflow="fold")
    for heading in _PAIRS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("fan", justify="right", no_wrap=True)
    for gpu in snapshot.gpus:
        name, *cells, fan, reasons = _cells(gpu)
        if gpu.error is not None:
            table.add_row(Text(f"{name}\n{gpu.error}"))
            continue
        if gpu.throttle_reasons:
            name = f"{name}\nslowed by {reasons}"
        pairs = zip(cells[::2], cells[1::2], strict=True)
        texts = (Text(f"{upper}\n{lower}") for upper, lower in pairs)
        table.add_row(Text(name), *texts, Text(fan))
    return table


def html_table(snapshot: GPUSnapshot) -> str:
    """One row for each GPU, in the page's own style."""
    if not snapshot.gpus:
        tried = "".join(f"<li>{escape(line)}</li>" for line in _tried(snapshot))
        return (
            f"<p><strong>{escape(snapshot.reason)}</strong></p>"
            f"<ul>{tried}</ul><p>{escape(_REMEDY)}</p>"
        )
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in _COLUMNS)
    rows = []
    for gpu in snapshot.gpus:
        name, *cells = (escape(cell) for cell in _cells(gpu))
        if gpu.error is None:
            columns = "".join(f"<td>{cell}</td>" for cell in cells)
        else:
            columns = f'<td colspan="{len(cells)}">{escape(gpu.error)}</td>'
        rows.append(f'<tr><th scope="row">{name}</th>{columns}</tr>')
    return (
        f"<p><strong>{escape(_title(snapshot))}</strong></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _tried(snapshot: GPUSnapshot) -> list[str]:
    return [f"{source}: {reason}" for source, reason in snapshot.tried]


def _title(snapshot: GPUSnapshot) -> str:
    said = {
        f"{gpu.source}, driver {gpu.driver or 'unknown'}": None for gpu in snapshot.gpus
    }
    return f"GPUs ({'; '.join(said)})"


def _cells(gpu: GPUReading) -> tuple[str, ...]:
    """What stands under _COLUMNS; all between name and fan fills _PAIRS."""
    return (
        _name(gpu),
        _unit(gpu.utilization_percent, "%"),
        _unit(gpu.memory_utilization_percent, "%"),
        _gibibytes(gpu.vram_used_bytes),
        _gibibytes(gpu.vram_total_bytes),
        _unit(gpu.power_w, "W"),
        _unit(gpu.power_limit_w, "W"),
        _unit(gpu.temperature_c, "°C"),
        _unit(gpu.temperature_limit_c, "°C"),
        _unit(gpu.junction_temperature_c, "°C"),
        _unit(gpu.memory_temperature_c, "°C"),
        _unit(gpu.core_clock_mhz, "MHz"),
        _unit(gpu.memory_clock_mhz, "MHz"),
        _fan(gpu),
        _reasons(gpu.throttle_reasons),
    )


def _name(gpu: GPUReading) -> str:
    if gpu.parent is not None:
        return f"└ {gpu.name or gpu.uuid}"
    return f"{gpu.index} {gpu.name or f'{gpu.vendor} {gpu.uuid}'}"


def _unit(value: float | None, unit: str) -> str:
    return _NONE if value is None else f"{value:.0f} {unit}"


def _gibibytes(value: int | None) -> str:
    return _NONE if value is None else f"{value / 2**30:.1f} GiB"


def _fan(gpu: GPUReading) -> str:
    if gpu.fan_percent is None:
        return _unit(gpu.fan_rpm, "rpm")
    return _unit(gpu.fan_percent, "%")


def _reasons(reasons: tuple[str, ...] | None) -> str:
    if reasons is None:
        return _NONE
    return ", ".join(reasons) or "nothing"
