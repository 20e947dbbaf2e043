"""`agentfarm models`: list, add, remove, pull."""


async def test_list_shows_state_and_what_the_server_offers(cli, registered, stub):
    rows = {row["name"]: row for row in (await cli("models", "list", "--json")).json}
    assert rows["stub"]["ok"]
    assert rows["stub"]["host"] == stub.url
    assert rows["stub"]["offers"] == ["stub"]
    assert "embedded" in rows

    table = (await cli("models", "list")).out
    assert "stub" in table
    assert stub.url in table


async def test_a_model_whose_server_is_gone_is_listed_as_such(cli, registered, stub):
    await stub.aclose()
    rows = {row["name"]: row for row in (await cli("models", "list", "--json")).json}
    assert not rows["stub"]["ok"]
    assert rows["stub"]["detail"]


async def test_a_public_host_needs_the_opt_in_and_is_not_kept(cli):
    add = ("models", "add", "cloud", "--provider", "openai", "--url")
    done = await cli(*add, "https://llm.example.com")
    assert done.code == 1
    assert "local_only" in done.err
    assert "cloud" not in (await cli("models", "list")).out


async def test_a_refused_entry_leaves_those_of_its_name_alone(cli, registered, stub):
    add = ("models", "add", "stub", "--provider", "openai", "--url")
    assert (await cli(*add, "https://llm.example.com")).code == 1
    rows = {row["name"]: row for row in (await cli("models", "list", "--json")).json}
    assert rows["stub"]["host"] == stub.url


async def test_a_home_that_cannot_be_written_is_one_clear_error(cli, monkeypatch):
    (cli.cwd / "link").symlink_to("/proc/none")
    monkeypatch.setenv("AGENTFARM_HOME", str(cli.cwd / "link" / "home"))
    add = ("models", "add", "q", "--provider", "ollama", "--url")
    done = await cli(*add, "http://127.0.0.1:11434")
    assert done.code == 1
    assert "AGENTFARM_HOME" in done.err
    assert "Traceback" not in done.err


async def test_hosts_and_reasons_stay_readable_in_80_columns(cli, registered, stub):
    url = stub.url
    await stub.aclose()
    cli.columns = 80
    out = (await cli("models", "list")).out
    assert f" {url} " in out
    assert f"stub: Cannot connect to {url}" in out


async def test_remove_takes_it_out(cli, registered):
    assert (await cli("models", "remove", "stub")).code == 0
    names = [row["name"] for row in (await cli("models", "list", "--json")).json]
    assert "stub" not in names
    done = await cli("models", "remove", "stub")
    assert (done.code, "models list" in done.err) == (1, True)


async def test_pull_asks_the_ollama_server_and_says_how_to_go_on(cli, stub):
    done = await cli("models", "pull", "qwen3:8b", "--url", stub.url)
    assert done.code == 0, done.err
    (asked,) = [r for r in stub.requests if r.path == "/api/pull"]
    assert asked.body["model"] == "qwen3:8b"
    assert "models add qwen3:8b --provider ollama" in done.out


async def test_a_failed_pull_is_a_clear_error(cli, stub):
    stub.pull_progress = [{"status": "pulling"}, {"error": "file does not exist"}]
    done = await cli("models", "pull", "nope", "--url", stub.url)
    assert done.code == 1
    assert "file does not exist" in done.err
    assert "Traceback" not in done.err
