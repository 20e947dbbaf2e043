"""Runs a GPU tool so that it can neither hang, nor flood, nor outlive its caller."""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from agentfarm.monitoring._gpu_source import Unavailable, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Where ROCm puts its tools without always adding the folder to PATH.
_ROCM = "/opt/rocm/bin"
_MOST_BYTES = 8 * 2**20
_DEATH_S = 1.0
_MOST_STARTS = 100  # of a text that looks like JSON at every line, and is none
_DOCUMENT = re.compile(r"^[\[{]", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOutput:
    """What a tool left: many write their errors to stdout, and end with 0."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def reason(self) -> str:
        """Why it is of no use, in its own words."""
        words = said(self.stdout) or said(self.stderr) or "nothing"
        if self.returncode:
            return f"ended with status {self.returncode}, saying: {words}"
        return f"named no card, saying: {words}"


class Tools:
    """Finds GPU tools and runs them, each in a process group of its own.

    Args:
        search_path: Folders, separated as in ``PATH``; if None, ``PATH`` and ROCm's.
    """

    def __init__(self, search_path: str | None = None) -> None:
        self._search_path = search_path
        self._lock = threading.Condition()
        self._running: dict[subprocess.Popen[bytes], str] = {}
        self._starting = 0
        self._closed = False

    def run(self, program: str, *arguments: str, timeout_s: float) -> ToolOutput:
        """Run a tool to its end.

        Raises:
            Unavailable: It is not installed, does not start, is too slow or writes
                too much.
        """
        process = self._start(program, arguments)
        try:
            stdout, stderr = _collect(process, timeout_s)
        finally:
            self._end(process)
        return ToolOutput(
            returncode=process.returncode,
            stdout=stdout.decode(errors="replace"),
            stderr=stderr.decode(errors="replace"),
        )

    def close(self) -> None:
        """End every tool that is still running, and start no other."""
        with self._lock:
            self._closed = True
            # A program that is about to start must not be missed. One that cannot even
            # be started, on a dead network disk, is not waited for any longer.
            self._lock.wait_for(lambda: self._starting == 0, timeout=_DEATH_S)
            for process in self._running:
                _kill(process)

    def _start(self, program: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        path = self._find(program)
        self._admit(program)
        process = None
        try:
            # Not under the lock: a slow start must not hold up the others.
            process = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"{path} cannot be run: {error.strerror}") from error
        finally:
            with self._lock:
                if process is not None:
                    self._running[process] = program
                self._starting -= 1
                self._lock.notify_all()
        return process

    def _find(self, program: str) -> str:
        found = shutil.which(program, path=self._search_path)
        if found is None and self._search_path is None:
            found = shutil.which(program, path=_ROCM)
        if found is None:
            raise Unavailable("not installed, or not on PATH")
        return found

    def _admit(self, program: str) -> None:
        """Start nothing more where all is over, or where one cannot be killed."""
        with self._lock:
            if self._closed:
                raise Unavailable("the monitor is closed")
            self._running = {p: n for p, n in self._running.items() if p.poll() is None}
            stuck = [p.pid for p, name in self._running.items() if name == program]
            if stuck:
                raise Unavailable(
                    f"process {stuck[0]} hangs in the driver, past killing"
                )
            self._starting += 1

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode is None:
            _kill(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_DEATH_S)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        if process.returncode is not None:
            with self._lock:
                self._running.pop(process, None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group; its number is safe, for nobody has waited for it yet."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _collect(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + timeout_s
    out, err = bytearray(), bytearray()
    late = Unavailable(f"did not end within {timeout_s:g} s")
    with selectors.DefaultSelector() as selector:
        for pipe, buffer in ((process.stdout, out), (process.stderr, err)):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, buffer)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready or time.monotonic() >= deadline:
                raise late
            for key, _ in ready:
                piece = os.read(key.fd, 2**16)
                if not piece:
                    selector.unregister(key.fileobj)
                key.data.extend(piece)
                if len(key.data) > _MOST_BYTES:
                    raise Unavailable("wrote more than 8 MiB")
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise late from None
    return bytes(out), bytes(err)


def json_documents(text: str) -> Iterator[Any]:
    """JSON objects and arrays that begin a line, whatever other lines there are.

    Tools write warnings and banners before them, to stdout.
    """
    decoder = json.JSONDecoder()
    end = 0
    for match in islice(_DOCUMENT.finditer(text), _MOST_STARTS):
        if match.start() < end:
            continue
        try:
            document, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        yield document
