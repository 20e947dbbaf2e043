"""The tools that look at and change the files of a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from agentfarm.tools._file_work import SHOWN_LINES, Workspace
from agentfarm.tools._tool import Tool, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_PATH = {
    "type": "string",
    "minLength": 1,
    "description": "The file, relative to the workspace, e.g. src/main.py.",
}
_WHERE = {
    "type": ["string", "null"],
    "description": "Only this folder or file; the whole workspace if absent.",
}
_TEXT = {"type": "string", "minLength": 1}


def file_tools(workspace: Path, *, lock: anyio.Lock | None = None) -> tuple[Tool, ...]:
    """Make the tools over one folder: list, read, write, edit, search and delete.

    Nothing outside the folder can be named, and no link is followed. A path that is
    refused or not there is a result that lists what there is. Results are bounded
    and say what they leave out. A file is written whole or not at all. The data of
    those that change files has the names ``written``, ``created`` (some of them) and
    ``deleted``.

    Args:
        workspace: Folder of the host; made when the first file is written.
        lock: Held during each call; pass the one that other writers of the folder
            hold.
    """
    files = _Files(workspace=Workspace(folder=workspace), lock=lock or anyio.Lock())
    return (*_readers(files), *_writers(files))


def _readers(files: _Files) -> tuple[Tool, ...]:
    line = {"type": ["integer", "null"], "minimum": 1}
    return (
        Tool(
            name="list_files",
            description="List the files of the workspace with their sizes.",
            parameters=_schema({"path": _WHERE}),
            run=files.list_files,
        ),
        Tool(
            name="read_file",
            description="Read a text file, or some of its lines.",
            parameters=_schema(
                {
                    "path": _PATH,
                    "start_line": {**line, "description": "First line; 1 if absent."},
                    "lines": {
                        **line,
                        "description": f"How many; at most {SHOWN_LINES}.",
                    },
                },
                required=("path",),
            ),
            run=files.read_file,
        ),
        Tool(
            name="search_files",
            description="Find the lines that hold a text, in all files or below a "
            "path. The text is no pattern: every character stands for itself.",
            parameters=_schema(
                {
                    "text": _TEXT,
                    "path": _WHERE,
                    "ignore_case": {"type": ["boolean", "null"]},
                },
                required=("text",),
            ),
            run=files.search_files,
        ),
    )


def _writers(files: _Files) -> tuple[Tool, ...]:
    return (
        Tool(
            name="write_file",
            description="Create a file, or replace all of its content. Folders are "
            "made where they are missing.",
            parameters=_schema(
                {
                    "path": _PATH,
                    "content": {"type": "string", "description": "All of it."},
                },
                required=("path", "content"),
            ),
            run=files.write_file,
        ),
        Tool(
            name="edit_file",
            description="Replace one piece of a file's text by another.",
            parameters=_schema(
                {
                    "path": _PATH,
                    "old": {
                        **_TEXT,
                        "description": "Text that the file holds exactly once, with "
                        "its indentation.",
                    },
                    "new": {"type": "string", "description": "What replaces it."},
                },
                required=("path", "old", "new"),
            ),
            run=files.edit_file,
        ),
        Tool(
            name="delete_file",
            description="Delete a file.",
            parameters=_schema({"path": _PATH}, required=("path",)),
            run=files.delete_file,
        ),
    )


def _schema(
    properties: Mapping[str, Any], required: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What the six tools share; each call has the workspace for itself."""

    workspace: Workspace
    lock: anyio.Lock

    async def list_files(self, *, path: str | None = None) -> ToolResult:
        return await self._do(partial(self.workspace.list_files, path or ""))

    async def read_file(
        self, *, path: str, start_line: int | None = None, lines: int | None = None
    ) -> ToolResult:
        read = self.workspace.read_file
        return await self._do(
            partial(read, path, start_line or 1, lines or SHOWN_LINES)
        )

    async def search_files(
        self, *, text: str, path: str | None = None, ignore_case: bool | None = None
    ) -> ToolResult:
        search = partial(self.workspace.search_files, ignore_case=bool(ignore_case))
        return await self._do(partial(search, text, path or ""))

    async def write_file(self, *, path: str, content: str) -> ToolResult:
        return await self._do(partial(self.workspace.write_file, path, content))

    async def edit_file(self, *, path: str, old: str, new: str) -> ToolResult:
        return await self._do(partial(self.workspace.edit_file, path, old, new))

    async def delete_file(self, *, path: str) -> ToolResult:
        return await self._do(partial(self.workspace.delete_file, path))

    async def _do(self, work: Callable[[], ToolResult]) -> ToolResult:
        # A cancelled call waits for its thread: no write is left half done.
        async with self.lock:
            return await to_thread.run_sync(partial(self.workspace.attempt, work))
