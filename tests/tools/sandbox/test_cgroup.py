"""Control groups: where they may be made, and what they hold, on this kernel."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox import Limits
from agentfarm.tools.sandbox._cgroup import PREFIX, Cgroups, Hierarchy
from agentfarm.tools.sandbox._cgroup_search import find_cgroups

MIB = 2**20
MEMORY_HOG = "import sys; sys.stdin.read(); print(len(bytearray(200 * 2**20)))"


@pytest.fixture
def cgroups(require) -> Cgroups:
    found = find_cgroups()
    if found.missing:
        require("A set of control groups", f"run as root: {dict(found.missing)}")
    return found


@pytest.fixture
def group(cgroups):
    """The groups of a small run."""
    made = cgroups.create(Limits(memory_bytes=64 * MIB, pids=8, cpus=0.2))
    yield made
    made.remove()


@pytest.fixture
def start():
    """Start a Python that waits for the end of its stdin; its output is text."""
    started = []

    def start(source):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def test_a_process_in_a_group_is_killed_for_memory_and_counted(group, start):
    inside, outside = start(MEMORY_HOG), start(MEMORY_HOG)
    group.attach(inside.pid)
    for process in (inside, outside):
        process.communicate()
    assert outside.returncode == 0
    assert inside.returncode == -signal.SIGKILL
    assert group.oom_kills() == 1


def test_swap_counts_as_memory(group):
    """Read from the files: a test machine may have no swap to try it with."""
    (memory,) = (each for each in group._folders if "memory" in each[0].controllers)
    hierarchy, folder = memory
    first = hierarchy.version == 1
    file = folder / ("memory.memsw.limit_in_bytes" if first else "memory.swap.max")
    assert hierarchy.leaves_swap or file.read_text().strip() == (
        str(64 * MIB) if first else "0"
    )


def test_a_group_counts_nothing_where_nothing_was_killed(group, start):
    process = start("import sys; sys.stdin.read()")
    group.attach(process.pid)
    process.communicate()
    assert group.oom_kills() == 0


def test_a_group_holds_so_many_processes_and_one_for_bwrap(group, start):
    process = start(
        "import os, sys, time\n"
        "sys.stdin.read()\n"
        "count = 0\n"
        "try:\n"
        "    while count < 50:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        count += 1\n"
        "except OSError: pass\n"
        "print(count, flush=True)\n"
    )
    group.attach(process.pid)
    process.stdin.close()
    assert int(process.stdout.readline()) == 8 + 1 - 1
    group.remove()


def test_a_group_gets_its_share_of_processor_time_and_no_more(group, start):
    source = (
        "import sys, time\n"
        "sys.stdin.read()\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end: pass\n"
        "print(time.process_time())"
    )
    inside = start(source)
    group.attach(inside.pid)
    assert float(inside.communicate()[0]) < 0.4


def test_removal_kills_what_ignores_signals_and_leaves_no_folder(group, start, groups):
    source = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    process = start(source)
    group.attach(process.pid)
    assert process.stdout.readline() == "ready\n"
    assert groups()
    group.remove()
    assert process.wait(10) == -signal.SIGKILL
    assert not groups()
    group.remove()


def test_version_2_kills_by_its_own_file_and_goes(require, start, groups):
    top = Path("/sys/fs/cgroup")
    folders = [
        path
        for path in (top, top / "unified")
        if (path / "cgroup.controllers").exists()
    ]
    if not folders or not os.access(folders[0], os.W_OK):
        require("A cgroup version 2 mount", "run as root where one is mounted")
    hierarchy = Hierarchy(version=2, folder=folders[0], controllers=())
    group = Cgroups(hierarchies=(hierarchy,), missing={}).create(Limits())
    process = start("import time; time.sleep(60)")
    group.attach(process.pid)
    group.remove()
    assert process.wait(10) == -signal.SIGKILL
    assert not groups()


def test_what_a_killed_process_left_is_removed_by_the_next_one(cgroups, group, groups):
    source = (
        "from agentfarm.tools.sandbox import Limits\n"
        "from agentfarm.tools.sandbox._cgroup_search import find_cgroups\n"
        "import os, signal\n"
        "find_cgroups().create(Limits())\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", source], check=False)
    living = groups()
    assert cgroups.reap() >= len(cgroups.hierarchies)
    assert cgroups.reap() == 0
    assert living
    assert groups() == living


def test_a_group_that_cannot_be_made_is_an_error_and_leaves_nothing(cgroups, groups):
    gone = Hierarchy(
        version=1, folder=Path("/sys/fs/cgroup/none"), controllers=("pids",)
    )
    broken = Cgroups(hierarchies=(*cgroups.hierarchies, gone), missing={})
    with pytest.raises(SandboxError, match="/sys/fs/cgroup/none"):
        broken.create(Limits())
    assert not groups()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A stand-in for a machine's cgroup version 2: folders and plain files.

    A process in the group `user/app/session`, which systemd set up below `user`.
    """
    top = tmp_path / "c groups"
    session = top / "user" / "app" / "session"
    session.mkdir(parents=True)
    for folder in (top, top / "user", top / "user" / "app", session):
        (folder / "cgroup.controllers").write_text("cpu memory pids")
        (folder / "cgroup.subtree_control").write_text("")
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.type").write_text("domain")
    (session / "cgroup.procs").write_text("1\n")
    process = tmp_path / "process"
    process.mkdir()
    shown = str(top).replace(" ", r"\040")
    (process / "mountinfo").write_text(
        f"30 25 0:26 / {shown} rw,relatime - cgroup2 x rw\n"
    )
    (process / "cgroup").write_text("0::/user/app/session\n")
    # A group goes together with its files, a folder does not.
    monkeypatch.setattr(Path, "rmdir", lambda path: shutil.rmtree(path))
    return top


