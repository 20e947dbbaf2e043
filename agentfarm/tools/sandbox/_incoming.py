"""Files on their way out of a sandbox, under limits that the host checks itself."""

from __future__ import annotations

import io

from agentfarm.tools.sandbox._contract import SandboxFile
from agentfarm.tools.sandbox._names import Names, escaped, problem_with

OMITTED_NAMES = 100


class Incoming:
    """Takes files from a sandbox piece by piece, and believes nothing it says.

    Memory stays below `max_bytes` and some kilobytes for each of `max_files` names,
    whatever is announced or sent.

    Args:
        max_files: Files that are kept.
        max_bytes: Sum of their sizes.
    """

    def __init__(self, *, max_files: int, max_bytes: int) -> None:
        self._files: dict[str, SandboxFile] = {}
        self._omitted: dict[str, str] = {}
        self._unnamed = 0
        self._names = Names()
        self._files_left = max_files
        self._bytes_left = max_bytes
        self._begun: tuple[str, int, bool] | None = None
        self._content = io.BytesIO()

    def begin(self, name: str, *, size: int, executable: bool) -> None:
        """Start a file of `size` bytes, or note why it is left out."""
        self._end()
        if reason := self._objection(name, size):
            self._omit(name, reason)
        else:
            self._files_left -= 1
            self._begun = name, size, executable

    def data(self, payload: bytes) -> None:
        """Add to the file that was begun last, if it was taken."""
        if not self._begun:
            return
        name, size, _ = self._begun
        if self._content.tell() + len(payload) > size:
            self._omit(name, "larger than announced")
            self._clear()
        else:
            self._content.write(payload)

    def skip(self, name: str, reason: str) -> None:
        """Note a name that the sandbox itself left out."""
        self._end()
        self._omit(name, escaped(reason))

    def finish(self) -> tuple[dict[str, SandboxFile], dict[str, str]]:
        """The files by name, and the escaped names left out with the reason."""
        self._end()
        omitted = dict(self._omitted)
        if self._unnamed:
            omitted["…"] = f"{self._unnamed} more"
        return self._files, omitted

    def _objection(self, name: str, size: int) -> str | None:
        if problem := problem_with(name):
            return problem
        if not self._files_left:
            return "more files than the limit"
        if not 0 <= size <= self._bytes_left:
            return "more bytes than the limit"
        return self._names.add(name)

    def _end(self) -> None:
        if not self._begun:
            return
        name, size, executable = self._begun
        if self._content.tell() < size:
            self._omit(name, "smaller than announced")
        else:
            content = self._content.getvalue()
            self._files[name] = SandboxFile(content=content, executable=executable)
            self._bytes_left -= size
        self._clear()

    def _clear(self) -> None:
        self._begun = None
        self._content = io.BytesIO()

    def _omit(self, name: str, reason: str) -> None:
        if len(self._omitted) < OMITTED_NAMES:
            self._omitted[escaped(name)] = reason
        else:
            self._unnamed += 1
