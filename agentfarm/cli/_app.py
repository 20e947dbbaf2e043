"""The command tree; each command imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from agentfarm._version import __version__
from agentfarm.cli import (
    _doctor,
    _eval,
    _gpu,
    _llm,
    _models,
    _notebook,
    _sandbox,
    _serve,
    _top,
    _work,
)

app = typer.Typer(
    name="agentfarm",
    help="A research workbench for LLM agents on your own hardware.",
    epilog="State lives in ~/.agentfarm; AGENTFARM_HOME moves it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
app.add_typer(_eval.app, name="eval")
app.add_typer(_models.app, name="models")
app.add_typer(_llm.app, name="llm")
app.add_typer(_notebook.app, name="notebook")
app.add_typer(_sandbox.app, name="sandbox")
app.command("doctor")(_doctor.doctor)
app.command("gpu")(_gpu.gpu)
app.command("top")(_top.top)
app.command("demo")(_notebook.demo)
app.command("serve")(_serve.serve)
app.command("run")(_work.run)
app.command("plan")(_work.plan)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentfarm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line."""
    app()
