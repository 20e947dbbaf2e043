"""Running an evaluation in a kernel leaves its event loop as it was, and alive."""

import nbformat
import pytest

from agentfarm.errors import NotebookError
from agentfarm.notebook import execute_notebook

SNAPSHOT = """
import asyncio, asyncio.tasks, asyncio.events, asyncio.base_events

def names():
    modules = (asyncio, asyncio.tasks, asyncio.events, asyncio.runners)
    return {(m.__name__, n): vars(m)[n] for m in modules for n in sorted(vars(m))}

def loop_state():
    loop = asyncio.get_running_loop()
    members = ("run_until_complete", "run_forever", "_run_once", "create_task")
    return [type(loop), *(getattr(type(loop), name) for name in members),
            sorted(vars(loop)), loop.get_task_factory(), loop.get_exception_handler(),
            asyncio.get_event_loop_policy()]

before, loop_before = names(), loop_state()
task_class, run_function = asyncio.Task, asyncio.run
"""
UNTOUCHED = """
changed = [name for name, value in names().items() if before.get(name) is not value]
assert changed == [], changed
assert asyncio.Task is task_class
assert asyncio.run is run_function
assert loop_state() == loop_before
"""
OPEN = """
from agentfarm import evals, open_runtime
farm = await open_runtime()
warm = await evals.run("smoke", runtime=farm, limit=1)
"""
# 10 ms apart; the cassette answers at its recorded speed, so the run takes seconds.
RUN_WITH_TICKER = """
loop, ticks = asyncio.get_running_loop(), []

async def tick():
    while True:
        ticks.append(loop.time())
        await asyncio.sleep(0.01)

ticker = loop.create_task(tick())
began = loop.time()
run = await evals.run("smoke", runtime=farm, concurrency=20)
took_s = loop.time() - began
ticker.cancel()
gaps = [later - earlier for earlier, later in zip(ticks, ticks[1:])]
print(f"{len(ticks)} ticks in {took_s:.2f} s, longest gap {max(gaps) * 1e3:.0f} ms")
assert len(run.samples) == 20
assert took_s > 0.5, took_s
assert len(ticks) > took_s * 100 * 0.3, len(ticks)
assert max(gaps) < 0.5, max(gaps)
"""
RUN_SYNC = """
twin = evals.run_sync("smoke", limit=3)
assert len(twin.samples) == 3
"""
STILL_RUNS = """
await farm.aclose()
assert await asyncio.wait_for(asyncio.sleep(0, "alive"), 1) == "alive"
"""


@pytest.fixture
def notebook(tmp_path):
    def write(*sources):
        book = nbformat.v4.new_notebook()
        book.cells = [nbformat.v4.new_code_cell(source) for source in sources]
        path = tmp_path / "source" / "loop.ipynb"
        path.parent.mkdir()
        nbformat.write(book, path)
        return path

    return write


async def test_run_and_its_sync_twin_leave_the_loop_alone(
    notebook, tmp_path, kernel_env
):
    path = notebook(
        SNAPSHOT, OPEN, RUN_WITH_TICKER, UNTOUCHED, RUN_SYNC, UNTOUCHED, STILL_RUNS
    )
    await execute_notebook(
        path,
        output_dir=tmp_path / "out",
        html=False,
        env={**kernel_env, "AGENTFARM_CASSETTE_SPEED": "recorded"},
    )


async def test_a_patched_loop_would_be_noticed(notebook, tmp_path, kernel_env):
    path = notebook(SNAPSHOT, "asyncio.run = lambda main: None", UNTOUCHED)
    with pytest.raises(NotebookError, match=r"Cell 3 .*AssertionError: \[\('asyncio'"):
        await execute_notebook(
            path, output_dir=tmp_path / "out", html=False, env=kernel_env
        )
