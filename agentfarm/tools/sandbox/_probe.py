"""What this machine has for bubblewrap sandboxes, seen by making one."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from agentfarm.errors import SandboxError, SandboxUnavailable
from agentfarm.tools.sandbox._bwrap import find_bwrap, interpreters, userns_remedy
from agentfarm.tools.sandbox._cgroup_search import find_cgroups
from agentfarm.tools.sandbox._contract import Limits
from agentfarm.tools.sandbox._exchange import converse, prepare
from agentfarm.tools.sandbox._jail import Host, Jail
from agentfarm.tools.sandbox._seccomp import bpf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentfarm.tools.sandbox._cgroup import Cgroups

TIMEOUT_S = 20.0
QUESTION = """
import importlib.util, json, platform
pytest = importlib.util.find_spec("pytest") is not None
print(json.dumps({"version": platform.python_version(), "pytest": pytest}))
"""
# Since then a user namespace counts its own processes for RLIMIT_NPROC.
COUNTS_PER_NAMESPACE = (5, 14)


def probe() -> Host:
    """Find what makes a sandbox here: the first Python with pytest, else the first.

    Raises:
        SandboxUnavailable: Nothing does; with the cause and the remedy.
    """
    bwrap, seccomp, cgroups = find_bwrap(), bpf(), find_cgroups()
    cgroups.reap()
    works: Host | None = None
    failures = []
    for interpreter in interpreters():
        host = Host(
            bwrap=bwrap,
            interpreter=interpreter,
            cgroups=cgroups,
            seccomp=seccomp,
            drop=os.geteuid() == 0,
            unenforced=tuple(unenforced(cgroups, os.uname().release)),
        )
        try:
            version, has_pytest = _ask(host)
        except SandboxError as error:
            failures.append(f"With {interpreter.label}: {error.message}")
            continue
        said = f"Python {version}, {interpreter.label}"
        if has_pytest:
            return replace(host, python=f"{said}, with pytest")
        works = works or replace(host, python=f"{said}, without pytest")
    if works is None:
        raise _unavailable(f"{bwrap.path} {bwrap.version}", failures)
    return works


def _ask(host: Host) -> tuple[str, bool]:
    """Run a program in a sandbox of this kind; its Python's version, and pytest."""
    job = prepare(
        None,
        python=QUESTION,
        files=None,
        stdin=b"",
        env=None,
        timeout_s=TIMEOUT_S,
        limits=Limits(),
        collect=False,
    )
    jail = Jail(host, job.limits)
    try:
        jail.start()
        outcome = converse(jail.channel, job)
    finally:
        jail.end()
    if outcome.exit_code != 0:
        said = outcome.stderr.decode(errors="backslashreplace").strip()
        raise SandboxError(f"Its Python fails: {said or jail.diagnosis}")
    answer = json.loads(outcome.stdout)
    return str(answer["version"]), bool(answer["pytest"])


def _unavailable(bwrap: str, failures: list[str]) -> SandboxUnavailable:
    if all("execvp" in failure for failure in failures):
        remedy = "Install python3, 3.9 or later, where every user can read it."
    else:
        remedy = userns_remedy()
    return SandboxUnavailable(
        f"{bwrap} does not make a sandbox here. {' '.join(failures)}", remedy=remedy
    )


def unenforced(cgroups: Cgroups, release: str) -> Iterator[str]:
    """Limits that do not hold, in words.

    Args:
        cgroups: What control groups enforce.
        release: Of the kernel, as uname(2) says.
    """
    if not cgroups.enforces("memory"):
        yield (
            "memory_bytes: holds for each process, not for all together and not for "
            f"files in memory ({cgroups.missing['memory']})"
        )
        yield "work_inodes, tmp_inodes: not limited (bubblewrap cannot)"
    else:
        yield (
            "work_inodes, tmp_inodes: only memory_bytes limits them (bubblewrap cannot)"
        )
    if any(each.leaves_swap for each in cgroups.hierarchies):
        yield "memory_bytes: swap comes on top (the kernel does not account swap)"
    if not cgroups.enforces("cpu"):
        yield f"cpus: not limited ({cgroups.missing['cpu']})"
    if not cgroups.enforces("pids") and _version(release) < COUNTS_PER_NAMESPACE:
        yield (
            "pids: counts all processes of the same user on this machine "
            f"({cgroups.missing['pids']})"
        )


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])
