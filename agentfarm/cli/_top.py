"""`agentfarm top`: what models and GPUs of this machine do, live in a terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentfarm.cli._console import JsonFlag, print_json, run_async, stdout, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agentfarm.events import RequestRecord
    from agentfarm.monitoring import GPUMonitor, GPUSnapshot, PerformanceSnapshot
    from agentfarm.store import Store

WINDOW = 1000  # requests; more would make the latest ones no clearer
SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """Everything at one moment."""

    requests: tuple[RequestRecord, ...]
    statistics: PerformanceSnapshot
    gpus: GPUSnapshot
    minutes: float

    def to_dict(self) -> dict[str, Any]:
        """The statistics and GPUs as JSON values."""
        return {"requests": self.statistics.to_dict(), "gpus": self.gpus.to_dict()}

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        now = datetime.now().astimezone().strftime("%H:%M:%S")
        head = Text(f"agentfarm top  {now}  the last {self.minutes:g} minutes")
        parts: list[RenderableType] = [head, self.statistics]
        if self.requests:
            parts.append(_latest(self.requests[-SHOWN:]))
        return Group(*parts, self.gpus)


def top(
    interval: Annotated[
        float, typer.Option(min=0.2, help="Seconds between pictures.")
    ] = 1.0,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Requests of the last so many minutes.")
    ] = 5.0,
    once: Annotated[
        bool, typer.Option("--once", help="One picture, then end.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show requests and GPUs live, of every process that shares this Store.

    Ends with Ctrl-C, or after one picture where the output is no terminal.
    """
    try:
        run_async(lambda: _show(interval, minutes, once=once, as_json=as_json))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None  # how one leaves it


async def _show(
    interval_s: float, minutes: float, *, once: bool, as_json: bool
) -> None:
    import anyio
    from rich.live import Live

    from agentfarm.monitoring import GPUMonitor
    from agentfarm.runtime import open_runtime

    console = stdout()
    async with open_runtime() as runtime:
        with GPUMonitor() as monitor:
            picture = await _look(runtime.store, monitor, minutes)
            if as_json:
                print_json(picture.to_dict())
                return
            if once or not console.is_terminal:
                console.print(picture)
                return
            with Live(
                picture, console=console, screen=True, auto_refresh=False
            ) as live:
                while True:
                    await anyio.sleep(interval_s)
                    picture = await _look(runtime.store, monitor, minutes)
                    live.update(picture, refresh=True)


async def _look(store: Store, monitor: GPUMonitor, minutes: float) -> Picture:
    from anyio import to_thread

    from agentfarm.monitoring import PerformanceTracker

    since = time.time() - 60 * minutes
    found = await to_thread.run_sync(lambda: store.requests(since=since, limit=WINDOW))
    tracker = PerformanceTracker(window=WINDOW)
    for record in found:
        tracker.record(record)
    return Picture(
        requests=tuple(found),
        statistics=tracker.snapshot(),
        gpus=await monitor.snapshot(),
        minutes=minutes,
    )


def _latest(records: tuple[RequestRecord, ...]) -> RenderableType:
    columns = ("at", "model", "agent", "status", "s", "first s", "in", "out", "tok/s")
    made = table("Latest requests", *columns, right=columns[4:])
    for record in reversed(records):
        at = datetime.fromtimestamp(record.started_at).astimezone()
        made.add_row(
            at.strftime("%H:%M:%S"),
            record.model,
            record.agent or "-",
            record.error_type or record.status,
            f"{record.latency_s:.1f}",
            _number(record.ttft_s, ".2f"),
            _number(record.input_tokens, ","),
            _number(record.output_tokens, ","),
            _number(record.output_tokens_per_s, ".1f"),
        )
    return made


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
