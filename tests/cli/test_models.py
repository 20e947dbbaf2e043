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
