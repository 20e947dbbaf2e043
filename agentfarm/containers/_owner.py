"""The process that made something, named so that its death can be proven later."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_UNKNOWN = "unknown"
_NUMBER = re.compile(r"[0-9]{1,20}")
_DEAD_STATES = {"Z", "X"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process, told apart from every other: ids of processes are used again.

    Attributes:
        boot: The kernel's random id of this boot; ``unknown`` off Linux.
        pid_namespace: Inode of the namespace in which `pid` counts.
        pid: Process id.
        started: Start of the process, in clock ticks since the boot.
    """

    boot: str
    pid_namespace: int
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.boot}:{self.pid_namespace}:{self.pid}:{self.started}"

    @classmethod
    def of_this_process(cls) -> Self:
        """Name the calling process; one that can be proven alive only on Linux."""
        here, own = _here(), _stat("self")
        if here is None or own is None:
            return cls(boot=_UNKNOWN, pid_namespace=0, pid=os.getpid(), started=0)
        boot, namespace = here
        return cls(boot=boot, pid_namespace=namespace, pid=own.pid, started=own.started)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `str` wrote; None where it is something else."""
        boot, *numbers = text.split(":")
        if not boot or len(numbers) != 3:
            return None
        if not all(map(_NUMBER.fullmatch, numbers)):
            return None
        namespace, pid, started = map(int, numbers)
        return cls(boot=boot, pid_namespace=namespace, pid=pid, started=started)

    def is_alive(self) -> bool | None:
        """Whether the process runs; None where that cannot be known from here."""
        if _here() != (self.boot, self.pid_namespace):
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            pass
        found = _stat(str(self.pid))
        if found is None:  # hidden from us by a mount option of /proc
            return None
        return found.started == self.started and found.state not in _DEAD_STATES


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stat:
    pid: int
    state: str
    started: int


def _here() -> tuple[str, int] | None:
    """This boot and this namespace of process ids; None where /proc cannot tell."""
    own = _stat("self")
    if own is None or own.pid != os.getpid():  # it shows another namespace
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def _stat(process: str) -> _Stat | None:
    """Read /proc/PID/stat, see proc_pid_stat(5); fields count from 1."""
    try:
        text = Path("/proc", process, "stat").read_text(errors="replace")
    except OSError:
        return None
    before, _, after = text.rpartition(")")  # the name in field 2 may hold anything
    fields = after.split()
    return _Stat(pid=int(before.split()[0]), state=fields[0], started=int(fields[19]))
