"""Runs in bubblewrap: what comes back, which limits hold, and that nothing stays."""

import os
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox import BubblewrapSandbox, Limits, SandboxFile
from agentfarm.tools.sandbox._cgroup import Cgroups
from agentfarm.tools.sandbox._probe import unenforced

pytestmark = pytest.mark.bubblewrap

MIB = 2**20
NO_GROUPS = Cgroups(missing=dict.fromkeys(("memory", "pids", "cpu"), "not asked for"))
SLEEPER = ("python3", "-c", "import time; print('on', flush=True); time.sleep(60)")
# Signals ignored, in a session of its own, output closed: what a kill of one process
# or of one process group does not reach.
SURVIVOR = """
import os, signal, sys, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
print("on", flush=True)
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 3)
time.sleep(60)
"""


@pytest.fixture
async def sandbox(host, groups):
    async with BubblewrapSandbox(host=host) as opened:
        yield opened
    assert not groups()


@pytest.fixture
async def bare(host):
    """One without control groups, as most users who are not root have it."""
    words = tuple(unenforced(NO_GROUPS, os.uname().release))
    host = replace(host, cgroups=NO_GROUPS, unenforced=words)
    async with BubblewrapSandbox(host=host) as opened:
        yield opened


@pytest.fixture
def needs_group(host, require):
    def needs(controller):
        if not host.cgroups.enforces(controller):
            require(f"A control group for {controller}", "run as root")

    return needs


def running(token):
    """Processes of this machine that have the token as an argument."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if token.encode() in command:
            found.append(int(process.name))
    return found


async def until(condition, timeout_s=20.0):
    """Wait for a state that no event announces."""
    with anyio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110 - it has no event
            await anyio.sleep(0.02)


async def test_files_input_and_output_go_both_ways(sandbox):
    result = await sandbox.run(
        python=(
            "import os, pathlib, sys\n"
            "print(sys.stdin.read() + os.environ['WHO'])\n"
            "print('oops', file=sys.stderr)\n"
            "pathlib.Path('out').mkdir()\n"
            "pathlib.Path('out/b.bin').write_bytes(b'\\0' + pathlib.Path('in/a').read_bytes())\n"
            "os.unlink('gone')\n"
            "sys.exit(3)\n"
        ),
        files={"in/a": b"\xff", "gone": "x"},
        stdin="hello ",
        env={"WHO": "you"},
    )
    assert (result.stdout, result.stderr) == ("hello you\n", "oops\n")
    assert result.exit_code == 3
    assert result.files == {"out/b.bin": SandboxFile(content=b"\0\xff")}
    assert result.deleted == ("gone",)
    assert result.backend == "bubblewrap"


async def test_each_run_starts_from_nothing(sandbox):
    mark = "touch /work/left /tmp/left /dev/shm/left"
    assert (await sandbox.run(mark)).ok
    result = await sandbox.run("cd /; ls -A work tmp dev/shm")
    assert result.stdout == "dev/shm:\n\ntmp:\n\nwork:\n"


async def test_a_timeout_kills_whatever_ignores_it_and_says_what_was_printed(sandbox):
    token = secrets.token_hex(8)
    start = time.monotonic()
    result = await sandbox.run(["python3", "-c", SURVIVOR, token], timeout_s=1.0)
    overshoot_s = time.monotonic() - start - result.startup_s - 1.0
    assert result.timed_out
    assert result.exit_code is None
    assert result.stdout == "on\n"
    assert overshoot_s < 2.0  # of a busy machine; the benchmark has the distribution
    assert not running(token)


async def test_what_is_left_in_the_background_ends_with_the_run(sandbox):
    token = secrets.token_hex(8)
    background = SURVIVOR + "# " + token
    result = await sandbox.run(
        [
            "sh",
            "-c",
            'python3 -c "$1" "$2" & sleep 0.5; echo done',
            "sh",
            background,
            token,
        ]
    )
    assert result.exit_code == 0
    assert "done" in result.stdout
    assert not running(token)


async def test_memory_ends_the_run_and_is_named_as_the_reason(sandbox, needs_group):
    needs_group("memory")
    limits = Limits(memory_bytes=128 * MIB)
    source = "print(len(bytearray(200 * 2**20)))"
    assert (await sandbox.run(python=source)).ok
    result = await sandbox.run(python=source, limits=limits)
    assert result.exit_code == 137
    assert result.oom_killed


async def test_memory_of_a_child_is_reported_though_the_run_succeeds(
    sandbox, needs_group
):
    needs_group("memory")
    child = "bytearray(200 * 2**20)"
    result = await sandbox.run(
        python=f"import subprocess; subprocess.run(['python3', '-c', {child!r}])",
        limits=Limits(memory_bytes=128 * MIB),
    )
    assert result.exit_code == 0
    assert result.oom_killed


async def test_files_in_memory_count_as_memory(sandbox, needs_group):
    needs_group("memory")
    fill = "head -c 60M /dev/zero > /work/a; head -c 60M /dev/zero > /tmp/b"
    assert (await sandbox.run(fill, collect=False)).ok
    result = await sandbox.run(
        fill, collect=False, limits=Limits(memory_bytes=64 * MIB)
    )
    assert result.oom_killed


FORKS = """
import os, time
count = 0
try:
    while count < 200:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    pass
