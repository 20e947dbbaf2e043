"""`agentfarm eval`: run a suite, list runs, show one."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
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

if TYPE_CHECKING:
    from rich.table import Table

    from agentfarm.evals import EvalRun, RunSummary
    from agentfarm.events import Event
    from agentfarm.store import Store

app = typer.Typer(help="Run evaluations and look at their results.")


@app.command("run")
def run(
    suite: Annotated[
        str,
        typer.Argument(
            help="A built-in suite, a .toml/.json/.jsonl file, or module:attribute."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A registered model, see `models list`; or `reference`, which plays "
            "the suite's own solutions.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times every task is asked.")] = 1,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Requests at once; the model's slots if left out."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N tasks.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Instead of the suite's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the suite's.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Continue an interrupted run, by its id.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Append every answer to this cassette, for replay."),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress while it runs.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a model on a suite and show score, latency and tokens per task."""
    options: dict[str, Any] = {
        "model": model,
        "epochs": epochs,
        "concurrency": concurrency,
        "limit": limit,
        "temperature": temperature,
        "seed": seed,
        "resume": resume,
        "progress": "auto" if progress else False,
    }
    show(evaluate(suite, record=record, **options), as_json=as_json)


def evaluate(suite: str, *, record: Path | None = None, **options: Any) -> EvalRun:
    """Run a suite; an interrupt says what is kept and how to go on."""
    started: list[str] = []

    async def main() -> EvalRun:
        from agentfarm import evals
        from agentfarm.events import EventType
        from agentfarm.runtime import open_runtime

        def note(event: Event) -> None:
            started.append(event.run_id or "")

        async with open_runtime(record=record) as runtime:
            runtime.bus.on(note, EventType.RUN_STARTED, name="cli")
            return await evals.run(suite, runtime=runtime, **options)

    fetch_model_if_needed(options.get("model"))
    try:
        return run_async(main)
    except KeyboardInterrupt:
        console = stderr()
        console.print("[yellow]Interrupted.[/] Every finished sample is kept.")
        if started:
            again = f"agentfarm eval run {quote(suite)} --resume {started[0]}"
            console.print(f"Look at it: agentfarm eval show {started[0]}")
            console.print(f"Continue:   {again}", soft_wrap=True)
        raise typer.Exit(130) from None


def fetch_model_if_needed(model: str | None) -> None:
    """Download the embedded model with progress, not silently in the first request."""
    with reported_errors():
        from agentfarm.config import load_settings

        settings = load_settings()
        if (model or settings.default_model) != "embedded":
            return
        from agentfarm.cli._models import fetch_embedded
        from agentfarm.llm import find_embedded_model

        if find_embedded_model(settings.embedded, settings.home) is None:
            fetch_embedded(settings)


def show(run: EvalRun, *, as_json: bool) -> None:
    """Print one run."""
    if as_json:
        print_json(run.to_dict())
    else:
        stdout().print(run)


def _open_store() -> Store:
    from agentfarm.config import load_settings
    from agentfarm.store import Store

    settings = load_settings()
    return Store.open(settings.store_url, read_only=True)


@app.command("list")
def list_runs(
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest N.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first."""
    with reported_errors():
        from agentfarm.evals import run_summaries

        rows: list[RunSummary] = []
        if _has_store():
            with _open_store() as store:
                rows = run_summaries(store, suite=suite, model=model, limit=limit)
        if as_json:
            print_json([row.to_dict() for row in rows])
        elif rows:
            stdout().print(_runs_table(rows))
        else:
            which = " that fit" if suite or model else " yet"
            stdout().print(f"No runs{which}. Start one: agentfarm eval run smoke")


def _runs_table(rows: list[RunSummary]) -> Table:
    from rich.markup import escape

    numbers = ("score", "samples", "errors")
    made = table("Runs", "run", "suite", "model", *numbers, "status", right=numbers)
    made.padding = (0, 0)  # every column's width counts in 80
    made.columns[0].no_wrap = made.columns[-1].no_wrap = True
    for row in rows:
        run = row.run
        made.add_row(
            run.run_id,
            escape(run.suite),
            escape(run.model),
            "-" if row.score is None else f"{row.score:.3f}",
            f"{row.samples}/{run.planned_samples}",
            str(row.errors),
            run.status,
        )
    return made


def _has_store() -> bool:
    from agentfarm.config import load_settings

    settings = load_settings()
    return (
        settings.database_url is not None or (settings.home / "agentfarm.db").exists()
    )


@app.command("show")
def show_run(
    run_id: Annotated[
        str, typer.Argument(help="A run's id, the beginning of it, or `latest`.")
    ] = "latest",
    as_json: JsonFlag = False,
) -> None:
    """Show a run with all its finished samples."""
    with reported_errors():
        from agentfarm.errors import EvalError
        from agentfarm.evals import load_run

        if not _has_store():
            raise EvalError(
                "There are no runs yet.", remedy="Start one: agentfarm eval run smoke"
            )
        with _open_store() as store:
            show(load_run(store, run_id), as_json=as_json)
