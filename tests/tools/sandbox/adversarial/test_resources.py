"""Bombs: a sandbox takes no more than its limits, and its machine stays well.

Every attack stops by itself above the limit that holds it, so that its control, which
raises just this limit, harms nobody.

| attack | ends with | limit |
|---|---|---|
| processes, threads | EAGAIN, "can't start new thread" | pids |
| memory: own, shared, memfd, sockets, files, names in /dev/shm | OOM kill | memory |
| memory in a child | the child's OOM kill, noted | memory |
| bytes in /work, /tmp, /dev/shm | ENOSPC | work, tmp, shm |
| files in /work, /tmp | ENOSPC | inodes of each |
| one large file, written or sparse | EFBIG | file size |
| open files | EMFILE | open files |
| processor time | is slowed down | cpus |
"""

import os
from dataclasses import replace

import anyio
import pytest

from agentfarm.tools.sandbox import DockerSandbox, Limits

pytestmark = pytest.mark.docker

MIB = 2**20
TIGHT = Limits(
    memory_bytes=64 * MIB,
    pids=32,
    open_files=1000,
    file_size_bytes=4 * MIB,
    work_bytes=8 * MIB,
    work_inodes=256,
    tmp_bytes=8 * MIB,
    tmp_inodes=256,
    shm_bytes=4 * MIB,
)
KILLED = "exit 137: "

PROCESSES = """
import time
for _ in range(64):
    if os.fork() == 0:
        time.sleep(60)
through()
"""
THREADS = """
import threading
for _ in range(64):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
through()
"""
MEMORY = """
hoard = [bytearray(b"x") * 2**20 for _ in range(128)]
through()
"""
SHARED = """
import mmap
area = mmap.mmap(-1, 2**27)
for start in range(0, 2**27, 4096):
    area[start] = 1
through()
"""
MEMFD = """
for _ in range(50):
    os.write(os.memfd_create("hoard"), bytes(3 * 2**20))
through()
"""
SOCKETS = """
import socket
hoard = []
for _ in range(490):
    pair = socket.socketpair()
    hoard.append(pair)
    pair[0].setblocking(False)
    try:
        while True:
            pair[0].send(bytes(65536))
    except BlockingIOError:
        pass
through()
"""
FILL = """
for number in range(24):
    with open(f"{folder}/{{number}}", "wb") as file:
        file.write(bytes(2**20))
through()
"""
FILES = """
for number in range(1000):
    open(f"{folder}/{{number}}", "w").close()
through()
"""
NAMES = """
for number in range(100_000):
    os.mknod(f"/dev/shm/{number}")
through()
"""
WRITTEN = """
with open("large", "wb") as file:
    for _ in range(6):
        file.write(bytes(2**20))
        file.flush()
through()
"""
SPARSE = """
os.truncate(os.open("sparse", os.O_CREAT | os.O_RDWR), 100 * 2**20)
through()
"""
DESCRIPTORS = """
hoard = [os.open("/dev/null", os.O_RDONLY) for _ in range(1500)]
through()
"""
BURN = """
import time
end = time.monotonic() + 0.6
while time.monotonic() < end:
    pass
for path in ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat"):
    if os.path.exists(path):
        throttled = dict(line.split() for line in open(path))["nr_throttled"]
        print("through" if throttled == "0" else "throttled")
"""
MORE = 512 * MIB

