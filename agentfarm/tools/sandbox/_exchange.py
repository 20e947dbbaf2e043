"""One job's way through a sandbox, from the host's side: what goes in, what comes back."""

from __future__ import annotations

import select
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from agentfarm.errors import SandboxError, SandboxTimeout
from agentfarm.tools.sandbox._contract import (
    Files,
    Limits,
    SandboxFile,
    SandboxResult,
)
from agentfarm.tools.sandbox._files import CACHES, Incoming, Input, inputs
from agentfarm.tools.sandbox._wire import Decoder, broken, frame, json_frame, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_TIMEOUT_S = 24 * 3600.0
MAX_STDIN_BYTES = 64 * 2**20
HANDOVER_S = 60.0  # for copying in, and again for copying out
SELF_DESTRUCT_S = 15.0  # after the timeout, the supervisor ends by itself
CHUNK = 65536

SUPERVISOR = Path(__file__).with_name("_supervisor.py")
SUPERVISOR_COMMAND = ("python3", "-I", "-S", "-B", "-c")

# What every job finds in its environment, whatever the backend.
ENVIRONMENT = {
    "HOME": "/work",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own, a fresh tmpfs
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Channel(Protocol):
    """The stream to a supervisor; a socket is one."""

    def settimeout(self, timeout_s: float, /) -> None:
        """Let `recv` and `sendall` raise TimeoutError after so many seconds."""

    def recv(self, count: int, /) -> bytes:
        """Some bytes; none at the end of the stream."""

    def send(self, data: memoryview, /) -> int:
        """Send some of it; how much."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""

    def fileno(self) -> int:
        """What the kernel calls it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one run is to do, checked and ready to send."""

    argv: tuple[str, ...]
    files: tuple[Input, ...]
    stdin: bytes
    env: Mapping[str, str]
    timeout_s: float
    limits: Limits
    collect: bool


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came back until the stream ended or the time was over.

    `end` is ``done``, ``timeout``, or ``lost`` where the stream broke off.
    """

    end: Literal["done", "timeout", "lost"] = "lost"
    exit_code: int | None = None
    oom_killed: bool = False
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    duration_s: float = 0.0
    files: Mapping[str, SandboxFile] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    omitted: Mapping[str, str] = field(default_factory=dict)

    def result(
        self, *, backend: str, unenforced: tuple[str, ...], startup_s: float
    ) -> SandboxResult:
        """The same for people, text decoded."""
        return SandboxResult(
            exit_code=self.exit_code,
            stdout=self.stdout.decode(errors="backslashreplace"),
            stderr=self.stderr.decode(errors="backslashreplace"),
            stdout_truncated=self.stdout_truncated,
            stderr_truncated=self.stderr_truncated,
            duration_s=self.duration_s,
            startup_s=startup_s,
            timed_out=self.end == "timeout",
            oom_killed=self.oom_killed,
            files=self.files,
            deleted=self.deleted,
            omitted=self.omitted,
            backend=backend,
            unenforced=unenforced,
        )


def prepare(
    command: Sequence[str] | str | None,
    *,
    python: str | None,
    files: Files | None,
    stdin: bytes | str,
    env: Mapping[str, str] | None,
    timeout_s: float,
    limits: Limits,
    collect: bool,
) -> Job:
    """Check what `Sandbox.run` was given.

    Raises:
        SandboxError: It is contradictory, or a file may not go in.
    """
    if (command is None) == (python is None):
        raise SandboxError("A run takes a command or Python source, and not both.")
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise SandboxError(f"The timeout of {timeout_s} s is not within 0 and 1 day.")
    stdin = stdin.encode() if isinstance(stdin, str) else stdin
    if len(stdin) > MAX_STDIN_BYTES:
        raise SandboxError(
            f"stdin holds {len(stdin)} bytes; {MAX_STDIN_BYTES} is the most.",
            remedy="Hand it over as a file.",
        )
    entries = inputs(files)
    if python is not None:
        name = _free_name({entry.name for entry in entries})
        entries = [*entries, *inputs({name: python})]
        command = ("python3", name)
    elif isinstance(command, str):
        command = ("/bin/sh", "-c", command)
    argv, env = tuple(command or ()), dict(env or {})
    _check_strings(argv, env)
    return Job(
        argv=argv,
        files=tuple(entries),
        stdin=stdin,
        env=env,
        timeout_s=timeout_s,
        limits=limits,
        collect=collect,
    )


def _free_name(taken: set[str]) -> str:
    """A name for the source, so that a traceback can quote its lines."""
    numbered = (f"main_{number}.py" for number in range(1, len(taken) + 2))
    return next(name for name in ("main.py", *numbered) if name not in taken)


def _check_strings(argv: tuple[str, ...], env: Mapping[str, str]) -> None:
    if not argv or not argv[0]:
        raise SandboxError("The command is empty.")
    for text in (*argv, *env, *env.values()):
        if "\0" in text:
            raise SandboxError(f"{text[:40]!r} holds a NUL character.")
    for name in env:
        if not name or "=" in name:
            raise SandboxError(f"{name!r} is no name for an environment variable.")


def await_ready(channel: Channel, timeout_s: float) -> None:
    """Wait for a supervisor to say that it takes a job.

    Raises:
        SandboxError: It ended or said something else.
        SandboxTimeout: It said nothing in time.
    """
    conversation = _Conversation(channel)
    try:
        for kind, _ in conversation.frames(time.monotonic() + timeout_s):
            if kind == b"R":
                return
            raise broken(f"{kind!r} before it was ready")
    except TimeoutError:
        raise SandboxTimeout(
            f"The sandbox was not ready within {timeout_s:g} s."
        ) from None
    raise SandboxError("The sandbox ended before it was ready.")


def converse(channel: Channel, job: Job) -> Outcome:
    """Hand a job to a ready supervisor and take what comes back.

    It returns at the end of the job, at its timeout, or where the stream breaks
    off; ending the sandbox is the caller's.

    Raises:
        SandboxError: The job cannot start, or the sandbox breaks the format.
        SandboxTimeout: Copying in or out takes too long.
    """
    conversation = _Conversation(channel)
    refusal = conversation.hand_over(job)
    if refusal:
        raise _refused(refusal)
    return conversation.follow(job)


def _refused(reason: str) -> SandboxError:
    return SandboxError(
        f"The files do not go into the sandbox: {reason}",
        remedy="Hand over less, or raise limits.work_bytes and work_inodes.",
    )


def _reason(payload: bytes) -> str:
    return payload.decode(errors="backslashreplace")[:500]


class _Conversation:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._decoder = Decoder()

    def hand_over(self, job: Job) -> str:
        """Send everything but the start; the reason of a refusal, or `""`."""
        deadline = time.monotonic() + HANDOVER_S
        try:
            for data in _outgoing(job):
                if not self._send(data, deadline):
                    return self._refusal(deadline)
        except TimeoutError:
            raise SandboxTimeout(
                f"The sandbox did not take the files within {HANDOVER_S:g} s."
            ) from None
        except OSError:
            return self._refusal(deadline)
        return ""

    def _send(self, data: bytes, deadline: float) -> bool:
        """Send unless the other side speaks, which before the start is a refusal.

        The engine keeps the stream of an ended container open, and reads no more
        of it: a plain `sendall` would wait in vain.
        """
        view = memoryview(data)
        while view:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._channel.settimeout(left_s)
            poll = select.poll()
            poll.register(self._channel.fileno(), select.POLLIN | select.POLLOUT)
            events = sum(event for _, event in poll.poll(left_s * 1000))
            if events & (select.POLLIN | select.POLLHUP):
                return False
            if events & select.POLLOUT:
                view = view[self._channel.send(view) :]
        return True

    def _refusal(self, deadline: float) -> str:
        for kind, payload in self.frames(deadline):
            if kind == b"!":
                return _reason(payload)
        return "it ended."

    def follow(self, job: Job) -> Outcome:
        """Start the job and read until it is over."""
        start = time.monotonic()
        deadline = start + job.timeout_s
        reader = _Reader(job)
        try:
            self._channel.settimeout(job.timeout_s)
            self._channel.sendall(frame(b"G"))
            for kind, payload in self.frames(deadline):
                if kind == b"X":
                    break
                reader.take(kind, payload)
            else:
                return reader.outcome  # lost
        except TimeoutError:
            reader.outcome.end = "timeout"
            return reader.outcome
        except OSError:
            return reader.outcome  # lost as well
        finally:
            reader.outcome.duration_s = time.monotonic() - start
        reader.take(kind, payload)
        return self._collect(reader)

    def _collect(self, reader: _Reader) -> Outcome:
        try:
            for kind, payload in self.frames(time.monotonic() + HANDOVER_S):
                reader.take(kind, payload)
                if kind == b".":
                    break
        except TimeoutError:
            raise SandboxTimeout(
                f"The sandbox did not give its files back within {HANDOVER_S:g} s."
            ) from None
        return reader.finished()

    def frames(self, deadline: float) -> Iterator[tuple[bytes, bytes]]:
        """Frames until the end of the stream; TimeoutError at the deadline."""
        yield from self._decoder.feed(b"")  # what an earlier reader left
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._channel.settimeout(left_s)
            data = self._channel.recv(CHUNK)
            if not data:
                return
            yield from self._decoder.feed(data)


def _outgoing(job: Job) -> Iterator[bytes]:
    limits = job.limits
    yield json_frame(
        b"J",
        {
            "argv": job.argv,
            "env": dict(job.env),
            "deadline_s": job.timeout_s + SELF_DESTRUCT_S,
            "output_bytes": limits.output_bytes,
            "collect": job.collect,
            "collect_files": limits.collect_files,
            "collect_bytes": limits.collect_bytes,
            "ignore": sorted(CACHES),
        },
    )
    for entry in job.files:
        yield json_frame(b"F", {"name": entry.name, "executable": entry.executable})
        for chunk in entry.chunks():
            yield frame(b"D", chunk)
    for start in range(0, len(job.stdin), CHUNK):
        yield frame(b"I", job.stdin[start : start + CHUNK])


class _Reader:
    """Takes frames of a sandbox that nobody trusts, under the job's limits."""

    def __init__(self, job: Job) -> None:
        self.outcome = Outcome()
        self._limits = job.limits
        self._incoming = Incoming(
            max_files=job.limits.collect_files, max_bytes=job.limits.collect_bytes
        )
        self._sent = {entry.name for entry in job.files}
        self._gone: set[str] = set()

    def take(self, kind: bytes, payload: bytes) -> None:
        """Take one frame."""
        match kind:
            case b"!":
                raise _refused(_reason(payload))
            case b"O" | b"E":
                self._keep("stdout" if kind == b"O" else "stderr", payload)
            case b"C":
                self._cut(payload)
            case b"X":
                report = parse(payload, code=int, oom_killed=bool)
                self.outcome.exit_code = report["code"]
                self.outcome.oom_killed = report["oom_killed"]
            case b"F":
                entry = parse(payload, name=str, size=int, executable=bool)
                self._incoming.begin(
                    entry["name"], size=entry["size"], executable=entry["executable"]
                )
            case b"D":
                self._incoming.data(payload)
            case b"S":
                entry = parse(payload, name=str, reason=str)
                self._incoming.skip(entry["name"], entry["reason"])
            case b"M":
                self._forget(parse(payload, name=str)["name"])
            case b".":
                self.outcome.end = "done"
            case _:
                raise broken(f"a frame of kind {kind!r}")

    def finished(self) -> Outcome:
        """Everything, once no more comes."""
        self.outcome.files, self.outcome.omitted = self._incoming.finish()
        self.outcome.deleted = tuple(sorted(self._gone))
        return self.outcome

    def _keep(self, stream: Literal["stdout", "stderr"], payload: bytes) -> None:
        kept: bytearray = getattr(self.outcome, stream)
        room = self._limits.output_bytes - len(kept)
        kept += payload[:room]
        if len(payload) > room:
            setattr(self.outcome, f"{stream}_truncated", True)

    def _cut(self, stream: bytes) -> None:
        if stream == b"O":
            self.outcome.stdout_truncated = True
        if stream == b"E":
            self.outcome.stderr_truncated = True

    def _forget(self, name: str) -> None:
        if name in self._sent:
            self._gone.add(name)
