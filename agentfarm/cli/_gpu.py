"""`agentfarm gpu`: what the GPUs of this machine do, once or live."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentfarm.cli._console import JsonFlag, print_json, run_async, stdout

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentfarm.monitoring import GPUMonitor, GPUSnapshot


def gpu(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.05, help="Seconds between readings, with --watch.")
    ] = 1.0,
    as_json: JsonFlag = False,
) -> None:
    """Show temperatures, memory, power and load of the GPUs; without any, say why.

    With --watch and --json, each reading is one line.
    """
    try:
        if watch:
            run_async(lambda: _watch(interval, as_json=as_json))
        else:
            _print(run_async(_once), as_json=as_json)
    except KeyboardInterrupt:
        # Ctrl-C is how one leaves --watch, and cuts short a single reading.
        raise typer.Exit(0 if watch else 130) from None


async def _once() -> GPUSnapshot:
    from agentfarm.monitoring import GPUMonitor

    with GPUMonitor() as monitor:
        return await monitor.snapshot()


async def _watch(interval_s: float, *, as_json: bool) -> None:
    from agentfarm.monitoring import GPUMonitor

    with GPUMonitor() as monitor:
        if as_json:
            await _follow(monitor, interval_s, _print_line)
            return
        console = stdout()
        if not console.is_terminal:
            await _follow(monitor, interval_s, console.print)
            return
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            await _follow(monitor, interval_s, lambda s: live.update(s, refresh=True))


async def _follow(
    monitor: GPUMonitor, interval_s: float, show: Callable[[GPUSnapshot], None]
) -> None:
    async for snapshot in monitor.watch(interval_s):
        show(snapshot)


def _print(snapshot: GPUSnapshot, *, as_json: bool) -> None:
    if as_json:
        print_json(snapshot.to_dict())
    else:
        stdout().print(snapshot)


def _print_line(snapshot: GPUSnapshot) -> None:
    # Flushed, so that a reader of the pipe has it now.
    sys.stdout.write(json.dumps(snapshot.to_dict(), ensure_ascii=False) + "\n")
    sys.stdout.flush()
