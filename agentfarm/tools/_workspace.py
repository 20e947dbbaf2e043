"""A folder of the host whose files go into each run and come back changed."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox._contract import MIB, SandboxFile, SandboxResult
from agentfarm.tools.sandbox._files import CACHES, OWN_PREFIX, inputs, remove, save

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BYTES = 64 * MIB

Signature = tuple[int, int, int] | None  # None: no such file


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The files of a workspace at one moment.

    Attributes:
        files: Content by name.
        signatures: Tells whether the host changed a file since.
    """

    files: Mapping[str, SandboxFile]
    signatures: Mapping[str, Signature]


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What a run changed in the workspace.

    Attributes:
        written: Names of new and changed files.
        deleted: Names of deleted ones.
        refused: Why the other changes were not made, by name.
    """

    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def take_snapshot(folder: Path) -> Snapshot:
    """Read the files below a folder; links, special files and caches stay out.

    Raises:
        SandboxError: They are too many or too big, or one cannot be read.
    """
    files: dict[str, SandboxFile] = {}
    signatures: dict[str, Signature] = {}
    left = MAX_BYTES
    for entry in inputs(folder) if folder.exists() else ():
        left -= entry.size
        if left < 0:
            raise SandboxError(
                f"The files below {folder} are more than {MAX_BYTES // MIB} MiB.",
                remedy="Move what the code does not need out of the folder.",
            )
        # Before the content: a change in between is then noticed afterwards.
        signatures[entry.name] = _signature(folder / entry.name)
        files[entry.name] = SandboxFile(
            content=b"".join(entry.chunks()), executable=entry.executable
        )
    return Snapshot(files=files, signatures=signatures)


def write_back(folder: Path, result: SandboxResult, before: Snapshot) -> Changes:
    """Change in the folder what a run changed in its copy.

    A file that is no longer what went into the run is left alone, so that of two
    runs at once, or a run and a person, none undoes the other's work unseen.

    Raises:
        SandboxError: A name is refused or the folder cannot be written.
    """
    changed = {
        name: file
        for name, file in result.files.items()
        if not is_own(name) and before.files.get(name) != file
    }
    gone = [name for name in result.deleted if name in before.files]
    refused = {
        name: "changed in the workspace while the run took place"
        for name in (*changed, *gone)
        if _signature(folder / name) != before.signatures.get(name)
    }
    deleted = tuple(name for name in gone if name not in refused)
    written = {name: file for name, file in changed.items() if name not in refused}
    # First, since a folder may take a file's place.
    remove(deleted, folder)
    if written:
        save(written, folder)
    omitted = {name: why for name, why in result.omitted.items() if not is_own(name)}
    return Changes(
        written=tuple(sorted(written)),
        deleted=tuple(sorted(deleted)),
        refused=refused | omitted,
    )


def is_own(name: str) -> bool:
    """Whether a file is a cache or ours, and no part of the work."""
    return name.startswith(OWN_PREFIX) or not CACHES.isdisjoint(name.split("/"))


def _signature(path: Path) -> Signature:
    try:
        found = path.lstat()
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
