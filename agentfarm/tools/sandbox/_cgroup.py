"""Control groups of one run: memory with swap, processes, processor time.

Source: the kernel's admin-guide/cgroup-v1 and cgroup-v2, cgroups(7).
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentfarm.containers import Owner
from agentfarm.errors import SandboxError, SandboxTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agentfarm.tools.sandbox._contract import Limits

PREFIX = "agentfarm-run-"
CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_US = 100_000
MIN_QUOTA_US = 1000  # the kernel takes no less
MONITOR = 1  # bwrap itself waits outside of the sandbox, in the same group
GONE_S = 5.0
SWAP_FILES = ("memory.memsw.limit_in_bytes", "memory.swap.max")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hierarchy:
    """One tree of groups, and where in it ours are made.

    Attributes:
        version: 1 or 2.
        folder: The parent of our groups.
        controllers: Which of `CONTROLLERS` it enforces there.
    """

    version: int
    folder: Path
    controllers: tuple[str, ...]

    @property
    def leaves_swap(self) -> bool:
        """Whether it limits memory, and swap may come on top."""
        return (
            "memory" in self.controllers
            and self.version == 1  # version 2 has it wherever there is swap
            and not (self.folder / "memory.memsw.limit_in_bytes").exists()
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cgroups:
    """What control groups can enforce for a run of this process.

    Attributes:
        hierarchies: Where groups are made; none where that is impossible.
        missing: Why a controller is not among them, in words, by its name.
    """

    hierarchies: tuple[Hierarchy, ...] = ()
    missing: Mapping[str, str]

    def enforces(self, controller: str) -> bool:
        """Whether a run's group limits this."""
        return controller not in self.missing

    def create(self, limits: Limits) -> RunGroup:
        """Make the groups of one run.

        Raises:
            SandboxError: One cannot be made any more.
        """
        name = f"{PREFIX}{Owner.of_this_process()}-{secrets.token_hex(4)}"
        group = RunGroup([(each, each.folder / name) for each in self.hierarchies])
        try:
            group.make(limits)
        except BaseException:
            group.remove()
            raise
        return group

    def reap(self) -> int:
        """Remove groups of processes that died; how many."""
        count = 0
        for each in self.hierarchies:
            for folder in _left_near(each.folder):
                owner = Owner.parse(folder.name[len(PREFIX) :].rpartition("-")[0])
                if owner is not None and owner.is_alive() is False:
                    with suppress(SandboxTimeout):
                        RunGroup([(each, folder)]).remove()
                        count += 1
        return count


def _left_near(folder: Path) -> set[Path]:
    """Groups of runs in a group and, as the last session had another, beside it."""
    return {
        path
        for parent in (folder, *_folders(folder.parent))
        for path in _folders(parent)
        if path.name.startswith(PREFIX)
    }


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder; none where it is gone, as groups may be any time."""
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


class RunGroup:
    """The groups of one run, one for each hierarchy; there may be none.

    Args:
        folders: Each with the hierarchy it is in.
    """

    def __init__(self, folders: list[tuple[Hierarchy, Path]]) -> None:
        self._folders = folders

    def make(self, limits: Limits) -> None:
        """Create the groups and set their limits.

        Raises:
            SandboxError: The kernel refuses it.
        """
        for hierarchy, folder in self._folders:
            try:
                folder.mkdir()
                for name, value in _settings(hierarchy, limits):
                    _set(folder / name, value)
            except OSError as error:
                raise _refused("make", folder, error) from error

    def attach(self, pid: int) -> None:
        """Move a process into the groups; what it starts from now on is in them.

        Raises:
            SandboxError: The kernel refuses it.
        """
        for _, folder in self._folders:
            try:
                (folder / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                raise _refused("enter", folder, error) from error

    def oom_kills(self) -> int:
        """How many processes the kernel killed here for memory."""
        for hierarchy, folder in self._folders:
            if "memory" not in hierarchy.controllers:
                continue
            name = "memory.oom_control" if hierarchy.version == 1 else "memory.events"
            with suppress(OSError, ValueError, KeyError):
                lines = (folder / name).read_text().splitlines()
                return int(dict(line.split() for line in lines)["oom_kill"])
        return 0

    def remove(self) -> None:
        """Kill every process in the groups, and remove them.

        Raises:
            SandboxTimeout: Some process does not go away.
        """
        deadline = time.monotonic() + GONE_S
        left = [folder for _, folder in self._folders]
        while left := [folder for folder in left if not _removed(folder)]:
            if time.monotonic() > deadline:
                raise SandboxTimeout(
                    f"The control group {left[0]} does not get empty: "
                    f"processes {read(left[0] / 'cgroup.procs').split()}."
                )
            for folder in left:
                _kill_all(folder)
            time.sleep(0.005)  # the kernel tells nobody when a group is empty


def _settings(hierarchy: Hierarchy, limits: Limits) -> Iterator[tuple[str, str]]:
    """The files of a group, and what is written to them."""
    quota = str(max(MIN_QUOTA_US, int(limits.cpus * PERIOD_US)))
    memory, pids = str(limits.memory_bytes), str(limits.pids + MONITOR)
    first = {
        "memory": [
            ("memory.limit_in_bytes", memory),
            ("memory.memsw.limit_in_bytes", memory),  # memory and swap together
        ],
        "pids": [("pids.max", pids)],
        "cpu": [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", quota)],
    }
    second = {
        "memory": [("memory.max", memory), ("memory.swap.max", "0")],
        "pids": [("pids.max", pids)],
        "cpu": [("cpu.max", f"{quota} {PERIOD_US}")],
    }
    for controller in hierarchy.controllers:
        yield from (first if hierarchy.version == 1 else second)[controller]


def _set(file: Path, value: str) -> None:
    """Set a limit, unless the kernel has a stricter one or none of that kind."""
    try:
        file.write_text(value)
    except OSError as error:
        no_swap = file.name in SWAP_FILES and not file.exists()
        # Version 1 refuses a quota above the one of the group around it.
        capped = file.name == "cpu.cfs_quota_us" and error.errno == errno.EINVAL
        if not no_swap and not capped:
            raise


def _refused(verb: str, folder: Path, error: OSError) -> SandboxError:
    return SandboxError(
        f"Could not {verb} the control group {folder}: {error.strerror}.",
        remedy="Open the sandbox anew, so that it sees what this process may do now.",
    )


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill_all(folder: Path) -> None:
    with suppress(OSError):
        if (folder / "cgroup.kill").exists():
            (folder / "cgroup.kill").write_text("1")
            return
    for pid in read(folder / "cgroup.procs").split():
        with suppress(OSError, ValueError):
            _kill(int(pid), folder)


def _kill(pid: int, folder: Path) -> None:
    """Kill a member, and never another process that got its id meanwhile."""
    handle = os.pidfd_open(pid)
    try:
        if str(pid) in read(folder / "cgroup.procs").split():
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


def read(path: Path) -> str:
    """The text of a file of the kernel; `""` where it is gone or closed to us."""
    try:
        return path.read_text()
    except OSError:
        return ""
