"""What bubblewrap is told about a sandbox: every namespace, mount and file of it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox._exchange import (
    ENVIRONMENT,
    SUPERVISOR,
    SUPERVISOR_COMMAND,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agentfarm.tools.sandbox._contract import Limits

INSIDE = "65534"  # uid and gid that the code sees, as in the Docker image
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
# `--size` came last of these, with 0.6.
NEEDED = ("--size", "--perms", "--as-pid-1", "--seccomp", "--info-fd", "--clearenv")
NEWEST_NEEDED = "0.6"
HELP_S = 10.0

# Beside /usr, from the host: what the dynamic linker and the tools in /usr look up.
FROM_ETC = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
OWN_ETC = {
    "/etc/passwd": f"root:x:0:0::/:/bin/false\nnobody:x:{INSIDE}:{INSIDE}::/work:/bin/sh\n",
    "/etc/group": f"root:x:0:\nnogroup:x:{INSIDE}:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
TOP = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# An interpreter there would lie in the way of what the sandbox mounts itself.
TAKEN = ("/work", "/tmp", "/proc", "/sys", "/dev")  # noqa: S108
# Limits itself, then is the supervisor. Done from outside it would take CAP_SYS_RESOURCE.
LIMITED = """
import json, resource, sys
for name, value in json.loads(sys.argv[2]).items():
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
exec(compile(sys.argv[1], "supervisor", "exec"))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bwrap:
    """The program.

    Attributes:
        path: Where it is.
        version: As it says.
        disables_userns: Whether it can forbid further user namespaces inside.
    """

    path: str
    version: str
    disables_userns: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """A Python that a sandbox may use.

    Attributes:
        label: Which one it is, in words.
        search_path: The value of PATH that leads to it.
        prefixes: Folders beside /usr that it needs, shown read-only.
    """

    label: str
    search_path: str
    prefixes: tuple[Path, ...] = ()


def find_bwrap() -> Bwrap:
    """Find the program and see that it has what the sandbox needs.

    Raises:
        SandboxUnavailable: It is missing, too old, or setuid.
    """
    path = shutil.which("bwrap") if sys.platform == "linux" else None
    if path is None:
        raise SandboxUnavailable(
            "bubblewrap is not installed: there is no bwrap on PATH.",
            remedy="apt-get install bubblewrap (Linux only)",
        )
    if Path(path).stat().st_mode & stat.S_ISUID:
        raise SandboxUnavailable(
            f"{path} is setuid root, and in that mode it limits no tmpfs.",
            remedy=f"chmod u-s {path}, and allow user namespaces to all users.",
        )
    version = _said(path, "--version").removeprefix("bubblewrap ")
    options = set(_said(path, "--help").split())
    missing = [option for option in NEEDED if option not in options]
    if missing:
        raise SandboxUnavailable(
            f"{path} {version} is too old; it has no {', '.join(missing)}.",
            remedy=f"Install bubblewrap {NEWEST_NEEDED} or later.",
        )
    return Bwrap(
        path=path, version=version, disables_userns="--disable-userns" in options
    )


