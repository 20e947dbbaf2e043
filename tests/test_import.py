"""Importing must cost nothing and do nothing."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "chromadb",
    "docker",
    "httpx",
    "pandas",
    "plotly",
    "pydantic",
    "rich",
    "sqlalchemy",
    "torch",
    "typer",
    "xllamacpp",
}


def loaded_after(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_alone_loads_nothing_heavy():
    assert not loaded_after("import agentfarm") & HEAVY


@pytest.mark.parametrize(
    "statement",
    [
        "from agentfarm import Settings, EventBus, AgentFarmError, open_runtime",
        "from agentfarm.monitoring import GPUMonitor, PerformanceTracker",
        "import agentfarm.evals, agentfarm.llm, agentfarm.store",
        "import agentfarm.cli",
    ],
)
def test_services_load_no_frames_figures_or_models(statement):
    unwanted = {"pandas", "plotly", "torch", "xllamacpp", "docker", "chromadb"}
    unwanted |= {"pynvml"}
    assert not loaded_after(statement) & unwanted


def test_import_writes_nothing(tmp_path):
    home = tmp_path / "home"
    subprocess.run(
        [sys.executable, "-c", "import agentfarm.cli, agentfarm.runtime"],
        check=True,
        env={"AGENTFARM_HOME": str(home), "HOME": str(tmp_path), "PATH": "/usr/bin"},
        cwd=tmp_path,
    )
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_network_and_names_every_command():
    done = subprocess.run(
        [sys.executable, "-m", "agentfarm", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("eval", "models", "llm", "notebook", "doctor", "gpu", "demo"):
        assert command in done.stdout
