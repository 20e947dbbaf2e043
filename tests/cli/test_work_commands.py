"""`agentfarm run` and `plan` on a real server and a real sandbox."""

import json
import signal
from pathlib import Path

import anyio
import pytest

from agentfarm.llm.testing import Fault, Reply, StubServer

PLAN = {
    "summary": "Write it.",
    "interface": False,
    "steps": [{"id": "1", "title": "Write calc.py", "detail": "", "depends_on": []}],
}
APPROVED = {"verdict": "approve", "findings": [], "summary": "Fine."}
WRITE = {
    "tool": "write_file",
    "arguments": {"path": "calc.py", "content": "def one():\n    return 1\n"},
}


def role(request) -> str:
    """Who asks, by what the system prompt is about."""
    system = request.body["messages"][0]["content"].lower()
    return next(name for name in ("planner", "reviewer", "executor") if name in system)


def team(request) -> str:
    """A model without native tools that plays every role."""
    asks = role(request)
    if asks == "planner":
        return json.dumps(PLAN)
    if asks == "reviewer":
        return json.dumps(APPROVED)
    written = len(request.body["messages"]) > 2
    return json.dumps({"final": "It is written."} if written else WRITE)


@pytest.fixture
def faults() -> dict[str, Fault]:
    """What goes wrong, by the role that asks; empty, the server is well."""
    return {}


@pytest.fixture
async def stub(faults):
    def respond(request) -> str | Reply:
        fault = faults.get(role(request))
        return Reply("one two three", fault=fault) if fault else team(request)

    async with StubServer(respond=respond) as server:
        yield server


@pytest.mark.docker
async def test_a_task_is_worked_on_in_a_folder(cli, registered, sandbox_image):
    done = await cli("run", "Write one().", "-m", registered, "-w", "work", "--json")
    assert done.code == 0, done.err
    assert (cli.cwd / "work/calc.py").read_text().startswith("def one()")
    shown = done.json
    assert shown["plan"]["is_fallback"] is False
    assert shown["ok"] is True
    assert shown["written"] == ["calc.py"]
    assert Path(shown["workspace"]) == cli.cwd / "work"
    for line in ("▸ planner: Plan", "wrote calc.py", "✓ Verify, round 1", "✓ Review"):
        assert line in done.err

    again = await cli("run", "--resume", "latest", "-m", registered)
    assert again.code == 1
    assert "is complete" in again.err


@pytest.mark.docker
async def test_an_interrupt_says_how_to_go_on(cli, registered, sandbox_image):
    process = cli.start("run", "Write one().", "-m", registered)
    try:
        lines = []
        while line := await anyio.to_thread.run_sync(process.stderr.readline):
            lines.append(line.decode())
            if "▸ verifier" in lines[-1]:
                process.send_signal(signal.SIGINT)
                break
        rest = await anyio.to_thread.run_sync(process.stderr.read)
        assert process.wait(60) == 130, rest
    finally:
        process.kill()
        process.communicate()
    run_id = lines[0].split()[0]
    assert f"agentfarm run --resume {run_id}" in rest.decode()
    done = await cli("run", "--resume", run_id, "--json")
    assert done.code == 0, done.err
    assert "(finished before)" in done.err
    assert done.json["run_id"] == run_id


@pytest.mark.docker
async def test_a_fault_of_the_server_is_told_with_its_remedy_and_how_to_go_on(
    cli, registered, stub, faults, sandbox_image
):
    faults["reviewer"] = Fault.RESET_MID_STREAM
    failed = await cli("run", "Write one().", "-m", registered, "-w", "work")
    assert failed.code == 1
    run_id = failed.err.split()[0]
    cause = f"{stub.url} cut the answer off after 2 chunks"
    assert f"✗ Review, round 1: {cause}" in failed.err
    assert failed.err.splitlines()[-1] == f"Continue: agentfarm run --resume {run_id}"
    assert "Traceback" not in failed.err
    headline, summary, folder = failed.out.splitlines()
    assert headline.startswith("failed in ")
    assert headline.endswith(f"({run_id})")
    assert summary.startswith(f"It failed: {cause}")
    assert "look into the server's log" in summary.lower()
    assert summary.endswith("What was finished is kept.")
    assert folder == f"Workspace: {cli.cwd / 'work'}"

    faults["reviewer"] = Fault.CONTEXT_OVERFLOW
    failed = await cli("run", "--resume", run_id, "--json")
    assert failed.code == 1
    assert (failed.json["status"], failed.json["run_id"]) == ("failed", run_id)
    assert failed.json["error"].endswith("serve the model with a longer context.")
    assert failed.json["plan"]["summary"] == "Write it."

    faults.clear()
    done = await cli("run", "--resume", run_id)
    assert done.code == 0, done.err
    assert done.out.startswith("done in ")
    assert "= Verify, round 1 (finished before)" in done.err
    assert [line for line in done.err.splitlines() if line.startswith("▸")] == [
        "▸ reviewer: Review, round 1"
    ]


async def test_a_plan_that_cannot_be_had_says_why(cli, registered, stub, faults):
    faults["planner"] = Fault.UNAUTHORIZED
    done = await cli("plan", "Write one().", "-m", registered)
    assert (done.code, done.out) == (1, "")
    assert f"{stub.url} refused the request (HTTP 401)" in done.err
    assert "api_key_env" in done.err
    assert "Traceback" not in done.err


async def test_a_plan_is_shown_and_nothing_is_done(cli, registered):
    done = await cli("plan", "Write one().", "-m", registered)
    assert done.code == 0, done.err
    assert "Write calc.py" in done.out
    done = await cli("plan", "Write one().", "-m", registered, "--json")
    assert [step["id"] for step in done.json["steps"]] == ["1"]
    assert done.json["is_fallback"] is False


async def test_what_makes_no_sense_is_refused(cli, registered):
    done = await cli("run", "--resume", "no-such-run", "-m", registered)
    assert done.code == 1
    assert "There are no workflows" in done.err
    done = await cli("plan", "x", "-w", "not-there", "-m", registered)
    assert done.code == 1
    assert "not-there" in done.err
