"""`agentfarm sandbox`, on the real engine and the real image."""

import shutil
import time

import pytest

from agentfarm.containers import labels
from agentfarm.tools.sandbox import Limits


@pytest.fixture
def no_sandbox(monkeypatch, tmp_path):
    """A machine without an engine and without bubblewrap."""
    monkeypatch.setenv("AGENTFARM_DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def docker(sandbox_image, monkeypatch):
    """The sandbox is Docker's."""
    monkeypatch.setenv("AGENTFARM_SANDBOX__BACKEND", "docker")


# run


@pytest.mark.docker
async def test_run_shows_both_streams_and_ends_with_the_exit_status(cli, docker):
    source = "import sys; print(6 * 7); print('careful', file=sys.stderr); sys.exit(3)"
    done = await cli("sandbox", "run", "--python", source)
    assert (done.code, done.out) == (3, "42\n")
    assert done.err.splitlines()[0] == "careful"


@pytest.mark.docker
async def test_run_leaves_the_commands_own_options_to_it(cli, docker):
    done = await cli("sandbox", "run", "sh", "-c", "echo $0 $1", "--json", "--out")
    assert (done.code, done.out) == (0, "--json --out\n")


@pytest.mark.docker
async def test_run_carries_files_in_and_out(cli, docker, tmp_path):
    (tmp_path / "numbers.txt").write_text("1 2 3")
    (tmp_path / "second").write_text("4")
    done = await cli(
        *("sandbox", "run", "--file", "numbers.txt", "--file", "b=second"),
        *("--out", "made", "--", "sh", "-c", "cat numbers.txt b > all"),
    )
    assert done.code == 0, done.err
    assert (tmp_path / "made" / "all").read_text() == "1 2 34"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["all"]


@pytest.mark.docker
async def test_run_names_files_that_nobody_asked_for(cli, docker):
    done = await cli("sandbox", "run", "--", "touch", "left")
    assert done.code == 0
    assert "left" in done.err
    assert "--out" in done.err


@pytest.mark.docker
async def test_run_ends_with_124_after_a_timeout(cli, docker):
    done = await cli("sandbox", "run", "--timeout", "1", "--", "sleep", "100")
    assert done.code == 124
    assert "timeout" in done.err


@pytest.mark.docker
async def test_run_says_when_memory_ran_out(cli, docker):
    done = await cli(
        "sandbox", "run", "--memory", "64", "--python", "x = b'x' * 2 ** 28; print(1)"
    )
    assert done.code == 137
    assert "--memory" in done.err


@pytest.mark.docker
async def test_run_as_json_is_the_whole_result(cli, docker):
    done = await cli("sandbox", "run", "--json", "--", "sh", "-c", "echo x > f; exit 5")
    assert done.code == 5
    assert done.json["exit_code"] == 5
    assert done.json["files"] == {"f": 2}
    assert done.json["backend"] == "docker"


async def test_run_needs_exactly_one_thing_to_run(cli):
    assert (await cli("sandbox", "run")).code == 2
    assert (await cli("sandbox", "run", "--python", "1", "--", "ls")).code == 2


async def test_run_is_refused_without_a_sandbox(cli, no_sandbox, tmp_path):
    done = await cli("sandbox", "run", "--", "touch", str(tmp_path / "escaped"))
    assert done.code == 1
    assert "What to do:" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "escaped").exists()


# build


@pytest.mark.docker
async def test_build_does_nothing_where_the_image_is_up_to_date(cli, sandbox_image):
    done = await cli("sandbox", "build")
    assert done.code == 0, done.err
    assert f"{sandbox_image} is up to date" in done.out
    done = await cli("sandbox", "build", "--json")
    assert done.json["built"] is False
    assert done.json["image"] == sandbox_image


async def test_build_without_an_engine_says_what_to_install(cli, no_sandbox):
    done = await cli("sandbox", "build")
    assert done.code == 1
    assert "docker.io" in done.err
    assert "Traceback" not in done.err


# reap


@pytest.mark.docker
async def test_reap_removes_what_nobody_owns_any_more(cli, engine, sandbox_image):
    marks = labels("sandbox", lifetime_s=3600)
    expired = marks | {"agentfarm.expires": str(int(time.time()) - 1)}
    with engine.calls("make a test's containers") as api:
        ids = [
            api.create_container(sandbox_image, ["true"], labels=label)["Id"]
            for label in (expired, marks)
        ]
        try:
            done = await cli("sandbox", "reap")
            left = {item["Id"] for item in api.containers(all=True)}
        finally:
            for id_ in ids:
                engine.remove_container(id_)
    assert done.code == 0, done.err
    # Another AgentFarm that starts in this moment may have been faster.
    assert "Removed: containers" in done.out or "nothing to remove" in done.out
    assert ids[0] not in left
    assert ids[1] in left


@pytest.mark.docker
async def test_reap_as_json_counts(cli, engine):
    counts = (await cli("sandbox", "reap", "--json")).json
    assert set(counts) == {"containers", "volumes", "networks"}


# status


@pytest.mark.docker
async def test_status_tells_what_a_run_would_get(
    cli, engine, sandbox_image, monkeypatch
):
    monkeypatch.setenv("AGENTFARM_SANDBOX__LIMITS__PIDS", "77")
    marks = labels("status-test", lifetime_s=60)
    with engine.calls("make a test's container") as api:
        own = api.create_container(sandbox_image, ["true"], labels=marks)["Id"]
        try:
            state = (await cli("sandbox", "status", "--json")).json
            shown = await cli("sandbox", "status")
        finally:
            engine.remove_container(own)
    assert state["backend"] == "docker"
    assert state["docker"]["engine"]["version"] == engine.info().version
    assert state["docker"]["image"]["image"] == sandbox_image
    assert state["limits"]["pids"] == 77
    assert state["limits"]["memory_bytes"] == Limits().memory_bytes
    mine = next(item for item in state["docker"]["owned"] if item["id"] == own)
    assert mine["kind"] == "status-test"
    assert mine["owner_alive"] is True
    for text in ("512 MiB", "open files", "77", "60 s", "status-test", sandbox_image):
        assert text in shown.out


async def test_status_without_a_sandbox_says_that_code_is_refused(cli, no_sandbox):
    done = await cli("sandbox", "status")
    assert done.code == 0, done.err
    assert "refused" in done.out
    state = (await cli("sandbox", "status", "--json")).json
    assert state["backend"] is None
    assert "none.sock" in state["docker"]["error"]
    assert state["bubblewrap"]["version"] is None


@pytest.mark.bubblewrap
async def test_status_takes_bubblewrap_where_there_is_no_engine(
    cli, monkeypatch, tmp_path, require
):
    if shutil.which("bwrap") is None:
        require("bubblewrap", "apt-get install bubblewrap")
    monkeypatch.setenv("AGENTFARM_DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    state = (await cli("sandbox", "status", "--json")).json
    if state["bubblewrap"]["error"]:
        require("a working bubblewrap", state["bubblewrap"]["error"])
    assert state["backend"] == "bubblewrap"
    assert state["bubblewrap"]["version"]
