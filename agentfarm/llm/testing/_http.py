"""The least of HTTP/1.1 that gives control over every byte and its moment."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["ClientGoneError", "Connection", "RequestHead"]

_MAX_HEAD_BYTES = 65_536


class ClientGoneError(Exception):
    """The client closed its connection."""


@dataclass(slots=True)
class RequestHead:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    received_at: float


@dataclass(eq=False)
class Connection(asyncio.Protocol):
    """One client's TCP connection.

    A Protocol and not a StreamReader: the loop calls `eof_received` in the same
    turn in which the client's FIN arrives, whatever the stub is waiting for.

    Attributes:
        lost_at: `time.perf_counter` when the client went away, or None.
    """

    serve: Callable[[Connection], Coroutine[Any, Any, None]]
    tasks: set[asyncio.Task[None]]
    lost_at: float | None = None
    _lost: asyncio.Event = field(default_factory=asyncio.Event)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _buffer: bytearray = field(default_factory=bytearray)
    _arrived_at: float = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve the client."""
        self._transport = cast("asyncio.Transport", transport)
        self._socket = cast("socket.socket", transport.get_extra_info("socket"))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A client may come at any time between start and aclose, so no task group
        # encloses this; the server owns the set and empties it in aclose.
        task = asyncio.get_running_loop().create_task(self.serve(self))
        self.tasks.add(task)

    def data_received(self, data: bytes) -> None:
        """Keep what the client sent, stamped."""
        self._arrived_at = time.perf_counter()
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> None:
        """Note that the client closed its end."""
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone, by whoever's hand."""
        self._lose()

    @property
    def client_port(self) -> int:
        """The client's end of the connection."""
        return int(self._transport.get_extra_info("peername")[1])

    async def read_request(self) -> RequestHead:
        """The next request on this connection.

        Raises:
            ClientGoneError: There is none.
            ValueError: It is not HTTP that this server understands.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise ValueError("The request's head is too long.")
            await self._more()
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        method, target, _version = first.split(" ")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        if "transfer-encoding" in headers:
            raise ValueError("The stub reads no chunked request bodies.")
        size = int(headers.get("content-length", "0"))
        while len(self._buffer) < end + 4 + size:
            await self._more()
        body = bytes(self._buffer[end + 4 : end + 4 + size])
        del self._buffer[: end + 4 + size]
        path = target.partition("?")[0]
        return RequestHead(method, path, headers, body, self._arrived_at)

    async def pause(self, delay_s: float) -> None:
        """Wait, but no longer than the client does.

        Raises:
            ClientGoneError: The client went away.
        """
        if delay_s <= 0:
            # Let a client in the same loop read each write for itself.
            await asyncio.sleep(0)
            if self.lost_at is not None:
                raise ClientGoneError
            return
        try:
            async with asyncio.timeout(delay_s):
                await self._lost.wait()
        except TimeoutError:
            return
        raise ClientGoneError

    async def stall(self) -> None:
        """Say nothing until the client goes away.

        Raises:
            ClientGoneError: Always.
        """
        await self._lost.wait()
        raise ClientGoneError

    def send(self, data: bytes) -> float:
        """Write to the socket now; returns the `time.perf_counter` of it.

        Raises:
            ClientGoneError: The client went away.
        """
        if self.lost_at is not None:
            raise ClientGoneError
        at = time.perf_counter()
        self._transport.write(data)
        return at

    def send_head(self, status: int, headers: dict[str, str]) -> float:
        """Write the status line and the headers."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send_chunk(self, data: bytes) -> float:
        """Write one chunk of a chunked body; an empty one ends the body."""
        return self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def cut(self) -> None:
        """Close the connection without ending the answer."""
        self._transport.abort()

    def reset(self) -> None:
        """Reset the connection: the client sees an error, not an end."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    def _lose(self) -> None:
        if self.lost_at is None:
            self.lost_at = time.perf_counter()
        self._lost.set()
        self._arrived.set()

    async def _more(self) -> None:
        if self.lost_at is not None:
            raise ClientGoneError
        self._arrived.clear()
        await self._arrived.wait()
