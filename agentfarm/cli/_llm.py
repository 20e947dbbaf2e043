"""`agentfarm llm`: the embedded llama.cpp server by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agentfarm.cli._console import (
    JsonFlag,
    print_json,
    reported_errors,
    stderr,
    stdout,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.llm import EmbeddedStatus, ModelProgress

app = typer.Typer(
    help="Start, stop and look at the embedded LLM server. "
    "Evaluations start it by themselves; `up` keeps it running between them."
)


@app.command("up")
def up(as_json: JsonFlag = False) -> None:
    """Start the server and keep it until `llm down`."""
    with reported_errors():
        from agentfarm.config import load_settings
        from agentfarm.llm import embedded_up

        with stderr().status("Starting the embedded LLM server …") as line:
            status = embedded_up(
                load_settings(), progress=lambda step: line.update(describe(step))
            )
        _show([status], as_json=as_json)


@app.command("down")
def down() -> None:
    """Stop the server, also while others use it."""
    with reported_errors():
        from agentfarm.config import load_settings
        from agentfarm.llm import embedded_down

        stopped = embedded_down(load_settings())
        stdout().print("Stopped." if stopped else "No embedded server was running.")


@app.command("status")
def status(as_json: JsonFlag = False) -> None:
    """Show running embedded servers and who uses them."""
    with reported_errors():
        from agentfarm.config import load_settings
        from agentfarm.llm import embedded_status

        _show(embedded_status(load_settings()), as_json=as_json)


def describe(step: ModelProgress) -> str:
    """One line on how far the model is."""
    if step.done_bytes is None:
        return step.stage
    total = f" of {step.total_bytes / 2**20:.0f}" if step.total_bytes else ""
    return f"{step.stage}: {step.done_bytes / 2**20:.0f}{total} MiB"


def _show(servers: Sequence[EmbeddedStatus], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {k: str(v) if isinstance(v, Path) else v for k, v in row.items()}
            for row in map(asdict, servers)
        ]
        print_json(rows)
        return
    if not servers:
        stdout().print("No embedded server is running. Start one: agentfarm llm up")
        return
    for server in servers:
        memory = server.memory_bytes
        made = table(f"Embedded server {server.model}", "", "")
        made.show_header = False
        for name, value in (
            (
                "state",
                "kept until `llm down`" if server.kept else "stops with its users",
            ),
            ("users", str(server.users)),
            ("url", server.url),
            ("pid", str(server.pid)),
            ("uptime", f"{server.uptime_s:.0f} s"),
            ("memory", "-" if memory is None else f"{memory / 2**20:.0f} MiB"),
            ("context", f"{server.slots} x {server.context_length} tokens"),
            ("file", str(server.gguf)),
            ("log", str(server.log_path)),
        ):
            made.add_row(name, value)
        stdout().print(made)
