"""PID 1 of a sandbox: takes one job, runs it, sends back what it made.

This file runs inside the sandbox, under whatever Python (3.9 or later) is there, as
`python3 -I -S -B -c <this text>`, and imports nothing of ours. It is no boundary:
the host takes what it sends for as untrusted as the job. What it buys: no
privileged process walks the job's files, the format cannot express a link or a
device, and the end of the controller is the end of the job.

`_wire.py` describes the frames.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import stat
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

WORK = "/work"
CHUNK = 65536
HEADER = struct.Struct(">cI")
OOM_COUNTERS = (  # cgroup v2, then v1
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
)
PR_SET_DUMPABLE = 4

State = tuple[int, int, int, int]  # mode, size, modification and change time


def main() -> None:
    """Serve one job."""
    if os.getpid() != 1:
        sys.exit("The supervisor must be PID 1 of its own namespace.")
    protect()
    send(b"R")
    job, stdin = receive()
    before = dict(scan())
    ooms = oom_kills()
    report = run(job, stdin)
    report["oom_killed"] = oom_kills() > ooms
    send(b"X", json.dumps(report).encode())
    if job["collect"]:
        collect(job, before)
    send(b".")


def protect() -> None:
    """Close /proc/1/mem, fd and environ to the job, which has the same uid."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return  # only a job's report on itself would be the safer for it


def send(kind: bytes, payload: bytes = b"") -> None:
    """Write one frame."""
    write_all(1, HEADER.pack(kind, len(payload)) + payload)


def write_all(target: int, payload: bytes) -> None:
    """Write everything, however many calls it takes."""
    view = memoryview(payload)
    while view:
        view = view[os.write(target, view) :]


def read_exactly(count: int) -> bytes:
    """Read from the controller; end where there is none any more."""
    parts = []
    while count:
        part = os.read(0, min(count, CHUNK))
        if not part:
            sys.exit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive() -> tuple[dict[str, Any], int]:
    """Take the job, its files and its stdin, until the frame that starts it."""
    stdin = os.memfd_create("stdin")
    target = os.open(os.devnull, os.O_WRONLY)
    job: dict[str, Any] = {}
    while True:
        kind, length = HEADER.unpack(read_exactly(HEADER.size))
        payload = read_exactly(length)
        try:
            if kind == b"J":
                job = json.loads(payload)
            elif kind == b"F":
                os.close(target)
                target = create(**json.loads(payload))
            elif kind == b"D":
                write_all(target, payload)
            elif kind == b"I":
                write_all(stdin, payload)
            elif kind == b"G":
                os.close(target)
                os.lseek(stdin, 0, os.SEEK_SET)
                return job, stdin
        except OSError as error:
            refuse(f"{error.strerror}: {error.filename or 'while copying files in'}")


def create(name: str, executable: bool) -> int:
    """Open a new file below the work folder."""
    path = os.path.join(WORK, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags, 0o755 if executable else 0o644)


def refuse(reason: str) -> NoReturn:
    """Say why the job cannot start, and end."""
    send(b"!", reason.encode(errors="backslashreplace"))
    sys.exit(1)