print(count)
"""


@pytest.mark.parametrize("grouped", [True, False])
async def test_so_many_processes_and_no_more(host, grouped, require):
    host = host if grouped else replace(host, cgroups=NO_GROUPS)
    if not grouped and "pids" in names(unenforced(NO_GROUPS, os.uname().release)):
        require("A count of processes for each user namespace", "Linux 5.14")
    results = {}

    async def run(pids):
        results[pids] = await sandbox.run(python=FORKS, limits=Limits(pids=pids))

    async with (
        BubblewrapSandbox(host=host) as sandbox,
        anyio.create_task_group() as tasks,
    ):
        for pids in (20, 21, 40):
            tasks.start_soon(run, pids)
    # The supervisor and the first process of the job count.
    assert {pids: int(each.stdout) for pids, each in results.items()} == {
        20: 18,
        21: 19,
        40: 38,
    }


async def test_without_groups_memory_holds_for_each_process(bare):
    source = "print(len(bytearray(300 * 2**20)))"
    assert (await bare.run(python=source)).ok
    result = await bare.run(python=source, limits=Limits(memory_bytes=200 * MIB))
    assert "MemoryError" in result.stderr
    assert not result.oom_killed


async def test_other_limits_of_a_process_and_of_the_file_systems_hold(sandbox):
    result = await sandbox.run(
        "ulimit -c; ulimit -n; head -c 3M /dev/zero > /tmp/a; echo $?;"
        "head -c 9M /dev/zero > /tmp/b; echo $?; df -B1 --output=size /work /dev/shm",
        limits=Limits(
            open_files=99,
            file_size_bytes=2 * MIB,
            tmp_bytes=4 * MIB,
            work_bytes=6 * MIB,
            shm_bytes=5 * MIB,
        ),
    )
    lines = result.stdout.split()
    assert lines[:2] == ["0", "99"]
    assert lines[2] != "0"  # ended by SIGXFSZ
    assert lines[3] != "0"
    assert lines[-2:] == [str(6 * MIB), str(5 * MIB)]


def names(words):
    """The limits that these words are about."""
    return {each.partition(":")[0] for each in words}


async def test_the_results_and_the_sandbox_say_what_does_not_hold(sandbox, bare):
    for opened in (sandbox, bare):
        result = await opened.run(["true"])
        assert result.unenforced == opened.unenforced
        assert any("work_inodes" in words for words in result.unenforced)
    assert {"memory_bytes", "cpus"} <= names(bare.unenforced)


def test_a_kernel_that_counts_by_user_says_so():
    old, new = (names(unenforced(NO_GROUPS, each)) for each in ("5.13.0-1", "5.14-rc1"))
    assert old - new == {"pids"}


async def test_eight_runs_at_once_overlap_and_do_not_see_each_other(host):
    results = {}

    async def run(number):
        results[number] = await sandbox.run(
            "echo $N > $N; echo $N > /tmp/$N; sleep 1.5; cat /work/* /tmp/*",
            env={"N": str(number)},
        )

    async with BubblewrapSandbox(host=host, concurrency=8) as sandbox:
        start = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(run, number)
        wall_s = time.monotonic() - start
    assert {n: each.stdout for n, each in results.items()} == {
        n: f"{n}\n{n}\n" for n in range(8)
    }
    assert wall_s < sum(each.duration_s for each in results.values())


async def test_no_more_run_at_once_than_asked_for(host):
    first, second = secrets.token_hex(8), secrets.token_hex(8)
    seen = set()

    async def run(token):
        await sandbox.run(["python3", "-c", "import time; time.sleep(0.5)", token])
        done.append(token)

    done = []
    sandbox = BubblewrapSandbox(host=host, concurrency=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, first)
        tasks.start_soon(run, second)
        while len(done) < 2:
            seen.add((bool(running(first)), bool(running(second))))
            await anyio.sleep(0.02)
    assert (True, False) in seen
    assert (False, True) in seen
    assert (True, True) not in seen


async def test_a_cancelled_run_is_gone_when_the_cancellation_is_through(
    sandbox, groups
):
    token = secrets.token_hex(8)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.run, [*SLEEPER, token])
        await until(lambda: running(token))
        tasks.cancel_scope.cancel()
    assert not running(token)
    assert not groups()


async def test_closing_ends_what_runs_and_refuses_what_comes(host, groups):
    token = secrets.token_hex(8)
    sandbox = BubblewrapSandbox(host=host)
    errors = []

    async def run():
        with pytest.raises(SandboxError, match="closed") as caught:
            await sandbox.run([*SLEEPER, token])
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: running(token))
        await sandbox.aclose()
        assert not running(token)
        assert not groups()
    await run()
    assert len(errors) == 2


CONTROLLER = """
import asyncio, os
from agentfarm.tools.sandbox import BubblewrapSandbox
command = [*{command!r}, os.environ["TOKEN"]]
asyncio.run(BubblewrapSandbox().run(command))
"""


@pytest.mark.usefixtures("host")
async def test_a_killed_controller_takes_everything_with_it(groups):
    token = secrets.token_hex(8)
    with subprocess.Popen(
        [sys.executable, "-c", CONTROLLER.format(command=SLEEPER)],
        env={**os.environ, "TOKEN": token},
    ) as controller:
        try:
            await until(lambda: running(token))
        finally:
            controller.kill()
    await until(lambda: not running(token), timeout_s=5)
    assert BubblewrapSandbox().available() is None
    assert not groups(controller.pid)
