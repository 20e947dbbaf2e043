"""`agentfarm notebook run` and `agentfarm demo`: notebooks executed for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentfarm.cli._console import reported_errors, run_async, stderr, stdout

if TYPE_CHECKING:
    from agentfarm.notebook import Report

app = typer.Typer(help="Execute notebooks into reports.")

DEMO_NOTEBOOK = Path("notebooks") / "01_agent_evaluation.ipynb"


@app.command("run")
def run(
    notebook: Annotated[Path, typer.Argument(help="The notebook to execute.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder; reports/ in AGENTFARM_HOME if left out."
        ),
    ] = None,
    html: Annotated[bool, typer.Option(help="Write an HTML page beside it.")] = True,
) -> None:
    """Execute a notebook and keep it with its outputs, as .ipynb and HTML."""
    _announce(_execute(notebook, output, html=html))


def demo(
    suite: Annotated[str, typer.Option(help="The suite to run.")] = "smoke",
) -> None:
    """Evaluate the embedded model, show the results, and write the notebook report."""
    from agentfarm.cli._eval import evaluate, show

    run = evaluate(suite, model="embedded")
    show(run, as_json=False)
    if not DEMO_NOTEBOOK.exists():
        stderr().print(
            f"{DEMO_NOTEBOOK} is not in this folder; "
            "run the demo in a checkout for the notebook."
        )
        return
    _announce(_execute(DEMO_NOTEBOOK, None, html=True))
    stdout().print(
        "Next: make lab opens it in JupyterLab; agentfarm --help shows more."
    )


def _execute(notebook: Path, output: Path | None, *, html: bool) -> Report:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from agentfarm.config import load_settings

    with reported_errors():
        home = load_settings().home
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )

    async def main() -> Report:
        from agentfarm.notebook import execute_notebook

        # The bar ends before an error is shown, or both would share a line.
        with Progress(*columns, console=stderr()) as bar:
            task = bar.add_task(f"Executing {notebook.name}", total=None)
            return await execute_notebook(
                notebook,
                output_dir=output or home / "reports",
                html=html,
                on_cell=lambda done, total: bar.update(
                    task, completed=done, total=total
                ),
            )

    return run_async(main)


def _announce(report: Report) -> None:
    console = stdout()
    console.print(f"Notebook: {report.ipynb}", soft_wrap=True, highlight=False)
    if report.html:
        console.print(f"Page:     {report.html}", soft_wrap=True, highlight=False)
