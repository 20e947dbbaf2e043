"""Record the sessions that the notebooks replay, and renew what nbval compares.

Run it after a change to the suite `smoke`, to how requests are made, to the agents'
prompts, or to the embedded model, and read the diff before you commit it. It needs
Docker and the sandbox image; with bubblewrap, the agents' session is recorded there,
too, for what its checks find is worded otherwise::

    python tests/notebooks/record_cassette.py [smoke] [workflow]
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import tempfile
from pathlib import Path

import nbformat
import workflow_session

from agentfarm import evals, load_settings, open_runtime
from agentfarm.llm import LLMRouter, RegisteredModel, build_router
from agentfarm.llm.providers import RecordingProvider
from agentfarm.llm.testing import FakeProvider
from agentfarm.notebook import execute_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from conftest import merged  # noqa: E402 - the one of the root folder

CASSETTE = Path(__file__).parent / "cassettes" / "smoke.jsonl"
SESSION = ROOT / "notebooks" / "sessions" / "02_workflow.jsonl"
MARK = "# NBVAL_CHECK_OUTPUT"


async def record(cassette: Path, home: Path) -> None:
    """Ask the embedded model the suite, one task at a time for calm timings."""
    settings = load_settings(home=home)
    async with open_runtime(settings) as farm:
        router = build_router(settings, bus=farm.bus, record=cassette)
        recorded = dataclasses.replace(farm, router=router)
        try:
            run = await evals.run(
                "smoke", model="embedded", runtime=recorded, concurrency=1
            )
        finally:
            await router.aclose()
    if run.errors or run.run.status != "completed":
        raise SystemExit(f"The run is not whole, so nothing was recorded: {run!r}")


async def record_workflow(cassette: Path, home: Path) -> None:
    """Let agents work with the answers of `workflow_session`, in each sandbox."""
    for backend in ("docker", "bubblewrap"):
        settings = load_settings(home=home / backend, sandbox={"backend": backend})
        model = RecordingProvider(FakeProvider(workflow_session.answer), cassette)
        async with open_runtime(settings) as farm:
            router = LLMRouter(
                [RegisteredModel(name="hand-written", provider=model)], bus=farm.bus
            )
            recorded = dataclasses.replace(farm, router=router)
            workflow = await recorded.workflow(
                home / backend / "work", model="hand-written"
            )
            result = await workflow.run(workflow_session.TASK)
        print(backend, result.headline)
        if not result.ok:
            raise SystemExit(f"Nothing was recorded: {result.summary}")


async def renew_outputs(path: Path, cassette: Path, home: Path) -> None:
    """Put the outputs that nbval compares into the notebook, and no others."""
    report = await execute_notebook(
        path,
        output_dir=home / "executed",
        html=False,
        env={
            "AGENTFARM_HOME": str(home / "replayed"),
            "AGENTFARM_DEFAULT_MODEL": "replay",
            "AGENTFARM_CASSETTE": str(cassette),
        },
    )
    notebook = nbformat.read(path, as_version=4)
    executed = nbformat.read(report.ipynb, as_version=4)
    for cell, shown in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            compared = MARK in cell.source
            cell.outputs = shown.outputs if compared else []
            # nbval refuses to compare with a cell that seems not to have run.
            cell.execution_count = shown.execution_count if compared else None
    nbformat.write(notebook, path)


async def main(names: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if "smoke" in names:
            await record(home / "smoke.jsonl", home / "recording")
            CASSETTE.write_bytes((home / "smoke.jsonl").read_bytes())
        if "workflow" in names:
            await record_workflow(home / "workflow.jsonl", home)
            SESSION.write_bytes((home / "workflow.jsonl").read_bytes())
        both = home / "both.jsonl"
        both.write_bytes(merged([CASSETTE, SESSION]))
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            await renew_outputs(path, both, home)
    print("Recorded; the notebooks' compared outputs are renewed.")


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        runner.run(main(set(sys.argv[1:]) or {"smoke", "workflow"}))
