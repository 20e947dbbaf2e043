"""The end of the program that runs the sandbox, and its memory.

| what comes | what holds | lifted by |
|---|---|---|
| kill -9 in mid-run, with a full pool | the stream's end is the container's | a stream that stays |
| the same, and the stream stays | the next start reaps what a dead process owns | |
| interrupt, cancellation | the run's container is removed | |
| 5 s of output, from the job or from a hostile supervisor | what is above the cap is dropped | a higher cap |
"""

import json
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import anyio
import pytest

from agentfarm.tools.sandbox import DockerSandbox

pytestmark = pytest.mark.docker

MIB = 2**20


@pytest.fixture
def containers(engine):
    """Call with an owner's label: its containers, and how many of them run."""

    def containers(owner):
        ours = {"label": f"agentfarm.owner={owner}"}
        found = engine.api.containers(all=True, filters=ours)
        return len(found), sum(each["State"] == "running" for each in found)

    return containers


@pytest.fixture
def settled(containers, pids_with, until, word):
    """Wait until an owner has one run and a pool of two."""

    async def settled(owner):
        # The controller's own arguments hold the word as well.
        await until(lambda: containers(owner) == (3, 3) and len(pids_with(word)) == 2)

    return settled


@pytest.fixture
def controller(here, sandbox_image):
    """Start a program with a sandbox; gives the process and what it says first."""

    @asynccontextmanager
    async def controller(what, argument, *more):
        command = [sys.executable, here / "controller.py", what, argument]
        async with await anyio.open_process(
            [*command, sandbox_image, *more], stderr=subprocess.DEVNULL
        ) as process:
            try:
                line = b""
                while not line.endswith(b"\n"):
                    line += await process.stdout.receive()
                yield process, json.loads(line)
            finally:
                if process.returncode is None:
                    process.kill()

    return controller


async def test_killed_in_mid_run_takes_everything_along(
    containers, controller, pids_with, settled, until, word
):
    """The engine sees the stream end; nobody has to clean up."""
    async with controller("run", word) as (process, said):
        await settled(said["owner"])
        process.kill()
        await process.wait()
        await until(lambda: containers(said["owner"]) == (0, 0))
        assert not pids_with(word)


async def test_kill_alone_ends_no_container(
    containers, controller, engine, pids_with, settled, word
):
    """The control: the stream's end means nothing to it, and nobody else ends it."""
    owner = f"elsewhere:1:1:{int(word[-8:], 16)}"
    async with controller("outlived", word, owner) as (process, _):
        await settled(owner)
        process.kill()
        await process.wait()
    try:
        await anyio.sleep(2)  # several times what it takes with the stream
        assert containers(owner) == (3, 3)
        assert len(pids_with(word)) == 1
    finally:
        ours = {"label": f"agentfarm.owner={owner}"}
        for each in engine.api.containers(all=True, filters=ours):
            engine.remove_container(each["Id"])


async def test_what_outlives_its_owner_is_reaped_at_the_next_start(
    containers, controller, engine, pids_with, sandbox_image, settled, word
):
    async with controller("outlived", word) as (process, said):
        await settled(said["owner"])
        process.kill()
        await process.wait()
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=0) as sandbox:
        await sandbox.check()
        assert containers(said["owner"]) == (0, 0)
        assert not pids_with(word)


async def test_what_was_never_started_is_reaped_at_the_next_start(
    containers, controller, engine, sandbox_image, until, word
):
    """Nothing ends a container that was made, and its maker killed, before its start."""
    async with controller("run", word) as (process, said):
        await until(lambda: containers(said["owner"])[0])
        process.kill()
        await process.wait()
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=0) as sandbox:
        await sandbox.check()
        await until(lambda: containers(said["owner"]) == (0, 0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupt_leaves_nothing(
    number, containers, controller, pids_with, settled, until, word
):
    async with controller("run", word) as (process, said):
        await settled(said["owner"])
        process.send_signal(number)
        with anyio.fail_after(20):
            assert await process.wait() != 0
        await until(lambda: containers(said["owner"]) == (0, 0))
        assert not pids_with(word)


async def test_cancellation_is_prompt_and_leaves_nothing(
    containers_of, engine, pids_with, sandbox_image, until, word
):
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=0) as sandbox:
        async with anyio.create_task_group() as tasks:
            command = ["python3", "-c", "import time; time.sleep(60)", word]
            tasks.start_soon(lambda: sandbox.run(command))
            await until(lambda: pids_with(word))
            cancelled = time.monotonic()
            tasks.cancel_scope.cancel()
        assert time.monotonic() - cancelled < 5
        await until(lambda: not containers_of(sandbox))
        assert not pids_with(word)


HOSTILE_FLOOD = """
send(b"R")
take_job()
while True:
    send(b"O", b"x" * 65536)
    send(b"E", b"y" * 65536)
"""


async def test_memory_stays_flat_under_a_flood(controller, here, tmp_path):
    """Five seconds of it; the control keeps what the others drop."""
    program = tmp_path / "hostile.py"
    program.write_text((here / "hostile.py").read_text() + HOSTILE_FLOOD)
    said = {}

    async def flood(name, cap_bytes, *more):
        async with controller("flood", str(cap_bytes), *more) as (process, words):
            said[name] = words
            assert words["timed_out"]
            assert await process.wait() == 0

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flood, "job", MIB)
        tasks.start_soon(flood, "supervisor", MIB, program)
        tasks.start_soon(flood, "control", 64 * MIB, program)
    print(
        {name: f"{words['growth_bytes'] / MIB:.1f} MiB" for name, words in said.items()}
    )
    assert said["job"]["growth_bytes"] <= 10 * MIB
    assert said["job"]["kept_bytes"] == 2 * MIB
    assert said["supervisor"]["growth_bytes"] <= 10 * MIB
    assert said["supervisor"]["kept_bytes"] == 2 * MIB
    assert said["control"]["growth_bytes"] > 100 * MIB
