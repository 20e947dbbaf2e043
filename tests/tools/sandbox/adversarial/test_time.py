"""Outliving the timeout, the run, or the supervisor.

| attack | held by | control |
|---|---|---|
| every signal ignored, own session, two forks, streams closed | the container's kill | they outlive signals |
| process in the background after exit 0 | kill of all that is left | a longer run |
| kill -1 | PID 1 is exempt | it does kill what is not |
| SIGKILL, SIGSTOP and the rest to PID 1 | PID 1 is exempt | a supervisor that is not PID 1 |
| rlimits of PID 1 | seccomp | no seccomp |
"""

import os
import signal
import statistics
import time

import anyio
import pytest

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox import DockerSandbox

pytestmark = pytest.mark.docker

STUBBORN = """
import os, signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 3)
    if os.fork() == 0:
        os.setsid()
while True:
    time.sleep(60)
"""
PROCESSES = 3


@pytest.fixture(scope="module")
def swift(engine, sandbox_image):
    """A sandbox with more containers ready than processors to start them."""
    sandbox = DockerSandbox(engine=engine, image=sandbox_image, pool=4)
    yield sandbox
    anyio.run(sandbox.aclose)


async def test_timeout_ends_what_signals_do_not(pids_with, sandbox, until, word):
    async with anyio.create_task_group() as tasks:

        async def run():
            attack = ["python3", "-c", STUBBORN, word]
            result = await sandbox.run(attack, timeout_s=2.0)
            assert result.timed_out
            assert result.exit_code is None

        tasks.start_soon(run)
        await until(lambda: len(pids_with(word)) == PROCESSES)
        for pid in pids_with(word):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(pid, number)
        assert len(pids_with(word)) == PROCESSES
    assert not pids_with(word)


async def test_timeout_is_kept(pids_with, swift, word, record_property):
    """Loosely, so that a busy machine passes; the benchmark measures it."""
    overshoots = []
    await swift.warm()

    async def run():
        for _ in range(5):
            start = time.monotonic()
            attack = ["python3", "-c", STUBBORN, word]
            result = await swift.run(attack, timeout_s=1.0)
            assert result.timed_out
            spent_s = time.monotonic() - start - result.startup_s
            overshoots.append(spent_s - 1.0)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(run)
    p95 = statistics.quantiles(overshoots, n=20)[-1]
    record_property("overshoot_p95_s", p95)
    print(f"timeout overshoot of {len(overshoots)} runs: p95 {p95:.3f} s")
    assert max(overshoots) < 2.0
    assert not pids_with(word)


async def test_background_process_ends_with_the_run(pids_with, sandbox, word):
    late = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    time.sleep(0.5)
    open("late", "w").close()
    time.sleep(60)
time.sleep(float(sys.argv[1]))
"""
    result = await sandbox.run(["python3", "-c", late, "0.1", word])
    assert (result.exit_code, [*result.files]) == (0, [])
    assert not pids_with(word)
    result = await sandbox.run(["python3", "-c", late, "1.5", word])
    assert (result.exit_code, [*result.files]) == (0, ["late"])
    assert not pids_with(word)


async def test_open_output_of_a_background_process_delays_nothing(sandbox):
    """It holds the pipes of the first process, which has ended."""
    result = await sandbox.run("sleep 30 & echo done", timeout_s=20.0)
    assert (result.exit_code, result.stdout) == (0, "done\n")
    assert result.duration_s < 10


async def test_killing_everything_spares_the_supervisor(sandbox):
    code = """
import os, signal, time
victim = os.fork()
if victim == 0:
    time.sleep(60)
os.kill(-1, signal.SIGKILL)
print(os.waitpid(victim, 0)[1])
"""
    result = await sandbox.run(python=code)
    assert (result.exit_code, result.stdout) == (0, f"{signal.SIGKILL.value}\n")


def not_the_first(options):
    """The supervisor is a child of PID 1."""
    *command, text = options["Cmd"]
    assert "os.getpid() != 1" in text
    options["Cmd"] = [*command, text.replace("os.getpid() != 1", "False")]
    options["HostConfig"]["Init"] = True


SIGNAL_PARENT = """
import os, sys, time
for number in map(int, sys.argv[1:]):
    os.kill(os.getppid(), number)
time.sleep(0.2)
print("still here")
"""


async def test_signals_do_not_reach_the_supervisor(relaxed, sandbox):
    attack = ["python3", "-c", SIGNAL_PARENT]
    result = await sandbox.run([*attack, *map(str, range(1, 65))])
    assert (result.exit_code, result.stdout) == (0, "still here\n")
    exposed = relaxed(change=not_the_first)
    assert (await exposed.run([*attack, "0"])).ok
    with pytest.raises(SandboxError, match="ended in the middle"):
        await exposed.run([*attack, str(signal.SIGKILL.value)])
    stopped = await exposed.run([*attack, str(signal.SIGSTOP.value)], timeout_s=2.0)
    assert stopped.timed_out


STARVE = """
import os, resource
resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))
for _ in range(3000):
    os.write(1, bytes(65536))
"""


async def test_supervisor_cannot_be_starved(lifted, sandbox):
    """Same uid is enough for another's rlimits, whatever else protects it."""
    result = await sandbox.run(python=STARVE)
    assert "PermissionError" in result.stderr
    with pytest.raises(SandboxError, match="ended in the middle"):
        await lifted("no seccomp").run(python=STARVE)
