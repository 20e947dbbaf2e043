"""Execute a notebook without a person, and keep what it shows."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import from_thread, to_thread

from agentfarm.errors import NotebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nbclient import NotebookClient

    from agentfarm.notebook._kernel import Kernel

_WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A notebook that ran from its first cell to its last.

    Attributes:
        ipynb: The notebook with its outputs.
        html: The same as one page that needs no network; None if not wanted.
        duration_s: Wall time from the kernel's start to the files, seconds.
    """

    ipynb: Path
    html: Path | None
    duration_s: float


async def execute_notebook(
    path: Path | str,
    *,
    output_dir: Path | str,
    html: bool = True,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = 600.0,
    on_cell: Callable[[int, int], object] | None = None,
) -> Report:
    """Run a notebook in a new kernel and save it with its outputs.

    The kernel is this Python, whatever kernel the notebook names; it works in the
    notebook's folder and ends with this call, or with this process. Plotly figures
    are kept as data, which JupyterLab draws; the page draws them with one copy of
    plotly.js inside it. Widgets, which need a live kernel, are left out.

    Args:
        path: The notebook; it is not changed.
        output_dir: Folder for ``<name>.ipynb`` and ``<name>.html``; made if missing.
        html: Whether to write the page as well.
        env: Variables for the kernel, beside those of this process.
        timeout_s: The longest that one cell may take, seconds; None for no limit.
        on_cell: Called with (cells done, cells in all), first with (0, all). It
            runs in the event loop, so it must not block.

    Raises:
        NotebookError: There is no such notebook, a cell failed or took too long, or
            the kernel died. What ran until then is saved all the same, and the
            message names the file.
    """
    started = time.perf_counter()
    source, target = _paths(Path(path), Path(output_dir))
    notebook = await to_thread.run_sync(_read, source)
    try:
        await _execute(notebook, source, target, env or {}, timeout_s, on_cell)
    except BaseException:
        # Without a thread: the caller may have been cancelled.
        _save(notebook, target, html=html)
        raise
    page = await to_thread.run_sync(
        functools.partial(_save, notebook, target, html=html)
    )
    return Report(ipynb=target, html=page, duration_s=time.perf_counter() - started)


def execute_notebook_sync(
    path: Path | str,
    *,
    output_dir: Path | str,
    html: bool = True,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = 600.0,
    on_cell: Callable[[int, int], object] | None = None,
) -> Report:
    """`execute_notebook` for code that is not async, with or without a running loop.

    It runs in a thread of its own, and so does `on_cell`.

    Raises:
        NotebookError: As `execute_notebook`.
    """
    call = functools.partial(
        execute_notebook,
        path,
        output_dir=output_dir,
        html=html,
        env=env,
        timeout_s=timeout_s,
        on_cell=on_cell,
    )
    with from_thread.start_blocking_portal() as portal:
        return portal.call(call)


async def _execute(
    notebook: Any,
    source: Path,
    target: Path,
    env: Mapping[str, str],
    timeout_s: float | None,
    on_cell: Callable[[int, int], object] | None,
) -> None:
    """Run every code cell of `notebook` in place."""
    from agentfarm.notebook._kernel import open_kernel

    cells = [
        (index, cell)
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]
    report = on_cell or (lambda done, total: None)
    report(0, len(cells))
    for _, cell in cells:
        cell.outputs, cell.execution_count = [], None
    # Saved before the kernel starts, so that an unwritable folder costs no run.
    _write(notebook, target)
    # Charts as data: drawn by JupyterLab without trust in scripts, and small.
    variables = {"PLOTLY_RENDERER": "plotly_mimetype", **env}
    async with open_kernel(variables, source.parent, timeout_s) as kernel:
        client = kernel.client_for(notebook)
        for number, (index, cell) in enumerate(cells, start=1):
            cause = await _execute_cell(client, kernel, index)
            if cause is not None:
                first_line = cell.source.strip().splitlines()[0]
                raise NotebookError(
                    f"Cell {number} of {source.name} ({first_line}) failed: {cause}.",
                    remedy=f"What ran until then is in {target}.",
                    cell_number=number,
                    ipynb=str(target),
                )
            report(number, len(cells))


async def _execute_cell(
    client: NotebookClient, kernel: Kernel, index: int
) -> str | None:
    """Run one cell; returns why it failed, or None."""
    from nbclient.exceptions import (
        CellExecutionError,
        CellTimeoutError,
        DeadKernelError,
    )

    try:
        await client.async_execute_cell(client.nb.cells[index], index)
    except CellExecutionError as error:
        return f"{error.ename}: {error.evalue}".rstrip(". ")
    except CellTimeoutError:
        kernel.stuck = True
        return f"it took longer than {kernel.timeout_s:g} s"
    except DeadKernelError:
        await kernel.raise_if_cancelled()
        return f"its kernel died. {kernel.last_words()}".rstrip(". ")
    return None


def _paths(source: Path, output_dir: Path) -> tuple[Path, Path]:
    """The notebook and its executed copy, the first as an absolute path."""
    target = output_dir / source.name
    if target.resolve() == source.resolve():
        raise NotebookError(
            f"Executing {source} would overwrite it.",
            remedy="Choose an output folder other than the notebook's.",
        )
    return source.resolve(), target


def _read(source: Path) -> Any:
    import nbformat
    from nbformat.reader import NotJSONError

    try:
        # nbformat says that it is typed, but these two functions are not.
        return nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise NotebookError(
            f"The notebook {source} cannot be read: {error.strerror}.",
            remedy="Check the path.",
        ) from None
    except (NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise NotebookError(
            f"{source} is not a Jupyter notebook: {str(error)[:200]}.",
            remedy="Open it in JupyterLab and save it again.",
        ) from None


def _write(notebook: Any, target: Path) -> None:
    import nbformat

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise NotebookError(
            f"The notebook cannot be saved as {target}: {error.strerror}.",
            remedy="Choose an output folder that can be written.",
        ) from None


def _save(notebook: Any, target: Path, *, html: bool) -> Path | None:
    _drop_widgets(notebook)
    _write(notebook, target)
    if not html:
        return None
    from agentfarm.notebook._page import to_page

    page = target.with_suffix(".html")
    page.write_text(to_page(notebook, title=target.stem), encoding="utf-8")
    return page


def _drop_widgets(notebook: Any) -> None:
    """Leave out widgets: without their kernel they show how they began, not ended.

    A finished progress bar would say 0 %.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if _WIDGET not in output.get("data", {})
            ]
    notebook.metadata.pop("widgets", None)
