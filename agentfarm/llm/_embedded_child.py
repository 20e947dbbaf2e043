"""Starting the embedded server's process, and talking to one that runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from agentfarm.errors import ProviderError, ProviderTimeout
from agentfarm.llm import _embedded_server
from agentfarm.llm._embedded_server import INFO_FILE, LOG_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ANSWER_S = 10.0
_ANSWER_LIMIT_BYTES = 4096
_POLL_S = 0.2
_SAME_START_S = 2.0  # start times move with the clock of the machine
_LOG_TAIL_BYTES = 16_384
_LOG_TAIL_LINES = 4
_LOG_PREFIX = re.compile(r"^[\d.]+ [A-Z] ")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerInfo:
    """What a running server wrote into its `server.json`.

    Attributes:
        pid: Its process.
        created_at: Unix time at which that process started.
        url: Base URL of the HTTP server.
        api_key: Bearer token that the HTTP server wants.
        control_port: TCP port on 127.0.0.1.
        token: Opens the control port.
        model: The name it offers.
        gguf: The file it serves.
        context_length: Tokens that one request may take.
        slots: Requests answered at once.
    """

    pid: int
    created_at: float
    url: str
    api_key: str = field(repr=False)
    control_port: int
    token: str = field(repr=False)
    model: str
    gguf: str
    context_length: int
    slots: int


def read_info(folder: Path) -> ServerInfo | None:
    """Read `server.json`; None where there is none of this version."""
    try:
        content = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        return ServerInfo(
            **{each.name: content[each.name] for each in fields(ServerInfo)}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def live_process(info: ServerInfo) -> psutil.Process | None:
    """Find the server's process; None if it ended, also if its pid lives anew."""
    script = Path(_embedded_server.__file__).name
    try:
        process = psutil.Process(info.pid)
        same = (
            abs(process.create_time() - info.created_at) < _SAME_START_S
            # A zombie has no command line.
            and any(Path(word).name == script for word in process.cmdline())
        )
    except psutil.Error:
        return None
    return process if same else None


def connect(info: ServerInfo, op: str) -> tuple[socket.socket, dict[str, Any]]:
    """Say `op` on the control port; give the open connection and the answer.

    Raises:
        OSError: Nobody answers there, or not with what the server would.
    """
    sock = socket.create_connection(("127.0.0.1", info.control_port), _ANSWER_S)
    try:
        sock.sendall(json.dumps({"token": info.token, "op": op}).encode() + b"\n")
        with sock.makefile("rb") as stream:
            answer = _decode(stream.readline(_ANSWER_LIMIT_BYTES))
    except BaseException:
        sock.close()
        raise
    if answer.get("pid") != info.pid:
        sock.close()
        raise ConnectionRefusedError("The control port belongs to another process.")
    sock.setblocking(False)
    return sock, answer


