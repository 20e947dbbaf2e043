"""Notebooks under nbval: they run against a recorded session, in a home of their own.

``pytest --nbval-lax notebooks`` needs no more than this. The kernels inherit the
environment of pytest, so it is set here, once, before any kernel starts.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest

ROOT = Path(__file__).parent
SESSIONS = (
    ROOT / "tests" / "notebooks" / "cassettes" / "smoke.jsonl",
    ROOT / "notebooks" / "sessions" / "02_workflow.jsonl",
)
KEPT = frozenset({"AGENTFARM_REQUIRE", "AGENTFARM_TEST_POSTGRES"})
HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the environment of the kernels, if there will be any."""
    if not (config.getoption("nbval", False) or config.getoption("nbval_lax", False)):
        return
    # The cells of a notebook are tests that need each other, in their order.
    config.option.randomly_reorganize = False
    for name in list(os.environ):
        if name.startswith("AGENTFARM_") and name not in KEPT:
            del os.environ[name]
    home = config.stash[HOME] = tempfile.mkdtemp(prefix="agentfarm-nbval-")
    cassette = Path(home) / "sessions.jsonl"
    cassette.write_bytes(merged(SESSIONS))
    os.environ |= {
        "AGENTFARM_HOME": home,
        "AGENTFARM_DEFAULT_MODEL": "replay",
        "AGENTFARM_CASSETTE": str(cassette),
        # Figures as data: nothing is opened in a browser, and outputs stay small.
        "PLOTLY_RENDERER": "plotly_mimetype",
    }


def merged(cassettes: Iterable[Path]) -> bytes:
    """One cassette with the answers of several; each begins with a header."""
    headers, answers = [], []
    for path in cassettes:
        header, *lines = path.read_bytes().splitlines(keepends=True)
        headers.append(header)
        answers += lines
    return b"".join([headers[0], *answers])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip a notebook whose agents would have nowhere to run code."""
    agents = [item for item in items if item.path.name == "02_workflow.ipynb"]
    if agents and (reason := without_sandbox()):
        if os.environ.get("AGENTFARM_REQUIRE") == "all":
            raise pytest.UsageError(reason)
        for item in agents:
            item.add_marker(pytest.mark.skip(reason=reason))


def without_sandbox() -> str:
    """Why this machine has no sandbox; `""` if it has one."""
    from agentfarm.errors import SandboxUnavailable
    from agentfarm.tools.sandbox import open_sandbox

    async def look() -> str:
        try:
            sandbox = await open_sandbox()
        except SandboxUnavailable as error:
            return str(error)
        await sandbox.aclose()
        return ""

    return anyio.run(look)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the notebooks' home."""
    if HOME in config.stash:
        shutil.rmtree(config.stash[HOME], ignore_errors=True)
