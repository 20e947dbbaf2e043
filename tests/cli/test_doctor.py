"""`agentfarm doctor`, and the command line as a whole."""

import socket

import pytest

from agentfarm import __version__
from agentfarm.containers import weaknesses


async def test_doctor_names_every_part_with_its_remedy(cli, registered):
    rows = {row["part"]: row for row in (await cli("doctor", "--json")).json}
    for part in ("Python", "AGENTFARM_HOME", "Store", "llama.cpp", "Ollama", "GPU"):
        assert part in rows
    assert rows["Model stub"]["state"] == "ok"
    for row in rows.values():
        assert row["state"] in {"ok", "missing", "optional", "warning"}
        assert row["remedy"] or row["state"] == "ok", row


async def test_doctor_fails_where_an_essential_part_is_missing(cli, monkeypatch):
    monkeypatch.setenv("AGENTFARM_EMBEDDED__GGUF", str(cli.cwd / "none.gguf"))
    done = await cli("doctor")
    assert done.code == 1
    assert "none.gguf" in done.out


async def test_doctor_finds_a_damaged_store(cli):
    home = cli.cwd / "home"
    home.mkdir()
    (home / "agentfarm.db").write_bytes(b"not a database, but a long text" * 100)
    rows = {row["part"]: row for row in (await cli("doctor", "--json")).json}
    assert rows["Store"]["state"] == "missing"
    assert "agentfarm.db" in rows["Store"]["detail"]


async def test_doctor_says_what_to_do_about_a_missing_cassette(cli, monkeypatch):
    monkeypatch.setenv("AGENTFARM_CASSETTE", "none.jsonl")
    rows = {row["part"]: row for row in (await cli("doctor", "--json")).json}
    assert rows["Model replay"]["state"] == "optional"
    assert "cassette" in rows["Model replay"]["remedy"]


async def test_doctor_is_friendly_where_there_is_no_sandbox(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("AGENTFARM_DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = await cli("doctor", "--json")
    assert done.code in {0, 1}, done.err
    rows = {row["part"]: row for row in done.json}
    for part in ("Docker", "bubblewrap", "Sandbox"):
        assert rows[part]["state"] == "optional"
        assert "apt-get install" in rows[part]["remedy"]
    assert "none.sock" in rows["Docker"]["detail"]
    assert "Sandbox image" not in rows


async def test_doctor_says_why_an_engine_cannot_be_used(cli, monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "e.sock"))  # nobody listens
        monkeypatch.setenv("AGENTFARM_DOCKER_HOST", f"unix://{tmp_path}/e.sock")
        rows = {row["part"]: row for row in (await cli("doctor", "--json")).json}
    assert rows["Docker"]["state"] == "optional"
    assert "e.sock" in rows["Docker"]["detail"]
    assert rows["Docker"]["remedy"]


@pytest.mark.docker
async def test_doctor_names_the_engine_its_weaknesses_and_the_image(
    cli, engine, sandbox_image
):
    rows = (await cli("doctor", "--json")).json
    info = engine.info()
    docker = next(row for row in rows if row["part"] == "Docker")
    assert docker["state"] == "ok"
    assert info.version in docker["detail"]
    found = {row["detail"] for row in rows if row["state"] == "warning"}
    assert {weakness.detail for weakness in weaknesses(info)} <= found
    image = next(row for row in rows if row["part"] == "Sandbox image")
    assert image["state"] == "ok"
    assert sandbox_image in image["detail"]
    sandbox = next(row for row in rows if row["part"] == "Sandbox")
    assert "docker" in sandbox["detail"]


@pytest.mark.docker
async def test_doctor_misses_an_image_of_the_users(cli, engine, monkeypatch):
    monkeypatch.setenv("AGENTFARM_SANDBOX__IMAGE", "agentfarm-none:1")
    rows = {row["part"]: row for row in (await cli("doctor", "--json")).json}
    assert rows["Sandbox image"]["state"] == "optional"
    assert rows["Sandbox image"]["remedy"] == "docker pull agentfarm-none:1"


async def test_the_version_is_the_packages(cli):
    assert (await cli("--version")).out.strip() == f"agentfarm {__version__}"


async def test_bad_settings_are_one_clear_error(cli, monkeypatch):
    monkeypatch.setenv("AGENTFARM_TRACKER_WINDOW", "many")
    done = await cli("eval", "list")
    assert done.code == 1
    assert "tracker_window" in done.err
    assert "Traceback" not in done.err


def test_a_closed_pipe_is_no_error(cli):
    process = cli.start("doctor", "--json")
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) != 0
    assert b"Traceback" not in err