def run(job: dict[str, Any], stdin: int) -> dict[str, Any]:
    """Run the job to its end, then end everything it left running."""
    wake, wakeup = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wakeup, False)
    for number in (
        signal.SIGCHLD,
        signal.SIGINT,
    ):  # the one wakes us, the job sent the other
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wakeup)
    try:
        process = subprocess.Popen(
            job["argv"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=WORK,
            env={**os.environ, **job["env"]},
            start_new_session=True,
            preexec_fn=volunteer,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        send(b"E", f"{error}\n".encode(errors="backslashreplace"))
        return {"code": 127 if isinstance(error, FileNotFoundError) else 126}
    os.close(stdin)
    output = Output(process, job["output_bytes"])
    code = supervise(process.pid, output, wake, time.monotonic() + job["deadline_s"])
    end_all()
    output.drain()
    return {"code": 128 - code if code < 0 else code}


def volunteer() -> None:
    """Offer the job to the kernel's OOM killer before its supervisor."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return


def supervise(pid: int, output: Output, wake: int, deadline: float) -> int:
    """Forward output until the job's first process ends; gives its exit status."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        for pipe in output.pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while (left_s := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                if key.fd == 0:
                    os._exit(0)  # the controller is gone, and the namespace with us
                elif key.fd == wake:
                    os.read(wake, CHUNK)
                elif not output.forward(key.fd):
                    selector.unregister(key.fd)
            code = reap(pid)
            if code is not None:
                return code
    os._exit(0)  # the controller sleeps: its own timeout should have come first


def reap(wanted: int) -> int | None:
    """Collect ended processes; the exit status of `wanted` if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == wanted:
            found = os.waitstatus_to_exitcode(status)


def end_all() -> None:
    """Kill every other process of the namespace and wait until none is left."""
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
            os.waitpid(-1, 0)
        except (ProcessLookupError, ChildProcessError):
            break
    reap(0)


def oom_kills() -> int:
    """How often the kernel killed here for memory, as the cgroup counts it."""
    for path in OOM_COUNTERS:
        try:
            with open(path) as file:
                return int(dict(line.split() for line in file)["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


class Output:
    """The job's two output pipes, each forwarded up to a number of bytes."""

    def __init__(self, process: subprocess.Popen[bytes], limit: int) -> None:
        self.process = process  # keeps the pipes open
        self.pipes = {
            stream.fileno(): kind
            for stream, kind in ((process.stdout, b"O"), (process.stderr, b"E"))
            if stream
        }
        self.left = dict.fromkeys(self.pipes, limit)
        self.cut: set[int] = set()

    def forward(self, pipe: int) -> bool:
        """Pass on what is there; False at the end of the stream."""
        data = os.read(pipe, CHUNK)
        keep = data[: self.left[pipe]]
        if keep:
            self.left[pipe] -= len(keep)
            send(self.pipes[pipe], keep)
        if len(keep) < len(data) and pipe not in self.cut:
            self.cut.add(pipe)
            send(b"C", self.pipes[pipe])
        return bool(data)

    def drain(self) -> None:
        """Read to the end; every writer is dead."""
        for pipe in self.pipes:
            while self.forward(pipe):
                continue


def scan() -> Iterator[tuple[str, State]]:
    """Everything below the work folder but folders; links are not followed."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(os.path.join(WORK, folder)), key=by_name)
        except OSError:
            continue
        for entry in entries:
            name = os.path.join(folder, entry.name)
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode):
                pending.append(name)
            else:
                times = found.st_mtime_ns, found.st_ctime_ns
                yield name, (found.st_mode, found.st_size, *times)


def by_name(entry: os.DirEntry[str]) -> str:
    """The order in which files are sent, so that caps cut the same ones each time."""
    return entry.name


def collect(job: dict[str, Any], before: dict[str, State]) -> None:
    """Send the files that the job made or changed, as far as the limits go."""
    files, room = job["collect_files"], job["collect_bytes"]
    after = dict(scan())
    for name in before.keys() - after.keys():
        send(b"M", json.dumps({"name": name}).encode())
    for name, state in after.items():
        if before.get(name) == state or set(name.split("/")) & set(job["ignore"]):
            continue
        if not stat.S_ISREG(state[0]):
            skip(name, "not a regular file")
        elif files == 0:
            skip(name, "more files than the limit")
        elif state[1] > room:
            skip(name, "more bytes than the limit")
        elif send_file(name, state):
            files, room = files - 1, room - state[1]


def skip(name: str, reason: str) -> None:
    """Say that a file stays behind."""
    send(b"S", json.dumps({"name": name, "reason": reason}).encode())


def send_file(name: str, state: State) -> bool:
    """Send one regular file; False where it cannot be read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        source = os.open(os.path.join(WORK, name), flags)
    except OSError as error:
        skip(name, error.strerror or "unreadable")
        return False
    entry = {"name": name, "size": state[1], "executable": bool(state[0] & 0o100)}
    send(b"F", json.dumps(entry).encode())
    while data := os.read(source, CHUNK):
        send(b"D", data)
    os.close(source)
    return True


main()
