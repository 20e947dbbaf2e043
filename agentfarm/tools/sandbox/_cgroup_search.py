"""Where this process may make control groups, versions 1 and 2.

Groups are made below the one in which this process runs (version 1), or below the
nearest one that is handed over to it (version 2), so that limits which hold for this
process go on holding for its runs.

Source: cgroups(7), proc_pid_mountinfo(5), and the kernel's admin-guide/cgroup-v2 on
delegation and on the rule against processes in inner groups.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from subprocess import PIPE
from typing import TYPE_CHECKING

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox._cgroup import CONTROLLERS, Cgroups, Hierarchy, read
from agentfarm.tools.sandbox._contract import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ESCAPE = re.compile(r"\\([0-7]{3})")


def find_cgroups(process: Path = Path("/proc/self")) -> Cgroups:
    """See where this process may make groups, by making some.

    On version 2 a controller may get enabled in the parent of our groups, where it
    is at hand and nobody has enabled it yet.

    Args:
        process: Its folder in /proc.
    """
    own = dict(_own_groups(read(process / "cgroup")))
    found: list[Hierarchy] = []
    reasons: dict[str, str] = {}
    for mount in _mounts(read(process / "mountinfo")):
        held = {name for each in found for name in each.controllers}
        wanted = [name for name in mount.serves() if name not in held]
        if not wanted:
            continue
        place = mount.place(own, wanted)
        trial = _trial(place) if isinstance(place, Hierarchy) else place
        if isinstance(place, Hierarchy) and not trial:
            found.append(place)
            held |= set(place.controllers)
        reason = trial or f"nobody handed it over to {mount.folder_of(own)}"
        reasons |= dict.fromkeys(set(wanted) - held, reason)
    held = {name for each in found for name in each.controllers}
    missing = {
        name: reasons.get(name, "this kernel, or this container, has no such group")
        for name in CONTROLLERS
        if name not in held
    }
    return Cgroups(hierarchies=tuple(found), missing=missing)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mount:
    """Where a hierarchy is mounted.

    Attributes:
        version: 1 or 2.
        root: The group that the mount shows as its top.
        folder: The mount point.
        options: Of the file system; on version 1 its controllers are among them.
    """

    version: int
    root: str
    folder: Path
    options: tuple[str, ...]

    def serves(self) -> tuple[str, ...]:
        """Which of `CONTROLLERS` it has."""
        has = self.options
        if self.version == 2:
            has = tuple(read(self.folder / "cgroup.controllers").split())
        return tuple(name for name in CONTROLLERS if name in has)

    def folder_of(self, own: Mapping[str, str]) -> Path:
        """The group of the process that has these paths."""
        keys = ("",) if self.version == 2 else self.options
        path = next((own[key] for key in keys if key in own), "/")
        with suppress(ValueError):
            folder = self.folder / PurePosixPath(path).relative_to(self.root)
            if ".." not in folder.parts and folder.is_dir():
                return folder
        return self.folder

    def place(self, own: Mapping[str, str], wanted: list[str]) -> Hierarchy | str:
        """Where to make groups with these controllers, or why nowhere."""
        start = self.folder_of(own)
        if self.version == 1:
            if not os.access(start, os.W_OK):
                return f"{start} is cgroup version 1, where root alone makes groups"
            return Hierarchy(version=1, folder=start, controllers=tuple(wanted))
        for folder in (start, *start.parents):
            if _is_ours(folder):
                _enable(folder, wanted)
                enabled = read(folder / "cgroup.subtree_control").split()
                names = tuple(name for name in wanted if name in enabled)
                if names:
                    return Hierarchy(version=2, folder=folder, controllers=names)
            if folder == self.folder:
                break
        return f"no group with it is handed over to this user at or above {start}"


def _is_ours(folder: Path) -> bool:
    """Whether groups can be made, and processes moved, below this one."""
    return all(os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs"))


def _enable(folder: Path, wanted: list[str]) -> None:
    """Enable what is missing, where no process of its own stands in the way."""
    if read(folder / "cgroup.procs").strip() and (folder / "cgroup.type").exists():
        return
    enabled = read(folder / "cgroup.subtree_control").split()
    for name in wanted:
        if name not in enabled:
            with suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{name}")


def _trial(hierarchy: Hierarchy) -> str:
    """Put a process of ours into a group with limits; why that fails, or `""`."""
    try:
        group = Cgroups(hierarchies=(hierarchy,), missing={}).create(Limits())
        try:
            with subprocess.Popen(("/bin/sh", "-c", "read _"), stdin=PIPE) as process:
                group.attach(process.pid)
        finally:
            group.remove()
    except SandboxError as error:
        return error.message.rstrip(".")
    return ""


def _mounts(text: str) -> Iterator[_Mount]:
    """The mounts of control groups in a mountinfo, see proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if kind and kind[0] in ("cgroup", "cgroup2"):
            yield _Mount(
                version=1 if kind[0] == "cgroup" else 2,
                root=_unescaped(fields[3]),
                folder=Path(_unescaped(fields[4])),
                options=tuple(kind[-1].split(",")),
            )


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _own_groups(text: str) -> Iterator[tuple[str, str]]:
    """The paths in a process's `cgroup` file, by controller; `""` for version 2."""
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            yield name, path
