"""One container with a supervisor that waits for its one job."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox._exchange import await_ready
from agentfarm.tools.sandbox._options import container_name

if TYPE_CHECKING:
    from agentfarm.containers import Engine

START_S = 60.0
STDOUT, STDERR = 1, 2
MAX_DIAGNOSIS_BYTES = 4000


class Container:
    """A started container; `channel` leads to its supervisor.

    Args:
        engine: Where it runs.
        options: What `container_options` gave.
        expires_at: Epoch seconds after which anybody may remove it.

    Raises:
        SandboxUnavailable: No engine, image or runtime.
        SandboxError: It did not start.
        SandboxTimeout: It did not start in time.
    """

    def __init__(
        self, engine: Engine, options: dict[str, Any], *, expires_at: float
    ) -> None:
        self._engine = engine
        self.expires_at = expires_at
        self.created_at = time.time()
        self.ended = False
        with engine.calls("create a sandbox"):
            created = engine.api.create_container_from_config(options, container_name())
        self.id: str = created["Id"]
        try:
            with engine.calls("attach to a sandbox"):
                self.channel = AttachedStream(
                    engine.api.attach_socket(
                        self.id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
                    )
                )
            with engine.calls("start a sandbox"):
                engine.api.start(self.id)
            await_ready(self.channel, START_S)
        except BaseException as error:
            self.end()
            engine.remove_container(self.id)
            self._explain(error)
            raise

    def _explain(self, error: BaseException) -> None:
        """Add what the container itself said to the error of its start."""
        said = self.diagnosis if hasattr(self, "channel") else ""
        if said and isinstance(error, SandboxError):
            raise SandboxError(
                f"{error.message} It said: {said}",
                remedy="The image needs python3, 3.9 or later, on its PATH.",
            ) from error

    @property
    def diagnosis(self) -> str:
        """What the supervisor wrote to its own stderr; `""` if all is well."""
        return self.channel.stderr.decode(errors="backslashreplace").strip()

    def is_waiting(self) -> bool:
        """Whether it still waits for its job."""
        return self.channel.is_open_and_silent()

    def end(self) -> None:
        """Close the stream, which ends the supervisor and so the container."""
        self.ended = True
        if hasattr(self, "channel"):
            self.channel.close()

    def kill(self) -> None:
        """End it now, with every process in it.

        The stream is closed first: the engine waits for a reader of what is
        buffered, and would wait in vain.
        """
        self.end()
        self._engine.kill(self.id)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed in it for memory, from the engine's events."""
        with self._engine.calls("ask for events of a sandbox"):
            events = self._engine.api.events(
                since=int(self.created_at) - 1,
                until=int(time.time()) + 1,
                filters={"container": [self.id], "event": ["oom"]},
                decode=True,
            )
            return bool(list(events))  # it ends at `until`


class AttachedStream:
    """The engine's attach stream: raw bytes in, stdout and stderr multiplexed out.

    Source of the format: Docker Engine API, ContainerAttach, "Stream format".
    """

    def __init__(self, attached: Any) -> None:
        # The SDK gives a file object over a Unix socket, and a TLS socket itself.
        self._attached = attached
        self._socket: socket.socket = getattr(attached, "_sock", attached)
        self._buffer = bytearray()
        self._left = 0
        self._kind = STDOUT
        self._deadline = time.monotonic() + START_S
        self.stderr = bytearray()

    def settimeout(self, timeout_s: float) -> None:
        """As of a socket, but that stderr without end does not prolong a `recv`."""
        self._socket.settimeout(timeout_s)
        self._deadline = time.monotonic() + timeout_s

    def send(self, data: memoryview) -> int:
        """As of a socket."""
        return self._socket.send(data)

    def sendall(self, data: bytes) -> None:
        """As of a socket."""
        self._socket.sendall(data)

    def fileno(self) -> int:
        """As of a socket."""
        return self._socket.fileno()

    def recv(self, count: int) -> bytes:
        """Some bytes of the container's stdout; none at the end."""
        while True:
            if self._left == 0:
                if not self._header(count):
                    return b""
                continue
            data = bytes(self._buffer[: self._left]) or self._socket.recv(
                min(self._left, count)
            )
            del self._buffer[: len(data)]
            self._left -= len(data)
            if not data or self._kind == STDOUT:
                return data
            self.stderr += data[: MAX_DIAGNOSIS_BYTES - len(self.stderr)]
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)

    def _header(self, count: int) -> bool:
        while len(self._buffer) < 8:
            data = self._socket.recv(count)
            if not data:
                return False
            self._buffer += data
        self._kind = self._buffer[0]
        self._left = int.from_bytes(self._buffer[4:8])
        del self._buffer[:8]
        return True

    def is_open_and_silent(self) -> bool:
        """Whether the other side is there and has said nothing more."""
        if self._buffer or self._left:
            return False
        self._socket.settimeout(0.0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except (OSError, ValueError):
            return False
        return False

    def shutdown(self) -> None:
        """End the stream for whoever reads it, from any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the stream and give the socket back."""
        self.shutdown()
        with suppress(OSError):
            self._attached.close()
        with suppress(OSError):
            self._socket.close()
