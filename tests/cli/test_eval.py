"""`agentfarm eval`, and what a kill or an interrupt leaves."""

import signal
from pathlib import Path

import anyio
import pytest

from agentfarm.llm.testing import Fault, Reply


async def test_run_prints_json_with_every_sample(cli, registered, suite):
    done = await cli("eval", "run", suite, "--model", registered, "--json")
    assert done.code == 0, done.err
    run = done.json
    assert run["status"] == "completed"
    assert run["score"] == pytest.approx(5 / 6)
    assert [s["task"] for s in run["samples"]] == ["t1", "t2", "t3", "t4", "t5", "t6"]
    assert [s["score"] for s in run["samples"]] == [1, 1, 1, 1, 1, 0]
    for sample in run["samples"]:
        assert sample["latency_s"] >= sample["ttft_s"] > 0
        assert (sample["input_tokens"], sample["output_tokens"]) == (8, 1)


async def test_run_prints_a_table_and_progress_apart_from_it(cli, registered, suite):
    done = await cli("eval", "run", suite, "--model", registered)
    assert done.code == 0, done.err
    for word in ("t1", "score", "latency", "TTFT", "tok/s", "tokens"):
        assert word in done.out
    assert "6/6" in done.out
    assert "6/6" in done.err


async def test_list_and_show_find_the_run_again(cli, registered, suite):
    ran = (await cli("eval", "run", suite, "-m", registered, "--json")).json
    (listed,) = (await cli("eval", "list", "--json")).json
    assert listed["run_id"] == ran["run_id"]
    assert listed["score"] == pytest.approx(5 / 6)
    assert listed["samples"] == 6

    shown = (await cli("eval", "show", ran["run_id"], "--json")).json
    assert shown == ran
    assert (await cli("eval", "show", "--json")).json == ran
    assert ran["run_id"] in (await cli("eval", "list")).out


async def test_a_recorded_run_replays_without_the_server(
    cli, registered, suite, stub, monkeypatch
):
    cassette = str(cli.cwd / "session.jsonl")
    run = ("eval", "run", suite, "--json", "--model")
    recorded = (await cli(*run, registered, "--record", cassette)).json
    await stub.aclose()
    monkeypatch.setenv("AGENTFARM_CASSETTE", cassette)
    replayed = (await cli(*run, "replay")).json
    for field in ("output", "score", "ttft_s", "latency_s", "output_tokens"):
        recordings = {s["task"]: s[field] for s in recorded["samples"]}
        assert {s["task"]: s[field] for s in replayed["samples"]} == recordings


async def test_an_empty_home_says_what_to_do(cli):
    done = await cli("eval", "list")
    assert (done.code, "agentfarm eval run smoke" in done.out) == (0, True)
    assert (await cli("eval", "list", "--json")).json == []
    done = await cli("eval", "show")
    assert done.code == 1
    assert "no runs yet" in done.err
    assert "agentfarm eval run smoke" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "run", "smokey"], ["no suite 'smokey'", "smoke"]),
        (["eval", "run", "nothing.toml"], ["nothing.toml"]),
        (["eval", "run", "smoke", "--model", "stubb"], ["stubb", "stub"]),
        (["eval", "show", "2020"], ["2020"]),
    ],
)
async def test_a_wrong_name_is_one_clear_error(
    cli, registered, suite, arguments, words
):
    await cli("eval", "run", suite, "-m", registered)
    done = await cli(*arguments)
    assert done.code == 1
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


async def test_a_server_that_is_gone_is_named_with_the_remedy(cli, suite, stub):
    url = stub.url
    await cli("models", "add", "gone", "--provider", "ollama", "--url", url)
    await stub.aclose()
    done = await cli("eval", "run", suite, "--model", "gone")
    assert done.code == 1
    assert url in done.err
    assert "What to do:" in done.err
    assert "Traceback" not in done.err


async def test_the_list_of_runs_folds_no_status_in_80_columns(cli, registered, suite):
    path = Path(suite)
    path.write_text(path.read_text().replace('"say"', '"geography-of-the-world"', 1))
    await cli("eval", "run", suite, "--model", registered)
    cli.columns = 80
    lines = (await cli("eval", "list")).out.splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if "geography" in line)
    assert row.split()[-5:] == ["stub", "0.833", "6/6", "0", "completed"]


async def until_stored(cli, count: int) -> dict:
    """Wait for a run with this many finished samples."""
    with anyio.fail_after(60):
        while True:
            done = await cli("eval", "show", "--json")
            if done.code == 0 and len(done.json["samples"]) >= count:
                return done.json
            await anyio.sleep(0.05)


def stall_at(stub, prompt: str) -> None:
    """Answer every task but this one."""

    def say(request):
        text = request.body["messages"][-1]["content"]
        if text == prompt:
            return Reply("never", fault=Fault.STALL_FIRST_TOKEN)
        return text.split()[-1]

    stub._respond = say


async def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(
    cli, registered, suite, stub
):
    stall_at(stub, "say 4")
    process = cli.start(
        "eval", "run", suite, "--model", registered, "--concurrency", "1"
    )
    try:
        await until_stored(cli, 3)
        process.send_signal(signal.SIGINT)
        _, err = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=30))
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err.decode()
    shown = (await cli("eval", "show", "--json")).json
    assert shown["status"] == "interrupted"
    assert [s["task"] for s in shown["samples"]] == ["t1", "t2", "t3"]
    assert f"--resume {shown['run_id']}" in err.decode()

    stall_at(stub, "nothing")
    asked = len(stub.chats)
    done = await cli(
        *("eval", "run", suite, "-m", registered, "--concurrency", "1"),
        *("--resume", shown["run_id"], "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["run_id"] == shown["run_id"]
    assert len(done.json["samples"]) == 6
    assert len(stub.chats) - asked == 3

    again = await cli("eval", "run", suite, "--resume", shown["run_id"])
    assert (again.code, "nothing is left to ask" in again.err) == (1, True)
    assert (await cli("eval", "show", "--json")).json == done.json


async def test_kill_9_loses_no_finished_sample(cli, registered, suite, stub):
    stall_at(stub, "say 5")
    process = cli.start("eval", "run", suite, "-m", registered, "--concurrency", "1")
    try:
        before = await until_stored(cli, 4)
    finally:
        process.kill()
        process.communicate()
    shown = (await cli("eval", "show", "--json")).json
    assert shown["status"] == "interrupted"
    assert shown["samples"] == before["samples"]
    assert [s["task"] for s in shown["samples"]] == ["t1", "t2", "t3", "t4"]
