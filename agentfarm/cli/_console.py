"""How commands speak: tables or JSON on stdout, everything else on stderr."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Collection, Coroutine
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from agentfarm.errors import AgentFarmError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, JustifyMethod
    from rich.table import Table

T = TypeVar("T")

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")
]


def stdout() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console()


def stderr() -> Console:
    """The console for progress, notices and errors."""
    from rich.console import Console

    return Console(stderr=True)


def table(title: str, *columns: str, right: Collection[str] = ()) -> Table:
    """An empty table in our look; columns named in `right` are right-aligned."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        side: JustifyMethod = "right" if column in right else "left"
        made.add_column(column, justify=side, overflow="fold", vertical="top")
    return made


def print_json(value: Any) -> None:
    """Write one JSON document to stdout, characters as they are."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def fail(error: AgentFarmError) -> NoReturn:
    """Show what went wrong and what to do, and end with status 1."""
    console = stderr()
    console.print(f"[bold red]Error:[/] {_plain(error.message)}", highlight=False)
    if error.remedy:
        console.print(f"[bold]What to do:[/] {_plain(error.remedy)}", highlight=False)
    raise typer.Exit(1)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn our errors into a message, and a closed pipe into silence."""
    try:
        yield
        sys.stdout.flush()
    except AgentFarmError as error:
        fail(error)
    except BrokenPipeError:
        # The reader (`| head`) has gone; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None


def run_async(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, with our errors reported."""
    with reported_errors():
        return asyncio.run(main())  # noqa: TID251 - the CLI owns the process
