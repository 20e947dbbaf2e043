"""`run` and `run_sync` in a real Jupyter kernel."""

import anyio
import nbformat
import pytest
from nbclient import NotebookClient

from agentfarm.llm.testing import Reply

SETUP = """
import asyncio
from anyio.from_thread import start_blocking_portal
from agentfarm import evals, load_settings
from agentfarm.evals import Suite, Task, exact
from agentfarm.llm.testing import Reply, StubServer

door = start_blocking_portal()
portal = door.__enter__()
server = portal.wrap_async_context_manager(
    StubServer(default=Reply("<b>1</b>", first_delay_s=0.02))
)
stub = server.__enter__()
settings = load_settings(
    default_model="stub",
    models=({"name": "stub", "provider": "openai", "url": stub.url, "model": "m"},),
)
suite = Suite(
    name="say",
    tasks=tuple(
        Task(id=f"t{n}", prompt="?", target="1", scorer=exact()) for n in range(10)
    ),
)
before = asyncio.Task, asyncio.run, asyncio.get_running_loop()
"""
AWAIT = """
gaps = []

async def tick():
    last = loop_time()
    while not done:
        await asyncio.sleep(0.01)
        gaps.append(loop_time() - last)
        last = loop_time()

loop_time, done = asyncio.get_running_loop().time, []
async with asyncio.TaskGroup() as group:
    group.create_task(tick())
    first = await evals.run(suite, settings=settings)
    done.append(1)
first
"""
SYNC = """
second = evals.run_sync(suite, settings=settings)
second
"""
AFTER = """
assert before == (asyncio.Task, asyncio.run, asyncio.get_running_loop())
assert first.run.status == second.run.status == "completed"
assert len(first.samples) == len(second.samples) == 10
assert len(gaps) > 5 and max(gaps) < 1.0, max(gaps)
assert len(first.samples_frame()) == 10
server.__exit__(None, None, None)
door.__exit__(None, None, None)
print("fine")
"""


@pytest.fixture
def executed():
    cells = [nbformat.v4.new_code_cell(code) for code in (SETUP, AWAIT, SYNC, AFTER)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, timeout=60, kernel_name="python3")
    return client.execute()


def outputs(cell, kind):
    return [output for output in cell.outputs if output.output_type == kind]


# Warnings of the Jupyter packages themselves, while a kernel is started.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_both_run_in_a_kernel_and_leave_it_as_it_was(executed):
    setup, awaited, synced, after = executed.cells
    assert after.outputs[-1].text == "fine\n"
    for cell in (setup, awaited, synced, after):
        assert not [o for o in outputs(cell, "stream") if o.name == "stderr"], cell
    for cell in (awaited, synced):
        bars = [
            output
            for output in outputs(cell, "display_data")
            if "application/vnd.jupyter.widget-view+json" in output.data
        ]
        assert len(bars) == 1
        page = outputs(cell, "execute_result")[0].data["text/html"]
        assert "&lt;b&gt;1&lt;/b&gt;" in page
        assert "<b>1</b>" not in page


SILENT = Reply("never", first_delay_s=60.0)
LATER = """
from agentfarm import evals, load_settings
from agentfarm.store import Store

settings = load_settings(
    default_model="stub",
    models=({"name": "stub", "provider": "openai", "url": URL, "model": "m"},),
)
with Store.open(settings.store_url, read_only=True) as store:
    kept = evals.load_run(store)
print(kept.run.status, len(kept.samples))
"""
CALLS = {
    "await evals.run('smoke', settings=settings, concurrency=1)": "CancelledError",
    "evals.run_sync('smoke', settings=settings, concurrency=1)": "KeyboardInterrupt",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_interrupting_the_kernel_interrupts_the_run(stub):
    stub.queue.extend(["1", "2", SILENT] * len(CALLS))
    setup = f"URL = {stub.url!r}\n" + LATER.partition("with")[0]
    cells = [
        nbformat.v4.new_code_cell(code)
        for call in CALLS
        for code in (setup, call, LATER)
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=60, kernel_name="python3", allow_errors=True
    )

    async def interrupt():
        for requests in (3, 6):
            with anyio.fail_after(60):
                while len(stub.chats) < requests:  # noqa: ASYNC110 - in another loop
                    await anyio.sleep(0.01)
            await client.km.interrupt_kernel()

    async with anyio.create_task_group() as group:
        group.start_soon(interrupt)
        await client.async_execute()
    for start, name in zip((1, 4), CALLS.values(), strict=True):
        waited, later = cells[start : start + 2]
        assert [error.ename for error in outputs(waited, "error")] == [name]
        assert outputs(later, "stream")[0].text == "interrupted 2\n"
