"""`agentfarm serve`: the API server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentfarm.cli._console import run_async, stdout

if TYPE_CHECKING:
    from agentfarm.web import Started


def serve(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; 127.0.0.1 if left out."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="TCP port; 8700 if left out, 0 for any."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Where the tokens are kept; in AGENTFARM_HOME if left out."),
    ] = None,
    require_token: Annotated[
        bool,
        typer.Option("--require-token", help="Need a token on this machine too."),
    ] = False,
) -> None:
    """Serve the API, the live stream and a small page until Ctrl-C.

    Only this machine may ask, unless you give an address: then everybody needs a
    token, which is made at the first start and shown once.
    """
    given: dict[str, Any] = {"host": host, "port": port, "token_file": token_file}
    changes = {name: value for name, value in given.items() if value is not None}
    if require_token:
        changes["require_token"] = True
    run_async(lambda: _serve(changes))


async def _serve(changes: dict[str, Any]) -> None:
    from agentfarm.config import load_settings
    from agentfarm.web import serve

    settings = load_settings()
    web = settings.web.model_copy(update=changes)
    await serve(settings.model_copy(update={"web": web}), _announce)
    _say("Stopped.")


def _announce(started: Started) -> None:
    url, new = started.url, started.made
    _say(f"AgentFarm serves {url}")
    if new is not None:
        _say("Everybody needs a token. These links are shown this once only:")
        _say(f"  to read, start and interrupt: {url}?token={new.operator}")
        _say(f"  to read:                      {url}?token={new.read_only}")
    if started.needs_token:
        _say(f"The tokens are kept in {started.token_path}")
    _say("Ctrl-C stops it.")


def _say(line: str) -> None:
    stdout().print(line, markup=False, highlight=False, soft_wrap=True)
