"""What a workspace held when a workflow began, and what has changed since."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentfarm.tools._workspace import take_snapshot
from agentfarm.tools.sandbox import SandboxFile, save

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_DIFF_LINES = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """The difference between two states of a workspace.

    Attributes:
        written: Names of new and changed files, sorted.
        deleted: Names of files that are gone, sorted.
        diff: A unified diff of the text files among them.
    """

    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    diff: str = ""


class Baseline:
    """A copy of the workspace from before, kept in a folder of its own.

    Args:
        workspace: The folder that is worked in.
        copy: Where the copy lies; an existing one is taken as it is, so that a
            resumed workflow compares with the state before its first attempt. It is
            kept in memory only if None.

    Raises:
        SandboxError: The workspace holds too much, or cannot be read.
    """

    def __init__(self, workspace: Path, copy: Path | None) -> None:
        self._workspace = workspace
        if copy is not None and copy.exists():
            self._before = take_snapshot(copy).files
            return
        self._before = take_snapshot(workspace).files
        if copy is not None:
            # Under another name until it is whole: a kill in between leaves none.
            partial = copy.with_name(f"{copy.name}.partial")
            partial.mkdir(parents=True, exist_ok=True)
            save(self._before, partial)
            partial.rename(copy)

    def delta(self) -> Delta:
        """What has changed by now.

        Raises:
            SandboxError: The workspace holds too much, or cannot be read.
        """
        return delta(self._before, take_snapshot(self._workspace).files)


def delta(before: Mapping[str, SandboxFile], after: Mapping[str, SandboxFile]) -> Delta:
    """Compare two states of a workspace."""
    written = sorted(name for name, file in after.items() if before.get(name) != file)
    deleted = sorted(before.keys() - after.keys())
    lines: list[str] = []
    for name in sorted({*written, *deleted}):
        lines += _diff_of(name, before.get(name), after.get(name))
    if len(lines) > MAX_DIFF_LINES:
        left_out = len(lines) - MAX_DIFF_LINES
        lines = [*lines[:MAX_DIFF_LINES], f"… {left_out} more lines"]
    return Delta(
        written=tuple(written),
        deleted=tuple(deleted),
        diff="".join(f"{line}\n" for line in lines),
    )


def _diff_of(name: str, old: SandboxFile | None, new: SandboxFile | None) -> list[str]:
    sides = [_lines(old), _lines(new)]
    if None in sides:
        return [f"Binary file {name} changed"]
    return list(
        difflib.unified_diff(
            sides[0] or [],
            sides[1] or [],
            f"a/{name}" if old else "/dev/null",
            f"b/{name}" if new else "/dev/null",
            lineterm="",
        )
    )


def _lines(file: SandboxFile | None) -> list[str] | None:
    """The lines of a text file; None for a binary one."""
    if file is None:
        return []
    if b"\0" in file.content:
        return None
    try:
        return file.content.decode().splitlines()
    except UnicodeDecodeError:
        return None
