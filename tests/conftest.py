"""What every test may ask for: a private home, settings, and parts of the machine."""

import os
import shutil

import pytest

from agentfarm.config import Settings, load_settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No test reads or writes the state of the person who runs it."""
    for name in list(os.environ):
        if name.startswith("AGENTFARM_") and name not in {
            "AGENTFARM_REQUIRE",
            "AGENTFARM_TEST_POSTGRES",
        }:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTFARM_HOME", str(tmp_path / "home"))


@pytest.fixture
def settings(tmp_path) -> Settings:
    return load_settings(home=tmp_path / "home")


def missing(part: str, remedy: str) -> None:
    """Skip for a missing part, or fail where nothing may be missing."""
    reason = f"{part} is missing: {remedy}"
    if os.environ.get("AGENTFARM_REQUIRE") == "all":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def require():
    """Call with a part and its remedy when it is found missing."""
    return missing


@pytest.fixture
def chromium() -> str:
    """Path of a Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    missing("Chromium", "apt-get install chromium")
    raise AssertionError
