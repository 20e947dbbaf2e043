"""What one run leaves behind or does, and another must not see.

| attack | held by | lifted by |
|---|---|---|
| files of an earlier run | a container for one run, even from a pool | a second run in it |
| processes | own PID namespace | a shared one |
| abstract sockets | own network namespace | a shared one |
| files in /dev/shm, System V segments, POSIX queues | own IPC namespace | a shared one |
"""

import anyio
import pytest

from agentfarm.tools.sandbox import DockerSandbox

pytestmark = pytest.mark.docker

FOLDERS = ("/work", "/tmp", "/dev/shm", "/dev/mqueue")  # noqa: S108
LEAVE = f"""
import ctypes, sys, time
for folder in {FOLDERS!r}:
    try:
        open(f"{{folder}}/left", "w").close()
    except PermissionError:  # it takes queues only
        ctypes.CDLL(None).mq_open(b"/left", 0o102, 0o600, None)
print("left", flush=True)
time.sleep(float(sys.argv[1]))
"""
LOOK = f"""
import os
print(*(folder for folder in {FOLDERS!r} if os.path.exists(folder + "/left")))
"""


async def test_files_of_a_run_are_not_there_in_the_next(
    containers_of, engine, relaxed, sandbox_image, until
):
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=1) as pooled:
        await pooled.warm()
        assert (await pooled.run(["python3", "-c", LEAVE, "0"])).ok
        assert (await pooled.run(["python3", "-c", LOOK])).stdout == "\n"
    reused = relaxed()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: reused.run(["python3", "-c", LEAVE, "60"]))
        (container,) = await until(lambda: containers_of(reused))

        def second_run():
            api = engine.api
            if api.inspect_container(container["Id"])["State"]["Status"] != "running":
                return None
            command = api.exec_create(container["Id"], ["python3", "-c", LOOK])
            return api.exec_start(command["Id"]).decode().split()

        await until(lambda: second_run() == [*FOLDERS])
        tasks.cancel_scope.cancel()


HOLD = """
import ctypes, socket, subprocess, sys, time
word, key = sys.argv[1], int(sys.argv[2])
held = socket.socket(socket.AF_UNIX)
held.bind("\\0" + word)
held.listen()
open("/dev/shm/" + word, "w").close()
libc = ctypes.CDLL(None)
assert libc.shmget(key, 4096, 0o1600) >= 0
assert libc.mq_open(b"/" + word.encode(), 0o102, 0o600, None) >= 0
subprocess.run([sys.executable, "-c", "import time; time.sleep(60)", "set up " + word])
"""
SPY = """
import ctypes, glob, os, socket, sys
word, key = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None)
for path in glob.glob("/proc/[0-9]*/cmdline"):
    arguments = open(path, "rb").read()
    if b"set up " + word.encode() in arguments:
        print("process")
if socket.socket(socket.AF_UNIX).connect_ex("\\0" + word) == 0:
    print("socket")
if os.path.exists("/dev/shm/" + word):
    print("file")
if libc.shmget(key, 0, 0) >= 0:
    print("segment")
if libc.mq_open(b"/" + word.encode(), os.O_RDONLY) >= 0:
    print("queue")
"""


def share_ipc(container):
    def change(options):
        options["HostConfig"]["IpcMode"] = f"container:{container}"

    return change


def share_processes(container):
    """The supervisor is not PID 1 there, and must not end what is not its own.

    What it killed would include the other container's job, whose supervisor would
    then kill it in turn, before it has reported.
    """
    changes = {"os.getpid() != 1": "False", "    end_all()\n": ""}

    def change(options):
        options["HostConfig"]["PidMode"] = f"container:{container}"
        *command, text = options["Cmd"]
        for old, new in changes.items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        options["Cmd"] = [*command, text]

    return change


def shareable(options):
    options["HostConfig"]["IpcMode"] = "shareable"


async def test_runs_at_once_do_not_see_each_other(
    containers_of, join, pids_with, relaxed, sandbox, until, word
):
    key = str(int(word[-6:], 16) + 1)
    first = relaxed(change=shareable)
    async with anyio.create_task_group() as tasks:
        hold = ["python3", "-c", HOLD, word, key]
        tasks.start_soon(lambda: first.run(hold, collect=False))
        await until(lambda: pids_with(f"set up {word}"))
        (container,) = (each["Id"] for each in containers_of(first))

        async def spy(sandbox):
            command = ["python3", "-c", SPY, word, key]
            return (await sandbox.run(command)).stdout.split()

        assert await spy(sandbox) == []
        shared = relaxed(change=lambda told: join(told, f"container:{container}"))
        assert await spy(shared) == ["socket"]
        shared = relaxed(change=share_ipc(container))
        assert await spy(shared) == ["file", "segment", "queue"]
        shared = relaxed(change=share_processes(container))
        assert await spy(shared) == ["process"]
        tasks.cancel_scope.cancel()
