"""Files of the host on their way into a sandbox, and back below one folder."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox._contract import Files, SandboxFile
from agentfarm.tools.sandbox._incoming import Incoming
from agentfarm.tools.sandbox._names import Names, comparable, escaped, problem_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "CACHES",
    "CHUNK_BYTES",
    "OWN_PREFIX",
    "Incoming",
    "Input",
    "comparable",
    "escaped",
    "inputs",
    "load",
    "problem_with",
    "remove",
    "save",
]

CHUNK_BYTES = 64 * 1024
MAX_INPUTS = 8192
OWN_PREFIX = ".agentfarm-"  # of files that are not the work: never go in from a folder

# Rebuilt where they are missing, useless elsewhere, and often huge.
CACHES = frozenset(
    {
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".nox",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        ".venv",
        "__pycache__",
        "node_modules",
    }
)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One file that goes in.

    Attributes:
        name: Relative to `/work`; nothing is wrong with it.
        executable: Whether its owner may execute it.
        size: Bytes that `chunks` gives at most.
    """

    name: str
    executable: bool
    size: int
    _source: bytes | Path = field(repr=False)

    def chunks(self) -> Iterator[bytes]:
        """Its content in chunks of at most 64 KiB.

        Raises:
            SandboxError: A file of the host is gone or cannot be read any more.
        """
        if isinstance(self._source, bytes):
            for start in range(0, self.size, CHUNK_BYTES):
                yield self._source[start : start + CHUNK_BYTES]
            return
        left = self.size
        with _reading(self._source) as (source, _):
            while left and (chunk := os.read(source, min(left, CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk


def inputs(
    files: Files | None,
    *,
    max_files: int = MAX_INPUTS,
    left_out: dict[str, str] | None = None,
) -> list[Input]:
    """List what `Sandbox.run` shall lay in; contents are read later, in chunks.

    A name that was asked for is refused if anything is wrong with it. Below a folder,
    links, special files, caches and names that may not cross are passed over.

    Args:
        files: As `Sandbox.run` takes them.
        max_files: More are refused, before they are all listed.
        left_out: Gets the escaped name and the reason of what was passed over.

    Raises:
        SandboxError: A name or a file of the host is refused, or there are too many.
    """
    passed: dict[str, str] = {} if left_out is None else left_out
    found: list[Input] = []
    taken = Names()
    for entry in _listed(files, passed):
        if problem := problem_with(entry.name) or taken.add(entry.name):
            raise SandboxError(f"The file name '{escaped(entry.name)}' {problem}.")
        found.append(entry)
        if len(found) > max_files:
            raise SandboxError(
                f"More than {max_files} files shall go into the sandbox.",
                remedy="Pass fewer files, or a folder that holds only what is needed.",
            )
    return found


def _listed(files: Files | None, left_out: dict[str, str]) -> Iterator[Input]:
    if isinstance(files, Path):
        if not files.is_dir():
            raise SandboxError(
                f"{files} is not a folder.",
                remedy='Pass one file as {"name": path}.',
            )
        yield from _walk(files, "", left_out)
        return
    for name, content in (files or {}).items():
        if not isinstance(content, Path):
            yield _from_memory(name, content)
        elif content.is_dir() and not content.is_symlink():
            yield from _walk(content, f"{name}/", left_out)
        else:
            yield _from_host(name, content)


def _from_memory(name: str, content: SandboxFile | bytes | str) -> Input:
    executable = isinstance(content, SandboxFile) and content.executable
    if isinstance(content, SandboxFile):
        content = content.content
    try:
        source = content.encode() if isinstance(content, str) else content
    except UnicodeEncodeError as error:
        raise SandboxError(
            f"The text of the file '{escaped(name)}' is not valid Unicode: {error}."
        ) from None
    return Input(name=name, executable=executable, size=len(source), _source=source)


def _from_host(name: str, path: Path) -> Input:
    with _reading(path) as (_, found):
        return Input(
            name=name,
            executable=bool(found.st_mode & stat.S_IXUSR),
            size=found.st_size,
            _source=path,
        )


@contextmanager
def _reading(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file of the host; whatever else it is, is refused."""
    try:
        source = os.open(path, _READ)
    except OSError as error:
        raise SandboxError(
            f"{path} cannot be copied into the sandbox: {_said(error)}.",
            remedy="Pass path.resolve() to copy what a link points at."
            if path.is_symlink()
            else None,
        ) from error
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            raise SandboxError(f"{path} is not a regular file.")
        yield source, found
    finally:
        os.close(source)


def _walk(root: Path, prefix: str, left_out: dict[str, str]) -> Iterator[Input]:
    pending = [(root, prefix)]
    while pending:
        folder, above = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise SandboxError(f"{folder} cannot be read: {_said(error)}.") from error
        for entry in entries:
            name = above + entry.name
            if reason := _passed_over(entry, name):
                left_out[escaped(name)] = reason
            elif entry.is_dir(follow_symlinks=False):
                pending.append((Path(entry.path), f"{name}/"))
            else:
                yield _from_host(name, Path(entry.path))


def _passed_over(entry: os.DirEntry[str], name: str) -> str | None:
    if entry.name in CACHES:
        return "is a cache or an environment"
    if entry.name.startswith(OWN_PREFIX):
        return "is ours"
    if entry.is_symlink():
        return "is a link"
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
        return problem_with(name)
    return "is not a regular file"


def load(name: str, directory: Path, *, max_bytes: int) -> SandboxFile | None:
    """Read one file below a folder of the host, and nothing outside of it.

    Returns:
        The file, or None where there is nothing of that name.

    Raises:
        SandboxError: The name is refused, a link or anything else than a regular
            file is there or on the way, or it is too big or cannot be read.
    """
    if problem := problem_with(name):
        raise SandboxError(f"The file name '{escaped(name)}' {problem}.")
    try:
        with _folder_of(directory, name) as (folder, last):
            source = os.open(last, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SandboxError(
            f"'{escaped(name)}' cannot be read: {_said(error)}.",
            remedy="Links are not followed.",
        ) from error
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
            raise SandboxError(f"'{escaped(name)}' is {what}.")
        if found.st_size > max_bytes:
            raise SandboxError(
                f"'{escaped(name)}' holds {found.st_size} bytes, more than {max_bytes}."
            )
        with os.fdopen(source, "rb", closefd=False) as opened:
            content = opened.read(max_bytes)
    finally:
        os.close(source)
    executable = bool(found.st_mode & stat.S_IXUSR)
    return SandboxFile(content=content, executable=executable)


def save(files: Mapping[str, SandboxFile], directory: Path) -> list[Path]:
    """Write what a run left below a folder of the host, and nowhere else.

    No link is followed on the way: a link in a file's place is replaced, one in a
    folder's place is refused. Each file appears whole or not at all, with mode 0600
    or, if executable, 0700.

    Args:
        files: As in `SandboxResult.files`.
        directory: Made if it is missing; itself it may be a link.

    Returns:
        The paths written, in the order given.

    Raises:
        SandboxError: A name is refused, in which case nothing is written; or a file
            cannot be written.
    """
    taken = Names()
    for name in files:
        if problem := problem_with(name) or taken.add(name):
            raise SandboxError(f"The file name '{escaped(name)}' {problem}.")
    written = []
    with _failing_on(directory):
        directory.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        with (
            _failing_on(directory / name),
            _folder_of(directory, name, make=True) as (
                folder,
                last,
            ),
        ):
            _replace(folder, last, file)
        written.append(directory / name)
    return written


def _replace(folder: int, name: str, file: SandboxFile) -> None:
    partial = f"{OWN_PREFIX}{secrets.token_hex(8)}"
    mode = 0o700 if file.executable else 0o600
    target = os.open(partial, _WRITE, mode, dir_fd=folder)
    try:
        with os.fdopen(target, "wb") as opened:
            opened.write(file.content)
        os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial, dir_fd=folder)
        raise


def remove(names: list[str] | tuple[str, ...], directory: Path) -> list[Path]:
    """Delete files below a folder of the host, and the folders this empties.

    No link is followed; a link in a file's place is deleted itself. What is not
    there, or is a folder, stays as it is.

    Returns:
        The paths deleted.

    Raises:
        SandboxError: A name is refused, or a file cannot be deleted.
    """
    deleted = []
    for name in names:
        if problem := problem_with(name):
            raise SandboxError(f"The file name '{escaped(name)}' {problem}.")
        path = directory / name
        with _failing_on(path), suppress(FileNotFoundError, NotADirectoryError):
            with _folder_of(directory, name) as (folder, last):
                if stat.S_ISDIR(os.lstat(last, dir_fd=folder).st_mode):
                    continue
                os.unlink(last, dir_fd=folder)
            deleted.append(path)
            _prune(directory, name)
    return deleted


def _prune(directory: Path, name: str) -> None:
    """Delete the folders above a deleted file as far as they are empty."""
    parts = name.split("/")
    with suppress(OSError):
        for count in range(len(parts) - 1, 0, -1):
            with _folder_of(directory, "/".join(parts[:count])) as (folder, last):
                os.rmdir(last, dir_fd=folder)


@contextmanager
def _folder_of(
    directory: Path, name: str, *, make: bool = False
) -> Iterator[tuple[int, str]]:
    """The open folder a name lies in, reached without following links, and its end."""
    *parents, last = name.split("/")
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(parent, 0o700, dir_fd=folder)
            below = os.open(parent, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder, last
    finally:
        os.close(folder)


@contextmanager
def _failing_on(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an error that names the path."""
    try:
        yield
    except OSError as error:
        raise SandboxError(
            f"{escaped(str(path))} cannot be changed: {_said(error)}.",
            remedy="Look at what lies there; links are not followed.",
        ) from error


def _said(error: OSError) -> str:
    return error.strerror or type(error).__name__
