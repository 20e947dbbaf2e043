"""How tests run notebooks: executed into a folder of the test, with its own home."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

HERE = Path(__file__).parent


@pytest.fixture
def cassette() -> Path:
    """The recorded session of the suite `smoke`."""
    return HERE / "cassettes" / "smoke.jsonl"


@pytest.fixture
def evaluation() -> Path:
    """The notebook that evaluates the default model."""
    return HERE.parents[1] / "notebooks" / "01_agent_evaluation.ipynb"


@pytest.fixture
def kernel_env(tmp_path, cassette) -> dict[str, str]:
    """Variables of a kernel that keeps to the test's folder and replays."""
    return {
        "AGENTFARM_HOME": str(tmp_path / "home"),
        "AGENTFARM_DEFAULT_MODEL": "replay",
        "AGENTFARM_CASSETTE": str(cassette),
    }


@pytest.fixture
def shown():
    """Call with an executed notebook; get what each cell shows, by cell id."""

    def read(path: Path) -> dict[str, list]:
        cells = nbformat.read(path, as_version=4).cells
        return {cell.id: cell.get("outputs", []) for cell in cells}

    return read