def _decode(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        return {}


def ask(info: ServerInfo, op: str) -> dict[str, Any] | None:
    """Say ``status``, ``keep`` or ``stop``; None where nobody answers."""
    try:
        sock, answer = connect(info, op)
    except OSError:
        return None
    sock.close()
    return answer


def start_server(
    folder: Path,
    config: Mapping[str, Any],
    *,
    timeout_s: float | None,
    cancelled: Callable[[], bool],
) -> tuple[ServerInfo, socket.socket]:
    """Start the child process and wait until the model is loaded.

    Args:
        folder: Its state; the caller holds the lock there.
        config: What the child serves; see `_embedded_server`.
        timeout_s: Longest time to load; None waits for ever.
        cancelled: Asked often; true ends the child.

    Returns:
        The server and the lifeline to it. Closing the lifeline lets it go.

    Raises:
        ProviderError: The child ended before it was ready.
        ProviderTimeout: It took too long.
        InterruptedError: `cancelled` said so.
    """
    (folder / INFO_FILE).unlink(missing_ok=True)
    lifeline, theirs = socket.socketpair()
    with theirs:
        process = _spawn(folder, theirs)
    # Its end is noticed on the lifeline; this keeps it from staying a zombie.
    reaper = threading.Thread(target=process.wait, daemon=True, name="embedded-reaper")
    reaper.start()
    try:
        with contextlib.suppress(BrokenPipeError):
            lifeline.sendall(json.dumps(dict(config)).encode() + b"\n")
        line = _await_line(lifeline, timeout_s, cancelled)
        reaper.join(0 if line else _ANSWER_S)
        info = _started(line, folder, config, process.returncode)
    except BaseException as error:
        lifeline.close()
        process.kill()
        reaper.join(_ANSWER_S)
        if isinstance(error, TimeoutError):
            raise too_slow(folder, str(config["model"]), timeout_s) from None
        raise
    lifeline.setblocking(False)
    return info, lifeline


def _started(
    line: bytes, folder: Path, config: Mapping[str, Any], returncode: int | None
) -> ServerInfo:
    """Read the child's answer; none came if it ended."""
    if line:
        return ServerInfo(**json.loads(line))
    lines = log_tail(folder / LOG_FILE)
    said = f" Its log ends: {' | '.join(lines)}." if lines else ""
    remedy = "Name another model file (AGENTFARM_EMBEDDED__GGUF=/path/to/model.gguf)"
    if any("libgomp" in line for line in lines):
        # llama.cpp's wheel brings everything but the compiler's own runtime.
        remedy = "Install GCC's OpenMP runtime: apt-get install libgomp1"
    raise ProviderError(
        f"The embedded server could not load {config['model']}: "
        f"the process {_exit_words(returncode)}.{said}",
        remedy=f"{remedy}; the whole log is {folder / LOG_FILE}.",
        provider="embedded",
        host="embedded",
        model=str(config["alias"]),
    )


def _spawn(folder: Path, lifeline: socket.socket) -> subprocess.Popen[bytes]:
    """Start the child in a session of its own, out of reach of a Ctrl-C."""
    log = os.open(
        folder / LOG_FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600
    )
    try:
        # By path and with -P: it imports nothing of this package.
        return subprocess.Popen(  # noqa: S603 - fixed arguments, no shell
            [sys.executable, "-P", str(Path(_embedded_server.__file__))],
            stdin=lifeline.fileno(),
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _await_line(
    lifeline: socket.socket, timeout_s: float | None, cancelled: Callable[[], bool]
) -> bytes:
    """Receive a line, or nothing if the other side closes before its end."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(lifeline, selectors.EVENT_READ)
        while not received.endswith(b"\n"):
            if cancelled():
                raise InterruptedError("The start was cancelled.")
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError
            if selector.select(_POLL_S):
                try:
                    data = lifeline.recv(1 << 16)
                except ConnectionResetError:
                    data = b""
                if not data:
                    return b""
                received += data
    return received


def too_slow(folder: Path, model: str, timeout_s: float | None) -> ProviderTimeout:
    """The error for a model that was not loaded in time."""
    error = ProviderTimeout(
        f"The embedded server did not load {model} within {timeout_s or 0:g} s.",
        remedy="Allow more time (AGENTFARM_TIMEOUTS__FIRST_TOKEN_S) or take a "
        f"smaller model; its log is {folder / LOG_FILE}.",
        provider="embedded",
        host="embedded",
        retryable=True,
    )
    error.phase = "connect"
    error.timeout_s = timeout_s
    return error


def _exit_words(returncode: int | None) -> str:
    if returncode is None:
        return "closed its connection"
    if returncode >= 0:
        return f"ended with {returncode}"
    name = signal.Signals(-returncode).name
    if name == "SIGKILL":
        return "was killed (SIGKILL), perhaps because memory ran out"
    return f"was killed by {name}"


def log_tail(path: Path) -> list[str]:
    """The last lines of a log that name an error, or else its very last ones."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if " E " in line[:24] or "Error:" in line]
    return [_LOG_PREFIX.sub("", line) for line in (errors or lines)][-_LOG_TAIL_LINES:]
