"""Record the session that the notebooks replay under nbval, and renew what nbval compares.

Run it after a change to the suite `smoke`, to how requests are made, or to the
embedded model, and read the diff of the notebook before you commit it::

    python tests/notebooks/record_cassette.py
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from pathlib import Path

import nbformat

from agentfarm import evals, load_settings, open_runtime
from agentfarm.llm import build_router
from agentfarm.notebook import execute_notebook

ROOT = Path(__file__).resolve().parents[2]
CASSETTE = Path(__file__).parent / "cassettes" / "smoke.jsonl"
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


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        fresh = home / "smoke.jsonl"
        await record(fresh, home / "recording")
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            await renew_outputs(path, fresh, home)
        CASSETTE.parent.mkdir(exist_ok=True)
        CASSETTE.write_bytes(fresh.read_bytes())
    print(f"Recorded {CASSETTE}; the notebooks' compared outputs are renewed.")


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        runner.run(main())
