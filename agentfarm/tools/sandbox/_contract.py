"""What a sandbox is: its limits, what goes in, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one run may use. All hold by default; there is no way to lift the network's.

    Attributes:
        memory_bytes: Of all processes together, files in `/work` and `/tmp` counted
            in; there is no swap on top.
        cpus: Processor time per second of wall time.
        pids: Processes and threads at once, the sandbox's own one counted in.
        open_files: Open files of one process.
        file_size_bytes: Size of one file.
        work_bytes: Size of `/work`, where the run starts and its files lie.
        work_inodes: Files and folders in `/work`.
        tmp_bytes: Size of `/tmp`.
        tmp_inodes: Files and folders in `/tmp`.
        shm_bytes: Size of `/dev/shm`, which multiprocessing uses.
        output_bytes: Kept of each of stdout and stderr; what follows is dropped.
        collect_files: Files that come back.
        collect_bytes: Sum of their sizes.
    """

    memory_bytes: int = 512 * MIB
    cpus: float = 1.0
    pids: int = 128
    open_files: int = 1024
    file_size_bytes: int = 64 * MIB
    work_bytes: int = 64 * MIB
    work_inodes: int = 8192
    tmp_bytes: int = 64 * MIB
    tmp_inodes: int = 8192
    shm_bytes: int = 16 * MIB
    output_bytes: int = MIB
    collect_files: int = 512
    collect_bytes: int = 16 * MIB

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) <= 0:
                raise ValueError(f"Limits.{item.name} must be above 0.")

    def fits_container(self, other: Limits) -> bool:
        """Whether a container made for `other` enforces these limits too."""
        per_run = {"output_bytes", "collect_files", "collect_bytes"}
        return all(
            getattr(self, item.name) == getattr(other, item.name)
            for item in fields(self)
            if item.name not in per_run
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxFile:
    """A file that goes into a sandbox or came out of one.

    Attributes:
        content: Its bytes.
        executable: Whether its owner may execute it; no other mode bit crosses.
    """

    content: bytes = field(repr=False)
    executable: bool = False

    @property
    def text(self) -> str:
        r"""The content as UTF-8; undecodable bytes are shown as ``\xNN``."""
        return self.content.decode(errors="backslashreplace")


Files = Mapping[str, SandboxFile | bytes | str | Path] | Path


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxResult:
    r"""How a run ended and what it left.

    Attributes:
        exit_code: Exit status, 128 + n where signal n ended it; None where the
            timeout did.
        stdout: Its text; undecodable bytes are shown as ``\xNN``.
        stderr: The same.
        stdout_truncated: Whether more was written than `Limits.output_bytes`.
        stderr_truncated: The same.
        duration_s: Seconds from the start of the command to its end.
        startup_s: Seconds spent before on a sandbox to run it in; near zero where
            one was ready.
        timed_out: Whether the timeout ended it.
        oom_killed: Whether the kernel killed a process of the run for memory; the
            exit status may be 0 where it was a child.
        files: What the run made or changed in `/work`, by relative name; empty
            after a timeout.
        deleted: Names that went in and are no longer there.
        omitted: Names that did not come back, with the reason: links, devices,
            hostile names, or more than the limits.
        backend: ``docker`` or ``bubblewrap``.
        unenforced: Limits that this backend could not enforce, in words.
    """

    exit_code: int | None
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    duration_s: float = 0.0
    startup_s: float = 0.0
    timed_out: bool = False
    oom_killed: bool = False
    files: Mapping[str, SandboxFile] = field(
        default_factory=lambda: MappingProxyType({})
    )
    deleted: tuple[str, ...] = ()
    omitted: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    backend: str = ""
    unenforced: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the command ended by itself with status 0."""
        return self.exit_code == 0 and not self.timed_out

    @property
    def truncated(self) -> bool:
        """Whether output was dropped on either stream."""
        return self.stdout_truncated or self.stderr_truncated

    @property
    def summary(self) -> str:
        """How it ended, in one line, e.g. ``exit 0 after 0.02 s``."""
        ended = (
            f"timed out after {self.duration_s:.2f} s"
            if self.timed_out
            else f"exit {self.exit_code} after {self.duration_s:.2f} s"
        )
        facts = {
            "out of memory": self.oom_killed,
            "stdout cut": self.stdout_truncated,
            "stderr cut": self.stderr_truncated,
            f"{len(self.files)} files": self.files,
            f"{len(self.deleted)} deleted": self.deleted,
            f"{len(self.omitted)} left behind": self.omitted,
        }
        return ", ".join([ended, *(text for text, holds in facts.items() if holds)])

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON; of each file its size in bytes, not its content."""
        shown = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in {"files", "omitted"}
        }
        shown["files"] = {name: len(each.content) for name, each in self.files.items()}
        shown["omitted"] = dict(self.omitted)
        return shown

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        parts = [Text(self.summary, style="green" if self.ok else "red")]
        if self.stdout:
            parts.append(Text(self.stdout.rstrip("\n")))
        if self.stderr:
            parts.append(Text(self.stderr.rstrip("\n"), style="yellow"))
        return Group(*parts)

    def _repr_html_(self) -> str:
        from html import escape

        parts = [f"<b>{escape(self.summary)}</b>"]
        parts += [
            f"<pre title='{name}'>{escape(text)}</pre>"
            for name, text in (("stdout", self.stdout), ("stderr", self.stderr))
            if text
        ]
        return "".join(parts)


class Sandbox(Protocol):
    """Runs code that nobody trusts; many runs at once, none sees another.

    Use it as an async context manager, or call `aclose`.
    """

    @property
    def backend(self) -> str:
        """``docker`` or ``bubblewrap``."""

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Limits that it cannot enforce on this machine, in words."""

    async def run(
        self,
        command: Sequence[str] | str | None = None,
        *,
        python: str | None = None,
        files: Files | None = None,
        stdin: bytes | str = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        limits: Limits | None = None,
        collect: bool = True,
    ) -> SandboxResult:
        """Run one command in a sandbox of its own, which then is thrown away.

        The command ends when its first process does; what it left in the
        background is killed. A failure of the command is a result, not an error.

        Args:
            command: Program and arguments, or one line for ``/bin/sh -c``.
            python: Source to run instead, with the sandbox's Python 3.
            files: Laid into `/work` before: content by relative name, where a
                `Path` names a file of the host; or one folder to copy, whose
                links and special files are left out.
            stdin: What the command reads.
            env: Environment variables beside the sandbox's own.
            timeout_s: Wall time, seconds; the sandbox's default if None.
            limits: The sandbox's default if None.
            collect: Whether files come back.

        Raises:
            SandboxError: The run could not be started: a file name or size is
                refused, or the sandbox broke.
            SandboxUnavailable: There is no engine or image any more.
            SandboxTimeout: The sandbox did not start or stop in time.
        """

    async def aclose(self) -> None:
        """Throw away what is ready or running."""

    async def __aenter__(self) -> Self:
        """Enter the context."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Call `aclose`."""
