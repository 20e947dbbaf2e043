"""What every test may ask for: a private home, settings, and parts of the machine."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agentfarm.config import Settings, load_settings
from agentfarm.containers import Engine, labels
from agentfarm.errors import SandboxError

# A shell starts what it leaves in the background deaf to Ctrl-C, and the processes
# that tests start and interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The machine's Docker engine."""
    with Engine(os.environ.get("DOCKER_HOST")) as engine:
        try:
            engine.info()
        except SandboxError as error:
            missing("A Docker engine", str(error))
        yield engine


@pytest.fixture(scope="session")
def sandbox_image(engine) -> str:
    """Name of the sandbox image, built where it is missing or stale."""
    from agentfarm.tools.sandbox import SANDBOX_IMAGE, build_image, check_image

    state = check_image(engine)
    if state.stale or not state.present:
        try:
            build_image(engine)
        except SandboxError as error:
            missing("The sandbox image", str(error))
    return SANDBOX_IMAGE


@pytest.fixture
def no_leftovers(engine) -> Iterator[None]:
    """Nothing that this process makes from here on outlasts the test.

    Ask for it before the fixture that opens a sandbox, so that it looks after that
    one has closed. What other processes own is none of its business.
    """
    before = owned_here(engine)
    yield
    for kind, name in owned_here(engine) - before:
        if kind == "container":  # the engine may be about to remove it
            with suppress(SandboxError), engine.calls("wait for a removal") as api:
                api.wait(name, condition="removed", timeout=20)
    assert not owned_here(engine) - before


def owned_here(engine: Engine) -> set[tuple[str, str]]:
    """Type and id of what carries this process's label."""
    owner = labels("test", lifetime_s=1)["agentfarm.owner"]
    ours = {"label": f"agentfarm.owner={owner}"}
    with engine.calls("list what a test made") as api:
        return {
            *(("container", x["Id"]) for x in api.containers(all=True, filters=ours)),
            *(("volume", x["Name"]) for x in api.volumes(ours)["Volumes"] or ()),
            *(("network", x["Id"]) for x in api.networks(filters=ours)),
        }
