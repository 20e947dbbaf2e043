"""The child process that serves one model file through llama.cpp's HTTP server.

It lives as long as someone uses it. Standard input is a socket to the process
that started it, and the first lifeline: the kernel closes a lifeline when its
holder dies, however it dies. Further users connect to the control port, a TCP
socket on 127.0.0.1 guarded by a token, and hold that connection.

    starter  stdin   {"model": …, …}                  then holds
             answer  {"pid": …, "url": …, …}          once the model is loaded
    user     sends   {"token": …, "op": "hold"}       then holds
    anyone   sends   {"token": …, "op": "status" | "keep" | "stop"}
             answer  {"pid": …, "users": …, "kept": …, "uptime_s": …}

Messages are one JSON object a line. The module is run as a script, by path, and
imports nothing of AgentFarm, so that it starts at once and stays small.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import secrets
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

INFO_FILE = "server.json"
LOG_FILE = "server.log"
EXIT_LOAD_FAILED = 3

_LOG_LIMIT_BYTES = 1 << 20
_LOG_KEEP_BYTES = 1 << 16
_LOG_CHECK_S = 30.0
_MESSAGE_LIMIT_BYTES = 4096
_GREETING_S = 5.0


class _Connection:
    """One client of the control port; `holds` once it is a user."""

    def __init__(self, sock: socket.socket, *, holds: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.holds = holds
        self.received = b""
        self.deadline = time.monotonic() + _GREETING_S


class ControlLoop:
    """Counts the users of a loaded server and ends the process after the last.

    Args:
        info: What `server.json` says; `token` guards the port.
        first: The lifeline of the process that started this one.
        listener: The control port.
        linger_s: Time to wait for another user after the last one, seconds.
    """

    def __init__(
        self,
        info: dict[str, Any],
        *,
        first: socket.socket,
        listener: socket.socket,
        linger_s: float,
    ) -> None:
        self._token = str(info["token"]).encode()
        self._listener = listener
        self._linger_s = linger_s
        self._kept = False
        self._stopped = False
        self._started = time.monotonic()
        self._idle_since: float | None = None
        self._connections: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._add(_Connection(first, holds=True))

    def run(self) -> None:
        """Return when nobody needs the server any more, or someone stopped it."""
        while not self._is_over():
            for key, _ in self._selector.select(self._pause_s()):
                if key.data is None:
                    self._accept()
                else:
                    self._receive(key.data)
            self._drop_silent()
            bound_log()
        for connection in list(self._connections):
            self._drop(connection)
        self._selector.close()

    @property
    def _users(self) -> int:
        return sum(connection.holds for connection in self._connections)

    def _is_over(self) -> bool:
        if self._stopped:
            return True
        if self._kept or self._users:
            self._idle_since = None
            return False
        now = time.monotonic()
        self._idle_since = now if self._idle_since is None else self._idle_since
        # A connection that has not spoken yet may be the next user.
        return not self._connections and now - self._idle_since >= self._linger_s

    def _pause_s(self) -> float:
        now = time.monotonic()
        ends = [c.deadline for c in self._connections if not c.holds]
        if self._idle_since is not None and not self._connections:
            ends.append(self._idle_since + self._linger_s)
        return max(0.0, min([_LOG_CHECK_S, *(end - now for end in ends)]))

    def _add(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)

    def _drop(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.sock)
        connection.sock.close()

    def _drop_silent(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            if not connection.holds and now >= connection.deadline:
                self._drop(connection)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            self._add(_Connection(sock))

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(_MESSAGE_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
        elif not connection.holds:
            connection.received += data
            if b"\n" in connection.received:
                self._answer(connection)
            elif len(connection.received) > _MESSAGE_LIMIT_BYTES:
                self._drop(connection)

    def _answer(self, connection: _Connection) -> None:
        op = self._permitted_op(connection.received)
        connection.received = b""
        connection.holds = op == "hold"
        self._kept = self._kept or op == "keep"
        self._stopped = self._stopped or op == "stop"
        if op is not None:
            with contextlib.suppress(OSError):
                connection.sock.send(_line(self._status()))
        if not connection.holds:
            self._drop(connection)

    def _permitted_op(self, received: bytes) -> str | None:
        try:
            message = json.loads(received.partition(b"\n")[0])
            token, op = str(message["token"]).encode(), str(message["op"])
        except (ValueError, KeyError, TypeError):
            return None
        if not hmac.compare_digest(token, self._token):
            return None
        return op if op in {"hold", "status", "keep", "stop"} else None

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "users": self._users,
            "kept": self._kept,
            "uptime_s": time.monotonic() - self._started,
        }


def main() -> NoReturn:
    """Load the model that the first line of standard input names, and serve it."""
    lifeline = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as null:
        os.dup2(null.fileno(), 0)
    config = json.loads(_first_line(lifeline))
    api_key = secrets.token_urlsafe(24)
    with _die_with(lifeline):
        server = _load(config, api_key)
    listener = socket.create_server(("127.0.0.1", 0))
    info = _describe(config, server, api_key, listener)
    folder = Path(config["state_dir"])
    _write_private(folder / INFO_FILE, info)
    with contextlib.suppress(OSError):  # a starter that is gone is noticed below
        lifeline.sendall(_line(info))
    ControlLoop(
        info, first=lifeline, listener=listener, linger_s=config["linger_s"]
    ).run()
    _forget(folder / INFO_FILE)
    _leave(0)


def _load(config: dict[str, Any], api_key: str) -> Any:
    try:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = config["model"]
        params.model_alias = {config["alias"]}
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        # llama.cpp divides the context among the slots; people count per request.
        params.n_ctx = config["context_length"] * config["slots"]
        params.n_parallel = config["slots"]
        params.cpuparams.n_threads = config["threads"]
        params.cpuparams_batch.n_threads = config["threads"]
        params.cache_ram_mib = 0  # its default may grow by 8 GiB
        params.api_keys = [api_key]
        params.endpoint_metrics = True
        params.endpoint_props = True
        params.ui = False
        return xllamacpp.Server(params)
    except (ImportError, RuntimeError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        _leave(EXIT_LOAD_FAILED)


@contextlib.contextmanager
def _die_with(lifeline: socket.socket) -> Iterator[None]:
    """End this process by a signal when the lifeline closes.

    Loading holds the interpreter's lock, for minutes with a large model, so no
    thread here could notice. SIGIO, whose default action is to terminate, is the
    kernel's doing (Linux; elsewhere it is noticed after loading).
    """
    descriptor = lifeline.fileno()
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
    # It may have closed before the signal was set up.
    with contextlib.suppress(BlockingIOError):
        if not lifeline.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            _leave(0)
    yield
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _describe(
    config: dict[str, Any], server: Any, api_key: str, listener: socket.socket
) -> dict[str, Any]:
    import psutil

    return {
        "pid": os.getpid(),
        "created_at": psutil.Process().create_time(),
        "url": server.listening_address,
        "api_key": api_key,
        "control_port": listener.getsockname()[1],
        "token": secrets.token_urlsafe(24),
        "model": config["alias"],
        "gguf": config["model"],
        "context_length": config["context_length"],
        "slots": config["slots"],
    }


def bound_log(descriptor: int = 2) -> None:
    """Cut the log to its newest part once it is too long."""
    if os.fstat(descriptor).st_size <= _LOG_LIMIT_BYTES:
        return
    # It is open for appending and reading, so writers go on at the new end.
    size = os.fstat(descriptor).st_size
    newest = os.pread(descriptor, _LOG_KEEP_BYTES, size - _LOG_KEEP_BYTES)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, newest)


def _first_line(sock: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        data = sock.recv(1 << 16)
        if not data:
            _leave(0)
        received += data
    return received


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _write_private(path: Path, content: dict[str, Any]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    part.replace(path)


def _forget(path: Path) -> None:
    """Remove `server.json`, unless another server's stands there by now."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()


def _leave(code: int) -> NoReturn:
    """Exit without llama.cpp's own cleaning up, which waits for running answers."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