def test_version_2_takes_the_nearest_group_that_passes_its_controllers_on(tree):
    (tree / "user" / "app" / "cgroup.procs").write_text("2\n")
    (tree / "user" / "cgroup.subtree_control").write_text("memory pids")
    (tree / "user" / "cgroup.procs").write_text("3\n")
    found = find_cgroups(tree.parent / "process")
    assert [each.folder for each in found.hierarchies] == [tree / "user"]
    assert found.enforces("memory")
    assert found.enforces("pids")
    assert set(found.missing) == {"cpu"}
    assert "session" in found.missing["cpu"]


def test_version_2_enables_controllers_where_no_process_is_in_the_way(tree):
    find_cgroups(tree.parent / "process")
    session = tree / "user" / "app" / "session"
    assert (session / "cgroup.subtree_control").read_text() == ""
    assert (session.parent / "cgroup.subtree_control").read_text() == "+cpu"


def test_version_2_writes_every_limit_and_forbids_swap(tree):
    (tree / "user" / "app" / "cgroup.subtree_control").write_text("cpu memory pids")
    found = find_cgroups(tree.parent / "process")
    assert not found.missing
    found.create(Limits(memory_bytes=64 * MIB, pids=8, cpus=1.5)).attach(4242)
    (made,) = (tree / "user" / "app").glob(f"{PREFIX}*")
    written = {path.name: path.read_text() for path in made.iterdir()}
    assert written == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "pids.max": "9",
        "cpu.max": "150000 100000",
        "cgroup.procs": "4242",
    }


def test_where_nothing_is_handed_over_no_group_is_made_and_the_reason_said(tree):
    for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
        (folder / "cgroup.procs").write_text("1\n")
    found = find_cgroups(tree.parent / "process")
    assert found.hierarchies == ()
    assert "handed over" in found.missing["memory"]
    group = found.create(Limits())
    group.attach(os.getpid())
    assert group.oom_kills() == 0
    group.remove()


def test_version_1_that_is_not_writable_is_named_as_the_reason(tmp_path):
    (tmp_path / "mountinfo").write_text(
        "31 25 0:27 / /nowhere/memory rw - cgroup cgroup rw,memory\n"
        "32 25 0:28 / /nowhere/pids rw - cgroup cgroup rw,pids\n"
    )
    (tmp_path / "cgroup").write_text("4:memory:/a\n8:pids:/a\n")
    found = find_cgroups(tmp_path)
    assert found.hierarchies == ()
    assert "version 1" in found.missing["memory"]
    assert "/nowhere/pids" in found.missing["pids"]
    assert "no such group" in found.missing["cpu"]


def test_a_machine_without_control_groups_has_none(tmp_path):
    found = find_cgroups(tmp_path)
    assert set(found.missing) == {"memory", "pids", "cpu"}


def test_finding_leaves_nothing_behind_and_is_quick(cgroups, groups):
    start = time.monotonic()
    find_cgroups()
    assert time.monotonic() - start < 5
    assert not groups()
