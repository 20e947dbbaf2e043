"""Notebooks under nbval: they run against a recorded session, in a home of their own.

``pytest --nbval-lax notebooks`` needs no more than this. The kernels inherit the
environment of pytest, so it is set here, once, before any kernel starts.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

CASSETTE = Path(__file__).parent / "tests" / "notebooks" / "cassettes" / "smoke.jsonl"
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
    config.stash[HOME] = tempfile.mkdtemp(prefix="agentfarm-nbval-")
    os.environ |= {
        "AGENTFARM_HOME": config.stash[HOME],
        "AGENTFARM_DEFAULT_MODEL": "replay",
        "AGENTFARM_CASSETTE": str(CASSETTE),
        # Figures as data: nothing is opened in a browser, and outputs stay small.
        "PLOTLY_RENDERER": "plotly_mimetype",
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the notebooks' home."""
    if HOME in config.stash:
        shutil.rmtree(config.stash[HOME], ignore_errors=True)
