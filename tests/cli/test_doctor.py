"""`agentfarm doctor`, and the command line as a whole."""

from agentfarm import __version__


async def test_doctor_names_every_part_with_its_remedy(cli, registered):
    rows = {row["part"]: row for row in (await cli("doctor", "--json")).json}
    for part in ("Python", "AGENTFARM_HOME", "Store", "llama.cpp", "Ollama", "GPU"):
        assert part in rows
    assert rows["Model stub"]["state"] == "ok"
    for row in rows.values():
        assert row["state"] in {"ok", "missing", "optional"}
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
