"""What the file tools do in a workspace: plain functions that block."""

from __future__ import annotations

import difflib
import itertools
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentfarm.errors import SandboxError
from agentfarm.tools._result_text import listed
from agentfarm.tools._tool import ToolResult
from agentfarm.tools._workspace import MAX_BYTES, is_own
from agentfarm.tools.sandbox._contract import MIB, SandboxFile
from agentfarm.tools.sandbox._files import inputs, load, remove, save
from agentfarm.tools.sandbox._names import Names, escaped, problem_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agentfarm.tools.sandbox._files import Input

MAX_FILE_BYTES = 8 * MIB
LISTED_FILES = 200
SHOWN_LINES = 400
SHOWN_CHARS = 16_000
SHOWN_HITS = 60
HIT_CHARS = 240
_PLACES = 10


class Refusal(Exception):
    """A path or an argument that a tool does not take; the text is for the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """One folder of the host and what may be done to the files below it.

    Each public method is a tool's work. What cannot be done is a result that says
    why and lists what is there.
    """

    folder: Path

    def attempt(self, work: Callable[[], ToolResult]) -> ToolResult:
        """Do it, or say why not."""
        try:
            return work()
        except (Refusal, SandboxError) as error:
            text = f"{error} {self._holds()}"
            return ToolResult(text=text, ok=False, data={"error": "path"})

    def list_files(self, path: str) -> ToolResult:
        below = self._below(path)
        if not below and self._name(path, empty="") != "":
            raise Refusal(f"There is no file or folder '{escaped(path)}'.")
        shown = [f"{entry.name} ({entry.size} bytes)" for entry in below[:LISTED_FILES]]
        if len(below) > LISTED_FILES:
            shown.append(f"[… {len(below) - LISTED_FILES} more files left out …]")
        return ToolResult(
            text="\n".join(shown) or "The workspace is empty.",
            data={"files": [entry.name for entry in below[:LISTED_FILES]]},
        )

    def read_file(self, path: str, start_line: int, lines: int) -> ToolResult:
        name, file = self._existing(path)
        every = _lines(_text(name, file))
        if start_line > max(1, len(every)):
            raise Refusal(f"{name} has {len(every)} lines.")
        asked = every[start_line - 1 : start_line - 1 + min(lines, SHOWN_LINES)]
        shown = _fitting(asked, SHOWN_CHARS)
        end = start_line - 1 + len(shown)
        body = "\n".join(shown)[:SHOWN_CHARS]
        notes = []
        if shown and len(shown[0]) > SHOWN_CHARS:
            cut = len(shown[0]) - SHOWN_CHARS
            notes.append(f"[… {cut} characters of this line left out …]")
        if end < len(every):
            notes.append(
                f"[… {len(every) - end} lines follow; go on with start_line={end + 1}]"
            )
        head = f"{name}, lines {start_line} to {end} of {len(every)}:"
        return ToolResult(
            text="\n".join([head, body, *notes]) if every else f"{name} is empty.",
            data={
                "path": name,
                "start_line": start_line,
                "end_line": end,
                "total_lines": len(every),
            },
        )

    def write_file(self, path: str, content: str) -> ToolResult:
        if path.endswith("/"):
            raise Refusal(
                f"'{escaped(path)}' names a folder. Write its files: folders are made "
                "with them."
            )
        name = self._name(path)
        encoded = content.encode(errors="backslashreplace")
        if len(encoded) > MAX_FILE_BYTES:
            raise Refusal(f"The content is more than {MAX_FILE_BYTES // MIB} MiB.")
        before = load(name, self.folder, max_bytes=MAX_BYTES)
        if before is None:
            self._refuse_collision(name)
        elif before.content == encoded:
            return _changed(f"{name} has exactly this content already.")
        executable = before is not None and before.executable
        save({name: SandboxFile(content=encoded, executable=executable)}, self.folder)
        how = "Created" if before is None else "Replaced the content of"
        return _changed(
            f"{how} {name}: {len(_lines(content))} lines, {len(encoded)} bytes.",
            written=name,
            created=name if before is None else None,
        )

    def edit_file(self, path: str, old: str, new: str) -> ToolResult:
        name, file = self._existing(path)
        text = _text(name, file)
        if old not in text and "\r\n" in text:
            # The file's line ends are not what a model can see.
            old, new = (_with_crlf(part) for part in (old, new))
        places = list(itertools.islice(_places(text, old), _PLACES + 1))
        if len(places) != 1:
            raise Refusal(_not_once(name, text, old, places))
        if old == new:
            raise Refusal("old and new are the same: there is nothing to change.")
        changed = text.replace(old, new, 1).encode(errors="backslashreplace")
        if len(changed) > MAX_FILE_BYTES:
            raise Refusal(f"It would be more than {MAX_FILE_BYTES // MIB} MiB.")
        edited = SandboxFile(content=changed, executable=file.executable)
        save({name: edited}, self.folder)
        return _changed(f"Edited {name} at line {places[0]}.", written=name)

    def delete_file(self, path: str) -> ToolResult:
        name, _ = self._existing(path, max_bytes=MAX_BYTES)
        remove((name,), self.folder)
        return _changed(f"Deleted {name}.", deleted=name)

    def search_files(self, text: str, path: str, *, ignore_case: bool) -> ToolResult:
        below = self._below(path)
        hits: list[str] = []
        total = in_files = binary = 0
        for entry in below:
            content = _decoded(b"".join(entry.chunks()))
            if content is None:
                binary += 1
                continue
            found = _hits(content, text, ignore_case=ignore_case)
            total += len(found)
            in_files += bool(found)
            room = SHOWN_HITS - len(hits)
            hits += [f"{entry.name}:{line}" for line in found[:room]]
        head = f"{total} lines in {in_files} of {len(below)} files."
        notes = (
            [f"[… {total - len(hits)} more left out …]"] if total > len(hits) else []
        )
        if binary:
            notes.append(f"{binary} binary files were not searched.")
        if not total:
            notes.append("The text is looked for as it is, not as a pattern.")
        return ToolResult(
            text="\n".join([head, *hits, *notes]),
            data={"lines": total, "files": in_files},
        )

    def _name(self, path: str, *, empty: str | None = None) -> str:
        """The relative name that a model means by a path."""
        for root in ("/work", str(self.folder.absolute())):
            if f"{path}/".startswith(f"{root}/"):
                path = path[len(root) + 1 :]
                break
        name = posixpath.normpath(path) if path else "."
        if name == "." and empty is not None:
            return empty
        problem = "is the workspace itself" if name == "." else problem_with(name)
        if not problem and is_own(name):
            problem = "is a cache or reserved"
        if problem:
            raise Refusal(
                f"The path '{escaped(path)}' {problem}. "
                "Pass one relative to the workspace."
            )
        return name

    def _existing(
        self, path: str, *, max_bytes: int = MAX_FILE_BYTES
    ) -> tuple[str, SandboxFile]:
        name = self._name(path)
        file = load(name, self.folder, max_bytes=max_bytes)
        if file is None:
            near = difflib.get_close_matches(name, self._names(), n=3)
            did = f" Near it: {listed(near)}." if near else ""
            raise Refusal(f"There is no file '{escaped(name)}'.{did}")
        return name, file

    def _refuse_collision(self, name: str) -> None:
        taken = Names()
        for other in self._names():
            taken.add(other)
        if problem := taken.add(name):
            raise Refusal(f"A file '{escaped(name)}' {problem}.")

    def _entries(self) -> list[Input]:
        if not self.folder.exists():
            return []
        return sorted(inputs(self.folder), key=lambda entry: entry.name)

    def _below(self, path: str) -> list[Input]:
        """The files at or below a path."""
        name = self._name(path, empty="")
        return [
            entry
            for entry in self._entries()
            if not name or entry.name == name or entry.name.startswith(f"{name}/")
        ]

    def _names(self) -> list[str]:
        return [entry.name for entry in self._entries()]

    def _holds(self) -> str:
        try:
            names = self._names()
        except SandboxError:
            return ""
        return f"The workspace holds: {listed(names) or 'nothing'}."


def _changed(
    text: str,
    *,
    written: str | None = None,
    created: str | None = None,
    deleted: str | None = None,
) -> ToolResult:
    changes = {"written": written, "created": created, "deleted": deleted}
    data = {kind: [name] if name else [] for kind, name in changes.items()}
    return ToolResult(text=text, data=data)


def _text(name: str, file: SandboxFile) -> str:
    text = _decoded(file.content)
    if text is None:
        size = len(file.content)
        raise Refusal(f"{name} is binary, not UTF-8 text: {size} bytes.")
    return text


def _decoded(content: bytes) -> str | None:
    if b"\x00" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _lines(text: str) -> list[str]:
    """Lines as compilers count them: other marks than line feeds end none."""
    found = [line.removesuffix("\r") for line in text.split("\n")]
    return found[:-1] if not found[-1] else found


def _fitting(lines: list[str], chars: int) -> list[str]:
    """The first lines that fit, at least one."""
    sizes = itertools.accumulate(len(line) + 1 for line in lines)
    count = sum(size <= chars for size in sizes)
    return lines[: max(1, count)]


def _with_crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def _places(text: str, old: str) -> Iterator[int]:
    """The line of each occurrence; two may overlap."""
    at, line = text.find(old), 1
    seen = 0
    while at >= 0:
        line += text.count("\n", seen, at)
        seen = at
        yield line
        at = text.find(old, at + 1)


def _not_once(name: str, text: str, old: str, places: list[int]) -> str:
    """Why an edit was not made, and how to find the right place."""
    if places:
        count = f"{len(places)} times" if len(places) <= _PLACES else "many times"
        lines = listed([str(line) for line in places], _PLACES)
        return (
            f"Nothing was changed: old occurs {count} in {name}, at lines {lines}. "
            "Make it longer, so that it occurs exactly once."
        )
    first = next((line.strip() for line in old.splitlines() if line.strip()), "")
    like = [
        str(number)
        for number, line in enumerate(_lines(text), start=1)
        if first and first in line
    ]
    hint = f" Its first line occurs at line {listed(like, _PLACES)}." if like else ""
    return (
        f"Nothing was changed: old occurs 0 times in {name}.{hint} Copy it exactly "
        "from the file, indentation included."
    )


def _hits(content: str, wanted: str, *, ignore_case: bool) -> list[str]:
    """The lines that hold a text, each as ``number: line``."""
    if ignore_case:
        wanted = wanted.casefold()
        if wanted not in content.casefold():
            return []
    elif wanted not in content:
        return []
    found = []
    for number, line in enumerate(_lines(content), start=1):
        if wanted in (line.casefold() if ignore_case else line):
            cut = "…" if len(line) > HIT_CHARS else ""
            found.append(f"{number}: {line[:HIT_CHARS]}{cut}")
    return found
