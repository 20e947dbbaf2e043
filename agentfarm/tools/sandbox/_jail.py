"""One bubblewrap sandbox with a supervisor that waits for its one job."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable
from agentfarm.tools.sandbox._bwrap import OWN_ETC, Bwrap, Interpreter, arguments
from agentfarm.tools.sandbox._exchange import await_ready

if TYPE_CHECKING:
    from agentfarm.tools.sandbox._cgroup import Cgroups
    from agentfarm.tools.sandbox._contract import Limits

NOBODY = 65534
START_S = 30.0
GONE_S = 10.0
MAX_DIAGNOSIS_BYTES = 4000
# It waits, already under its user, until it is in its control groups; the line that
# lets it go on comes through the job's own stream. A shell reads no byte beyond it.
GATE = ("/bin/sh", "-c", 'IFS= read -r _ && exec "$@"', "sh")


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What this machine has for sandboxes.

    Attributes:
        bwrap: The program.
        interpreter: The Python inside.
        cgroups: What control groups enforce.
        seccomp: The filter for system calls.
        drop: Whether to give up root first. Without that, the code inside could
            write to /proc/sys, whose files belong to root, in spite of having no
            capability.
        python: The Python inside and whether it has pytest, in words.
        unenforced: Limits that do not hold, in words.
    """

    bwrap: Bwrap
    interpreter: Interpreter
    cgroups: Cgroups
    seccomp: bytes
    drop: bool
    python: str = ""
    unenforced: tuple[str, ...] = ()


class Jail:
    """A started sandbox; `channel` leads to its supervisor.

    bwrap dies with the thread that made this: it must outlive the run.

    Args:
        host: What it is made of.
        limits: What the run may use.

    Raises:
        SandboxUnavailable: bwrap cannot be started.
        SandboxError: The kernel refuses a control group.
    """

    def __init__(self, host: Host, limits: Limits) -> None:
        self._supervisor: int | None = None
        self._ended = False
        self.oom_killed = False
        self.diagnosis = ""
        with ExitStack() as undo:
            self._group = host.cgroups.create(limits)
            undo.callback(self._group.remove)
            self.channel, theirs = socket.socketpair()
            undo.enter_context(self.channel)
            self._info, info = os.pipe()
            undo.callback(os.close, self._info)
            with theirs, os.fdopen(info, "wb"):
                self._process = _spawn(host, limits, theirs, info)
            undo.pop_all()
        try:
            self._group.attach(self._process.pid)
        except BaseException:
            self.end()
            raise

    def start(self) -> None:
        """Let it begin, and wait until the supervisor takes a job.

        Raises:
            SandboxError: It ended before.
            SandboxTimeout: It did not get ready in time.
        """
        try:
            self.channel.sendall(b"\n")
            self._open_supervisor()
            await_ready(self.channel, START_S)
        except SandboxTimeout:
            self.end()
            raise
        except (SandboxError, OSError) as error:
            self.end()
            raise SandboxError(
                f"The sandbox did not start: {self.diagnosis or error}"
            ) from error

    def shutdown(self) -> None:
        """End the stream for whoever reads it, from any thread."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Kill everything in it and wait until that is gone; more than once is fine.

        Raises:
            SandboxTimeout: The kernel does not get rid of it.
        """
        if self._ended:
            return
        self._ended = True
        self.shutdown()
        try:
            self._kill()
        finally:
            self.oom_killed = self._group.oom_kills() > 0
            try:
                self._group.remove()
            finally:
                self._close()

    def _kill(self) -> None:
        """Kill PID 1, which ends last in its namespace, and wait for bwrap."""
        if self._supervisor is None:
            self._process.kill()
        else:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._supervisor, signal.SIGKILL)
            if not _has_ended(self._supervisor, GONE_S):
                raise SandboxTimeout(
                    f"The sandbox is not gone {GONE_S:g} s after it was killed.",
                    remedy="A process in it hangs in the kernel; see `dmesg`.",
                )
        try:
            self._process.wait(GONE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _close(self) -> None:
        self.channel.close()
        os.close(self._info)
        if self._supervisor is not None:
            os.close(self._supervisor)
        errors = self._process.stderr
        if errors is not None:
            os.set_blocking(errors.fileno(), False)
            said = errors.read(MAX_DIAGNOSIS_BYTES) or b""
            self.diagnosis = said.decode(errors="backslashreplace").strip()
            errors.close()

    def _open_supervisor(self) -> None:
        """Take hold of PID 1 of the sandbox by what bwrap says of it."""
        pid = int(json.loads(_read_all(self._info))["child-pid"])
        handle = os.pidfd_open(pid)
        # The id may be another process's by now, unless this one's parent is ours
        # and it still runs.
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        if int(parent) != self._process.pid or _has_ended(handle, 0.0):
            os.close(handle)
            raise SandboxError("bwrap ended at once.")
        self._supervisor = handle


def _spawn(
    host: Host, limits: Limits, theirs: socket.socket, info: int
) -> subprocess.Popen[bytes]:
    with ExitStack() as stack:
        seccomp = stack.enter_context(_memory_file(host.seccomp))
        files = {
            path: stack.enter_context(_memory_file(content.encode())).fileno()
            for path, content in OWN_ETC.items()
        }
        command = arguments(
            host.bwrap,
            host.interpreter,
            limits,
            rlimits=_rlimits(host, limits),
            files=files,
            seccomp=seccomp.fileno(),
            info=info,
        )
        user = NOBODY if host.drop else None
        try:
            return subprocess.Popen(  # noqa: S603 - the command is ours
                [*GATE, *command],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                cwd="/",
                env={},
                pass_fds=(info, seccomp.fileno(), *files.values()),
                start_new_session=True,  # Ctrl-C is for us to handle
                user=user,
                group=user,
                extra_groups=[] if host.drop else None,
            )
        except OSError as error:
            raise SandboxUnavailable(
                f"bubblewrap cannot be started: {error}.",
                remedy="A process of root needs CAP_SETUID, to give root up.",
            ) from error


def _rlimits(host: Host, limits: Limits) -> dict[str, int]:
    """What the supervisor, and so every process, is limited to by itself."""
    values = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.file_size_bytes,
    }
    if not host.cgroups.enforces("memory"):
        values["RLIMIT_AS"] = limits.memory_bytes
    if not host.cgroups.enforces("pids"):
        # Set in a user namespace of its own, it counts what is in there.
        values["RLIMIT_NPROC"] = limits.pids
    return values


def _memory_file(content: bytes) -> BinaryIO:
    """A file without a name that holds this, at its beginning."""
    file = os.fdopen(os.memfd_create("agentfarm"), "w+b", buffering=0)
    file.write(content)
    file.seek(0)
    return file


def _read_all(pipe: int) -> bytes:
    """Read to the end, within `START_S`."""
    data = b""
    while True:
        if not select.select([pipe], [], [], START_S)[0]:
            raise SandboxTimeout(f"bwrap said nothing for {START_S:g} s.")
        part = os.read(pipe, 4096)
        if not part:
            break
        data += part
    if not data:
        raise SandboxError("bwrap ended at once.")
    return data


def _has_ended(handle: int, timeout_s: float) -> bool:
    """Whether a process ends in time; one that has its parent to collect counts."""
    return bool(select.select([handle], [], [], timeout_s)[0])