def _said(*command: str) -> str:
    try:
        ended = subprocess.run(  # noqa: S603 - bwrap's own options
            command, capture_output=True, text=True, timeout=HELP_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxUnavailable(
            f"{command[0]} cannot be started: {error}.",
            remedy="apt-get install --reinstall bubblewrap",
        ) from error
    return (ended.stdout + ended.stderr).strip()


def interpreters() -> Iterator[Interpreter]:
    """Every Python that may do, best first: the running one, then the system's.

    Whether the sandbox's user can reach it shows when it is tried.
    """
    folders = {Path(sys.prefix), Path(sys.base_prefix), _real_prefix()}
    found = {way for folder in folders for way in (folder, folder.resolve())}
    outside = sorted(each for each in found if not each.is_relative_to("/usr"))
    if outside and all(map(_may_be_shown, outside)):
        yield Interpreter(
            label=f"the running one, of {sys.prefix}",
            search_path=f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
            prefixes=tuple(outside),
        )
    yield Interpreter(label="the system's", search_path=SYSTEM_PATH)


def _real_prefix() -> Path:
    """Where the links from `bin/python3` lead to in the end."""
    return Path(sys.executable).resolve().parent.parent


def _may_be_shown(prefix: Path) -> bool:
    """Whether it is a folder of its own, not somebody's home nor all of the disk."""
    if len(prefix.parts) <= 2 or any(map(prefix.is_relative_to, TAKEN)):
        return False
    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a user without a name, as in containers
        home = Path("/home")
    return prefix.parent != Path("/home") and not home.is_relative_to(prefix)


def arguments(
    bwrap: Bwrap,
    interpreter: Interpreter,
    limits: Limits,
    *,
    rlimits: Mapping[str, int],
    files: Mapping[str, int],
    seccomp: int,
    info: int,
) -> list[str]:
    """The command that starts the supervisor in a sandbox.

    Args:
        bwrap: The program.
        interpreter: The Python for the supervisor and the job.
        limits: Sizes of the file systems.
        rlimits: Resource limits of each process, by name in the module `resource`.
        files: File descriptors of the contents of `OWN_ETC`, by path.
        seccomp: File descriptor to read the filter from.
        info: File descriptor to which bwrap writes the supervisor's id.
    """
    return [
        bwrap.path,
        *_isolation(bwrap),
        *_environment(interpreter),
        *_system(interpreter, files),
        *_mounts(limits),
        *("--chdir", "/work", "--seccomp", str(seccomp), "--info-fd", str(info)),
        *("--remount-ro", "/", "--"),
        *SUPERVISOR_COMMAND,
        *(LIMITED, SUPERVISOR.read_text(), json.dumps(rlimits)),
    ]


def _isolation(bwrap: Bwrap) -> Iterator[str]:
    for namespace in ("user", "pid", "net", "ipc", "uts", "cgroup"):
        yield f"--unshare-{namespace}"
    if bwrap.disables_userns:
        yield "--disable-userns"
    yield from ("--uid", INSIDE, "--gid", INSIDE, "--cap-drop", "ALL")
    yield from ("--die-with-parent", "--new-session", "--as-pid-1")
    yield from ("--hostname", "sandbox")


def _environment(interpreter: Interpreter) -> Iterator[str]:
    yield "--clearenv"
    for name, value in {**ENVIRONMENT, "PATH": interpreter.search_path}.items():
        yield from ("--setenv", name, value)


def _system(interpreter: Interpreter, files: Mapping[str, int]) -> Iterator[str]:
    """Programs and libraries, read-only; nothing else of the host's disk."""
    yield from ("--ro-bind", "/usr", "/usr")
    for folder in TOP:
        if Path(folder).is_symlink():
            yield from ("--symlink", str(Path(folder).readlink()), folder)
        else:
            yield from ("--ro-bind-try", folder, folder)
    for path in FROM_ETC:
        yield from ("--ro-bind-try", path, path)
    for path, number in files.items():
        yield from ("--perms", "0444", "--file", str(number), path)
    for prefix in interpreter.prefixes:
        yield from ("--ro-bind", str(prefix.resolve()), str(prefix))


def _mounts(limits: Limits) -> Iterator[str]:
    yield from ("--proc", "/proc", "--dev", "/dev")
    # bwrap leaves it to the modes of the files, which let their owner write.
    yield from ("--ro-bind", "/proc/sys", "/proc/sys")
    for folder, size, mode in (
        ("/dev/shm", limits.shm_bytes, "1777"),  # noqa: S108
        ("/work", limits.work_bytes, "0700"),
        ("/tmp", limits.tmp_bytes, "1777"),  # noqa: S108
    ):
        yield from ("--perms", mode, "--size", str(size), "--tmpfs", folder)
    yield from ("--remount-ro", "/dev")  # the folder, not what is mounted in it


def userns_remedy(sysctl: Path = Path("/proc/sys")) -> str:
    """What keeps a user from making user namespaces here, and what to do about it."""
    for name, refusing, remedy in (
        (
            "user.max_user_namespaces",
            "0",
            "sysctl -w user.max_user_namespaces=10000",
        ),
        (
            "kernel.unprivileged_userns_clone",
            "0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "kernel.apparmor_restrict_unprivileged_userns",
            "1",
            "load an AppArmor profile for bwrap (package apparmor-profiles)",
        ),
    ):
        try:
            value = (sysctl / name.replace(".", "/")).read_text().strip()
        except OSError:
            continue
        if value == refusing:
            return f"{name} is {value}: {remedy}."
    return (
        "bwrap must be allowed to make user namespaces and to mount in them; "
        "in a container, its seccomp profile and masked /proc stand in the way."
    )
