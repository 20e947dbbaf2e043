"""`agentfarm run` and `agentfarm plan`: agents at work on one task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentfarm.cli._console import (
    JsonFlag,
    print_json,
    run_async,
    stderr,
    stdout,
    table,
)
from agentfarm.cli._eval import fetch_model_if_needed
from agentfarm.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from agentfarm.agents import PlanResult, WorkflowResult
    from agentfarm.config import Settings
    from agentfarm.events import Event

ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A registered model, see `models list`."),
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace", "-w", help="The folder to work in; a new one if left out."
    ),
]


def run(
    task: Annotated[str, typer.Argument(help="What to do, in your words.")] = "",
    workspace: FolderOption = None,
    model: ModelOption = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with one that did not finish, by its id or `latest`."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=0, help="Times that failed work goes back.")
    ] = 2,
    seed: Annotated[int | None, typer.Option(help="Of every request.")] = None,
    progress: Annotated[bool, typer.Option(help="Show what the agents do.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Let agents plan, write, verify and review; ends with 1 if it did not work out.

    They work in one folder, and run code in the sandbox only. Ctrl-C keeps what is
    finished; --resume goes on from there.
    """
    fetch_model_if_needed(model)
    options = {"model": model, "max_rounds": rounds, "seed": seed}
    watcher = _Watcher(stderr() if progress else None)
    try:
        result, folder = run_async(
            lambda: _work(task, workspace, resume, options, watcher)
        )
    except KeyboardInterrupt:
        console = stderr()
        console.print("[yellow]Interrupted.[/] Every finished step is kept.")
        if watcher.run_id:
            again = f"agentfarm run --resume {watcher.run_id}"
            console.print(f"Continue: {again}", soft_wrap=True)
        raise typer.Exit(130) from None
    if as_json:
        print_json({**result.to_dict(), "workspace": str(folder)})
    else:
        stdout().print(result)
        stdout().print(f"Workspace: {folder}", soft_wrap=True, highlight=False)
        if result.status == "failed":
            again = f"agentfarm run --resume {result.run_id}"
            stderr().print(f"Continue: {again}", soft_wrap=True)
    if not result.ok:
        raise typer.Exit(1)


def plan(
    task: Annotated[str, typer.Argument(help="What to do, in your words.")],
    workspace: FolderOption = None,
    model: ModelOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how agents would go about a task, and do nothing."""
    fetch_model_if_needed(model)
    planned = run_async(lambda: _plan(task, workspace, model))
    if as_json:
        print_json({**planned.plan.to_dict(), "problem": planned.problem})
        return
    made = table(planned.plan.summary or "Plan", "step", "what", "after")
    for step in planned.plan.steps:
        made.add_row(step.id, step.title, ", ".join(step.depends_on))
    stdout().print(made)
    if planned.problem:
        stderr().print(f"[yellow]{planned.problem}[/]", soft_wrap=True)


async def _work(
    task: str,
    workspace: Path | None,
    resume: str | None,
    options: dict[str, Any],
    watcher: _Watcher,
) -> tuple[WorkflowResult, Path]:
    from anyio import to_thread

    from agentfarm.runtime import open_runtime
    from agentfarm.store import new_run_id

    async with open_runtime() as runtime:
        run_id = None
        if resume is not None:
            record = await to_thread.run_sync(runtime.store.workflow, resume)
            folder, resume = Path(record.workspace), record.run_id
            options["model"] = options["model"] or record.model
        else:
            run_id = new_run_id()
            folder = _folder(workspace, runtime.settings, run_id)
        runtime.bus.on(watcher.see, name="cli")
        workflow = await runtime.workflow(folder, **options)
        return await workflow.run(task, resume=resume, run_id=run_id), folder


async def _plan(task: str, workspace: Path | None, model: str | None) -> PlanResult:
    from anyio import to_thread

    from agentfarm.agents import Caller, PlannerAgent
    from agentfarm.runtime import open_runtime

    async with open_runtime() as runtime:
        caller = Caller(
            router=runtime.router,
            bus=runtime.bus,
            model=model or runtime.settings.default_model,
        )
        files = await to_thread.run_sync(_names_in, workspace)
        return await PlannerAgent().plan(task, caller=caller, files=files)


def _names_in(workspace: Path | None) -> list[str]:
    if workspace is None:
        return []
    try:
        return sorted(path.name for path in workspace.iterdir())
    except OSError as error:
        raise ConfigError(
            f"The workspace {workspace} cannot be read: {error.strerror}."
        ) from error


def _folder(workspace: Path | None, settings: Settings, run_id: str) -> Path:
    if workspace is None:
        return settings.home / "workspaces" / run_id
    return workspace.expanduser().resolve()


class _Watcher:
    """Tells what happens, a line for each thing that a person would want to know."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self.run_id = ""

    def see(self, event: Event) -> None:
        """Take one event."""
        line = self._line(event)
        if line and self._console is not None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self, event: Event) -> str:
        data = event.data
        match event.type.value:
            case "workflow_started":
                self.run_id = event.run_id or ""
                return f"{self.run_id} in {data['workspace']}"
            case "step_started":
                return f"▸ {event.agent}: {data['title']}"
            case "step_completed":
                return _ended(data)
            case "step_failed":
                return f"✗ {data['title']}: {data['error']}"
            case "agent_tool_result":
                return f"    {data['tool']} {'✓' if data['ok'] else '✗'}"
            case "code_generated" | "code_modified":
                return f"    wrote {data['path']}"
        return ""


def _ended(data: Any) -> str:
    if data.get("resumed"):
        return f"= {data['title']} (finished before)"
    mark = "✓" if data["ok"] else "✗"
    tokens = f", {data['tokens']} tokens" if data["tokens"] else ""
    return f"{mark} {data['title']} ({data['duration_s']:.1f} s{tokens})"
