"""A workflow in a notebook: give it a task, watch the agents, stop it, go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import ipywidgets
from anyio import to_thread

from agentfarm.agents import WorkflowResult
from agentfarm.errors import AgentFarmError
from agentfarm.notebook.panels import _workflow_html as html
from agentfarm.notebook.panels._workflow_view import WorkflowView
from agentfarm.store import new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentfarm.events import Event
    from agentfarm.runtime import Runtime

# Often enough for the eye; a page is not sent each token by itself.
REFRESH_S = 0.1


class WorkflowPanel:
    """Shows a workflow live, and starts, stops and resumes it.

    Display it, then ``await panel.run(task)``, or use its buttons. The cell's own ■
    interrupts as well; what is finished is kept either way.

    Args:
        runtime: Whose models, sandbox and Store.
        workspace: The folder to work in; a new one for each task if None.
        model: Registered model for every agent; the default model if None.
        options: Further arguments of `agentfarm.agents.Workflow`, e.g. `max_rounds`.

    Attributes:
        result: What the last workflow came to; None before the first has ended.
        workspace: The folder of the last workflow.
        run_id: Its id.
        view: The picture that is shown.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        workspace: Path | str | None = None,
        model: str | None = None,
        **options: Any,
    ) -> None:
        self.result: WorkflowResult | None = None
        self.run_id = ""
        self.view = WorkflowView()
        self._runtime = runtime
        self._fixed = Path(workspace).absolute() if workspace is not None else None
        self.workspace = self._fixed
        self._model = model
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._scope: anyio.CancelScope | None = None
        self._changed = False
        self._build()

    @property
    def running(self) -> bool:
        """Whether a workflow is under way."""
        return self._scope is not None

    async def run(self, task: str = "", *, resume: str | None = None) -> WorkflowResult:
        """Work on a task, or go on with an interrupted one, and show it.

        What stands in the way, e.g. no sandbox or no server, is shown, and is the
        `error` of a result with the status ``failed``. One that `stop` ended comes
        to a result ``interrupted``.

        Args:
            task: What to do, in the user's words.
            resume: Id of a workflow, or ``latest``.

        Raises:
            AgentFarmError: The panel is busy with another one.
        """
        if self._scope is not None:
            raise AgentFarmError(
                f"This panel still shows workflow {self.run_id}.",
                remedy="Stop it first, or open another panel.",
            )
        self.view, self.result = WorkflowView(task=task, status="running"), None
        self._task.value = task or self._task.value
        subscription = self._runtime.bus.on(self._see, name="workflow panel")
        self._changed = True
        try:
            async with anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                tasks.start_soon(self._refresh)
                self.result = await self._run(task, resume)
                tasks.cancel_scope.cancel()
        finally:
            subscription.close()
            self._scope = None
            if self.view.status == "running":
                self.view.end("interrupted", "It was stopped before it began.")
            self._draw()
        if self.result is None:
            self.result = self._stopped(task)
        return self.result

    def stop(self) -> None:
        """Interrupt what runs; `run` with `resume` goes on with it."""
        if self._scope is not None:
            self._scope.cancel()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self._box)  # type: ignore[no-untyped-call]

    async def _run(self, task: str, resume: str | None) -> WorkflowResult:
        try:
            run_id, folder = new_run_id(), self._fixed
            if resume is not None:
                find = self._runtime.store.workflow
                record = await to_thread.run_sync(find, resume)
                run_id, folder = record.run_id, Path(record.workspace)
                resume = self.run_id = run_id
                self.view.task = self._task.value = record.task
            if folder is None:
                folder = self._runtime.settings.home / "workspaces" / run_id
            self.run_id, self.workspace = run_id, folder
            workflow = await self._runtime.workflow(
                folder, model=self._model, **self._options
            )
            return await workflow.run(task, resume=resume, run_id=run_id)
        except AgentFarmError as error:
            self.view.end("failed", str(error))
            return WorkflowResult(
                run_id=run_id,
                task=task,
                status="failed",
                summary=f"It failed: {error}",
                error=error,
            )

    def _stopped(self, task: str) -> WorkflowResult:
        return WorkflowResult(
            run_id=self.run_id,
            task=task or self.view.task,
            status="interrupted",
            summary="It was stopped; every finished step is kept. "
            f"Go on: await panel.run(resume={self.run_id!r})",
            duration_s=self.view.elapsed_s,
        )

    def _see(self, event: Event) -> None:
        if event.run_id == self.run_id:
            self.view.take(event)
            self._changed = True

    async def _refresh(self) -> None:
        seconds = -1
        while True:
            if self._changed or int(self.view.elapsed_s) != seconds:
                self._draw()
                seconds = int(self.view.elapsed_s)
            await anyio.sleep(REFRESH_S)

    def _build(self) -> None:
        self._task = ipywidgets.Textarea(
            placeholder="What to do, in your words",
            layout=ipywidgets.Layout(width="auto", height="64px"),
        )
        self._start = _button("Start", "play", self._on_start, "primary")
        self._stop = _button("Stop", "stop", self._on_stop)
        self._resume = _button("Resume", "step-forward", self._on_resume)
        self._parts: dict[Callable[[WorkflowView], str], ipywidgets.HTML] = {
            part: ipywidgets.HTML()
            for part in (
                html.head,
                html.steps,
                html.streams,
                html.calls,
                html.tokens,
                html.outcome,
            )
        }
        buttons = ipywidgets.HBox([self._start, self._stop, self._resume])
        style = ipywidgets.HTML(html.STYLE)
        self._box = ipywidgets.VBox(
            [style, self._task, buttons, *self._parts.values()],
            # Its children's margins would make a scroll bar.
            layout=ipywidgets.Layout(width="auto", overflow="hidden"),
        )
        self._draw()

    def _draw(self) -> None:
        """Send the parts that have changed; a widget compares by itself."""
        self._changed = False
        self._start.disabled = self.running
        self._stop.disabled = not self.running
        self._resume.disabled = self.running or self.view.status not in {
            "interrupted",
            "failed",
        }
        for part, widget in self._parts.items():
            widget.value = part(self.view)

    # Newer front ends deliver clicks on a thread of their own while a cell runs.
    def _on_start(self, _button: Any) -> None:
        self._loop.call_soon_threadsafe(self._launch, self._task.value, None)

    def _on_stop(self, _button: Any) -> None:
        self._loop.call_soon_threadsafe(self.stop)

    def _on_resume(self, _button: Any) -> None:
        self._loop.call_soon_threadsafe(self._launch, "", self.run_id)

    def _launch(self, task: str, resume: str | None) -> None:
        if self._scope is not None:
            return
        # Not a task group: it outlives the handler of the click.
        self._launched = self._loop.create_task(self.run(task, resume=resume))


def _button(
    text: str, icon: str, on_click: Callable[[Any], None], style: str = ""
) -> Any:
    button = ipywidgets.Button(description=text, icon=icon, button_style=style)
    button.on_click(on_click)
    return button
