"""`agentfarm models`: what can be asked, and how to add more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentfarm.cli._console import (
    JsonFlag,
    print_json,
    reported_errors,
    run_async,
    stderr,
    stdout,
    table,
)
from agentfarm.cli._llm import describe

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from agentfarm.config import Settings
    from agentfarm.llm import Health, LLMRouter, ModelInfo, RegisteredModel

app = typer.Typer(help="List, fetch and register models.")

EMBEDDED_NAMES = {"embedded", "smollm2", "smollm2-135m-instruct"}


@app.command("list")
def list_models(as_json: JsonFlag = False) -> None:
    """List registered models, and what their servers offer."""

    async def main() -> list[dict[str, Any]]:
        import anyio

        from agentfarm.config import load_settings
        from agentfarm.llm import build_router

        router = build_router(load_settings())
        rows: list[dict[str, Any]] = [{} for _ in router.models]
        try:
            async with anyio.create_task_group() as tasks:
                for index, model in enumerate(router.models):
                    tasks.start_soon(_describe, router, model, rows, index)
        finally:
            await router.aclose()
        return rows

    rows = run_async(main)
    if as_json:
        print_json(rows)
        return
    from rich.markup import escape

    columns = ("name", "provider", "host", "model", "context", "state")
    made = table("Models", *columns, right=("context",))
    made.columns[2].no_wrap = made.columns[-1].no_wrap = True
    for row in rows:
        made.add_row(
            escape(row["name"]),
            row["provider"],
            escape(row["host"]),
            escape(row["model"]),
            str(row["context_length"] or "-"),
            "[green]✓ ok[/]" if row["ok"] else "[red]✗ no[/]",
        )
    stdout().print(made)
    for row in rows:
        if not row["ok"] or row["provider"] == "embedded":
            stdout().print(f"{row['name']}: {row['detail']}", markup=False)
    offered = {row["host"]: ", ".join(row["offers"]) for row in rows if row["offers"]}
    for host, offers in offered.items():
        stdout().print(f"{host} offers: {offers}", markup=False)
    stderr().print("Add one: agentfarm models add NAME --provider ollama --url …")


async def _describe(
    router: LLMRouter, model: RegisteredModel, rows: list[dict[str, Any]], index: int
) -> None:
    from agentfarm.errors import ProviderError

    del router
    health: Health = await model.provider.health()
    offers: list[ModelInfo] = []
    if health.ok and model.provider.kind != "embedded":
        try:
            offers = await model.provider.models()
        except ProviderError:
            offers = []
    rows[index] = {
        "name": model.name,
        "provider": model.provider.kind,
        "host": model.provider.host,
        "model": model.model,
        "context_length": model.context_length,
        "capabilities": sorted(model.capabilities),
        "task_types": sorted(model.task_types),
        "ok": health.ok,
        "detail": health.detail,
        "offers": [offer.name for offer in offers],
    }


@app.command("pull")
def pull(
    name: Annotated[
        str, typer.Argument(help="`smollm2`, or a model's name in Ollama's library.")
    ],
    url: Annotated[
        str, typer.Option(help="The Ollama server that shall fetch it.")
    ] = "http://127.0.0.1:11434",
) -> None:
    """Fetch a model: the embedded one, or one for an Ollama server."""
    if name.lower() in EMBEDDED_NAMES:
        with reported_errors():
            from agentfarm.config import load_settings

            path = fetch_embedded(load_settings())
            stdout().print(f"Ready: {path}", soft_wrap=True)
        return
    run_async(lambda: _pull_ollama(name, url))
    stdout().print(
        f"Register it: agentfarm models add {name} --provider ollama --url {url}",
        soft_wrap=True,
    )


def fetch_embedded(settings: Settings) -> Path:
    """Fetch the embedded model with progress on stderr."""
    from agentfarm.llm import fetch_embedded_model

    with stderr().status("Fetching SmolLM2-135M-Instruct …") as line:
        return fetch_embedded_model(
            settings.home, progress=lambda step: line.update(describe(step))
        )


async def _pull_ollama(name: str, url: str) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from agentfarm.llm import OllamaProvider

    provider = OllamaProvider(url)
    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    try:
        with Progress(*columns, console=stderr()) as bar:
            task = bar.add_task(f"Pulling {name}", total=None)
            async for step in provider.pull(name):
                _show_step(
                    bar, task, step.status, step.completed_bytes, step.total_bytes
                )
    finally:
        await provider.aclose()


def _show_step(
    bar: Progress, task: TaskID, status: str, done: int | None, total: int | None
) -> None:
    # Steps without numbers, the last one above all, leave the bar as it stands.
    bar.update(task, description=status, completed=done, total=total)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What you will call it.")],
    provider: Annotated[
        str,
        typer.Option(
            help="openai (any compatible server), ollama, embedded or replay."
        ),
    ],
    url: Annotated[
        str | None, typer.Option(help="Base URL, e.g. http://127.0.0.1:11434.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The server's name for it, if it differs.")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens; sent to Ollama as num_ctx.")
    ] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="tools, json_schema, vision, thinking.")
    ] = None,
    task_type: Annotated[
        list[str] | None, typer.Option(help="Preferred for, e.g. code_generation.")
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests at once on its host.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key.")
    ] = None,
    gguf: Annotated[Path | None, typer.Option(help="Model file, for embedded.")] = None,
    cassette: Annotated[
        Path | None, typer.Option(help="Recorded session, for replay.")
    ] = None,
) -> None:
    """Register a model in agentfarm.toml."""
    entry = {
        "name": name,
        "provider": provider,
        "url": url,
        "model": model,
        "context_length": context_length,
        "capabilities": sorted(capability or ()),
        "task_types": sorted(task_type or ()),
        "max_concurrency": max_concurrency,
        "api_key_env": api_key_env,
        "gguf": str(gguf.resolve()) if gguf else None,
        "cassette": str(cassette.resolve()) if cassette else None,
    }
    with reported_errors():
        from agentfarm.config import load_settings
        from agentfarm.llm import add_model

        settings = load_settings()
        given = {key: value for key, value in entry.items() if value}
        _check_usable(settings, given)
        add_model(settings, given)
        stdout().print(
            f"Added {name} to {settings.config_path}. "
            f"Try it: agentfarm eval run smoke --model {name}",
            soft_wrap=True,
        )


def _check_usable(settings: Settings, entry: dict[str, Any]) -> None:
    """Let the router refuse what it would refuse later, before it is written."""
    from pydantic import ValidationError

    from agentfarm.config import ModelSettings
    from agentfarm.llm import build_router

    try:
        model = ModelSettings(**entry)
    except ValidationError:
        return  # add_model says what is wrong with it
    build_router(settings.model_copy(update={"models": (*settings.models, model)}))


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="A model that `models add` wrote.")],
) -> None:
    """Take a model out of agentfarm.toml."""
    with reported_errors():
        from agentfarm.config import load_settings
        from agentfarm.llm import remove_model

        settings = load_settings()
        remove_model(settings, name)
        stdout().print(f"Removed {name} from {settings.config_path}.", soft_wrap=True)
