import ast
import asyncio
import json
import os
import sys
import time
from pathlib import Path

import anyio
import nbformat
import pytest

from agentfarm.errors import NotebookError
from agentfarm.notebook import execute_notebook, execute_notebook_sync


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook of these code cells; get its path."""

    def write(*sources: str) -> Path:
        book = nbformat.v4.new_notebook()
        book.cells = [nbformat.v4.new_markdown_cell("# Why")]
        book.cells += [nbformat.v4.new_code_cell(source) for source in sources]
        # A kernel that cannot exist: this Python runs it all the same.
        book.metadata.kernelspec = {"name": "no-such-kernel", "display_name": "x"}
        path = tmp_path / "source" / "book.ipynb"
        path.parent.mkdir()
        nbformat.write(book, path)
        return path

    return write


def outputs(path, number):
    """What the code cell of this number, counted from 1, shows."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return cells[number - 1].outputs


def alive(pid):
    """Whether the process runs; one that has ended may wait to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def gone(pid):
    with anyio.fail_after(10):
        while alive(pid):  # noqa: ASYNC110 - a process sends no event
            await anyio.sleep(0.02)


async def test_runs_every_cell_in_this_python_and_keeps_what_it_shows(
    notebook, tmp_path
):
    path = notebook(
        "import os, sys\nsys.executable, os.getcwd(), os.environ['ANSWER']",
        "   ",
        "await __import__('asyncio').sleep(0)\nprint('<i>so</i>')",
    )
    before, seen = path.read_bytes(), []
    report = await execute_notebook(
        path,
        output_dir=tmp_path / "deep" / "out",
        env={"ANSWER": "42"},
        on_cell=lambda done, total: seen.append((done, total)),
    )
    assert report.ipynb == tmp_path / "deep" / "out" / "book.ipynb"
    [shown] = outputs(report.ipynb, 1)
    told = ast.literal_eval(shown.data["text/plain"])
    assert told == (sys.executable, str(path.parent), "42")
    assert outputs(report.ipynb, 3)[0].text == "<i>so</i>\n"
    page = report.html.read_text(encoding="utf-8")
    assert "&lt;i&gt;so&lt;/i&gt;" in page
    assert "<title>book</title>" in page
    assert len(page) < 1_000_000  # no chart, so no plotly.js
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert report.duration_s > 0
    assert path.read_bytes() == before
    assert "ANSWER" not in os.environ


async def test_html_is_left_out_on_request(notebook, tmp_path):
    report = await execute_notebook(notebook("1"), output_dir=tmp_path, html=False)
    assert report.html is None
    assert not (tmp_path / "book.html").exists()


async def test_charts_are_data_in_the_notebook_and_drawn_once_in_the_page(
    notebook, tmp_path
):
    path = notebook(
        "import plotly.graph_objects as go",
        "go.Figure(go.Scatter(y=[1, 2]))",
        "from IPython.display import display\ndisplay(go.Figure(go.Bar(y=[3])))",
    )
    report = await execute_notebook(path, output_dir=tmp_path)
    [chart] = outputs(report.ipynb, 2)
    assert "application/vnd.plotly.v1+json" in chart.data
    assert "text/html" not in chart.data
    assert report.ipynb.stat().st_size < 200_000
    page = report.html.read_text(encoding="utf-8")
    assert page.count('id="chart-1"') == page.count('id="chart-2"') == 1
    assert page.count("plotly.js v") == 1


async def test_a_progress_bar_is_left_out_since_it_would_say_0(notebook, tmp_path):
    path = notebook("from tqdm.auto import tqdm\nlist(tqdm(range(3)))")
    report = await execute_notebook(path, output_dir=tmp_path)
    [shown] = outputs(report.ipynb, 1)
    assert shown.data["text/plain"] == "[0, 1, 2]"
    assert "widgets" not in nbformat.read(report.ipynb, 4).metadata
    assert "0/3 [" not in report.html.read_text(encoding="utf-8")


async def test_a_failing_cell_is_named_and_what_ran_is_saved(notebook, tmp_path):
    path = notebook("print('before')", "ratio = 1 / 0  # oh\nratio", "print('never')")
    with pytest.raises(NotebookError) as caught:
        await execute_notebook(path, output_dir=tmp_path / "out")
    error = caught.value
    saved = tmp_path / "out" / "book.ipynb"
    assert "Cell 2 of book.ipynb (ratio = 1 / 0  # oh)" in str(error)
    assert "ZeroDivisionError: division by zero." in str(error)
    assert str(saved) in str(error)
    assert (error.cell_number, error.ipynb) == (2, str(saved))
    assert outputs(saved, 1)[0].text == "before\n"
    assert outputs(saved, 2)[0].ename == "ZeroDivisionError"
    assert outputs(saved, 3) == []
    assert "ZeroDivisionError" in saved.with_suffix(".html").read_text("utf-8")


async def test_outputs_of_an_earlier_run_do_not_survive_in_a_failed_one(
    notebook, tmp_path
):
    path = notebook("raise SystemError", "'stale'")
    book = nbformat.read(path, 4)
    book.cells[2].outputs = [nbformat.v4.new_output("stream", text="stale result")]
    nbformat.write(book, path)
    with pytest.raises(NotebookError, match="SystemError"):
        await execute_notebook(path, output_dir=tmp_path)
    assert "stale result" not in (tmp_path / "book.ipynb").read_text("utf-8")


async def test_a_cell_that_takes_too_long_ends_with_its_kernel(notebook, tmp_path):
    path = notebook(
        "import os; print(os.getpid())", "import time\nwhile True: time.sleep(1)"
    )
    started = time.perf_counter()
    with pytest.raises(NotebookError, match=r"Cell 2 .* it took longer than 3 s"):
        await execute_notebook(path, output_dir=tmp_path, html=False, timeout_s=3)
    assert time.perf_counter() - started < 30
    await gone(int(outputs(tmp_path / "book.ipynb", 1)[0].text))


async def test_a_dead_kernel_leaves_its_last_words(notebook, tmp_path):
    path = notebook(
        "import os, sys\nos.write(2, b'out of cheese')\nos.kill(os.getpid(), 9)"
    )
    with pytest.raises(NotebookError, match=r"kernel died\. out of cheese"):
        await execute_notebook(path, output_dir=tmp_path, html=False)


async def test_cancelling_ends_the_kernel_and_saves(notebook, tmp_path):
    path = notebook(
        "import os; print(os.getpid())", "import time\ntime.sleep(600)", "1"
    )
    begun = anyio.Event()

    async def execute():
        await execute_notebook(
            path,
            output_dir=tmp_path,
            html=False,
            on_cell=lambda done, total: begun.set() if done else None,
        )

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(execute)
            await begun.wait()
            group.cancel_scope.cancel()
    pid = int(outputs(tmp_path / "book.ipynb", 1)[0].text)
    await gone(pid)


async def test_cancelling_a_plain_task_cancels_it(notebook, tmp_path):
    path = notebook("1", "import time\ntime.sleep(600)")
    begun = anyio.Event()
    call = execute_notebook(
        path,
        output_dir=tmp_path,
        html=False,
        on_cell=lambda done, total: begun.set() if done else None,
    )
    task = asyncio.ensure_future(call)
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_sync_twin_works_while_a_loop_runs(notebook, tmp_path):
    report = execute_notebook_sync(notebook("6 * 7"), output_dir=tmp_path, html=False)
    assert outputs(report.ipynb, 1)[0].data["text/plain"] == "42"


async def test_the_notebook_is_never_overwritten(notebook):
    path = notebook("1")
    with pytest.raises(NotebookError, match="overwrite"):
        await execute_notebook(path, output_dir=path.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("no JSON", "not a Jupyter notebook")],
)
async def test_what_is_no_notebook_is_named(tmp_path, content, message):
    path = tmp_path / "odd.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NotebookError, match=message):
        await execute_notebook(path, output_dir=tmp_path / "out")


async def test_an_unwritable_folder_costs_no_run(notebook, tmp_path):
    (tmp_path / "file").write_text("")
    path = notebook("open('ran', 'w').close()")
    with pytest.raises(NotebookError, match="cannot be saved"):
        await execute_notebook(path, output_dir=tmp_path / "file")
    assert not (path.parent / "ran").exists()


async def test_a_chart_in_the_page_cannot_break_out_of_its_script(notebook, tmp_path):
    path = notebook(
        "import plotly.graph_objects as go",
        "go.Figure(layout={'title': {'text': '</script><script>alert(1)</script>'}})",
    )
    report = await execute_notebook(path, output_dir=tmp_path)
    figure = outputs(report.ipynb, 2)[0].data["application/vnd.plotly.v1+json"]
    assert "alert(1)" in json.dumps(figure)
    page = report.html.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page.split("</head>")[1]