ATTACKS = {
    "processes": (PROCESSES, "EAGAIN", {"pids": 100}),
    "threads": (THREADS, "RuntimeError", {"pids": 100}),
    "memory": (MEMORY, KILLED, {"memory_bytes": MORE}),
    "shared memory": (SHARED, KILLED, {"memory_bytes": MORE}),
    "memfd": (MEMFD, KILLED, {"memory_bytes": MORE}),
    "sockets": (SOCKETS, KILLED, {"memory_bytes": MORE}),
    "names in /dev/shm": (NAMES, KILLED, {"memory_bytes": MORE}),
    "bytes in /work": (FILL.format(folder="/work"), "ENOSPC", {"work_bytes": 32 * MIB}),
    "bytes in /tmp": (FILL.format(folder="/tmp"), "ENOSPC", {"tmp_bytes": 32 * MIB}),  # noqa: S108
    "bytes in /dev/shm": (
        FILL.format(folder="/dev/shm"),  # noqa: S108
        "ENOSPC",
        {"shm_bytes": 32 * MIB},
    ),
    "files in /work": (FILES.format(folder="/work"), "ENOSPC", {"work_inodes": 2000}),
    "files in /tmp": (FILES.format(folder="/tmp"), "ENOSPC", {"tmp_inodes": 2000}),  # noqa: S108
    "one large file": (WRITTEN, "EFBIG", {"file_size_bytes": 16 * MIB}),
    "sparse file": (SPARSE, "EFBIG", {"file_size_bytes": 128 * MIB}),
    "open files": (DESCRIPTORS, "EMFILE", {"open_files": 2000}),
}


@pytest.fixture(scope="module")
def tight(engine, sandbox_image):
    sandbox = DockerSandbox(
        engine=engine, image=sandbox_image, limits=TIGHT, timeout_s=30.0
    )
    yield sandbox
    anyio.run(sandbox.aclose)


@pytest.mark.parametrize("name", ATTACKS)
async def test_bomb_is_held(name, attempt, tight):
    code, ending, _ = ATTACKS[name]
    assert await attempt(tight, code, collect=False) == ending


@pytest.mark.parametrize("name", ATTACKS)
async def test_bomb_is_not_held_by_another_limit(name, attempt, tight):
    code, _, raised = ATTACKS[name]
    limits = replace(TIGHT, **raised)
    assert await attempt(tight, code, collect=False, limits=limits) == "through"


async def test_memory_bomb_in_a_child_is_noted(tight):
    """The job itself may end well, having lost a child."""
    code = f"""
import os
if os.fork() == 0:
{"".join("    " + line + chr(10) for line in MEMORY.replace("through()", "os._exit(0)").splitlines())}
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    held = await tight.run(python=code)
    assert (held.stdout, held.oom_killed, held.exit_code) == ("-9\n", True, 0)
    free = await tight.run(python=code, limits=replace(TIGHT, memory_bytes=MORE))
    assert (free.stdout, free.oom_killed, free.exit_code) == ("0\n", False, 0)


async def test_files_count_as_memory(tight):
    """Whose memory a file is, nobody can be killed for; the run still ends."""
    limits = replace(TIGHT, file_size_bytes=MORE, work_bytes=MORE)
    code = """
with open("hoard", "wb") as file:
    for _ in range(128):
        file.write(bytes(2**20))
"""
    held = await tight.run(python=code, limits=limits, collect=False)
    assert (held.exit_code, held.oom_killed) == (137, True)
    limits = replace(limits, memory_bytes=MORE)
    free = await tight.run(python=code, limits=limits, collect=False)
    assert (free.exit_code, free.oom_killed) == (0, False)


async def test_processor_time_is_rationed(attempt, tight):
    few, many = replace(TIGHT, cpus=0.1), replace(TIGHT, cpus=os.cpu_count())
    assert await attempt(tight, BURN, limits=few) == "throttled"
    assert await attempt(tight, BURN, limits=many) == "through"


FORK_BOMB = """
import os, time
if os.fork():
    time.sleep(1)
    os._exit(0)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""


async def test_endless_fork_bomb_is_over_with_its_run(pids_with, tight, word):
    """Its first process ends well and leaves the others behind."""
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, len(pids_with(word)))
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        result = await tight.run(["python3", "-c", FORK_BOMB, word])
        tasks.cancel_scope.cancel()
    assert result.exit_code == 0
    assert TIGHT.pids // 2 < most < TIGHT.pids
    assert not pids_with(word)
