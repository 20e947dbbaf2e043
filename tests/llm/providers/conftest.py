"""A server that answers with exact bytes, for what no well-behaved stub sends."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class WireServer:
    """Answers each request by its path: `pages` first, then `pieces`.

    A page is (status, headers, body). Every piece is a write of its own, after a
    pause of `gap_s`; then the connection is closed.
    """

    pieces: list[bytes] = field(default_factory=list)
    content_type: str = "text/event-stream"
    gap_s: float = 0.0
    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    url: str = ""

    def send(self, *values: object) -> None:
        """Stream these as events; a string stands for itself."""
        self.pieces = [
            f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()
            for value in values
        ]

    def page(self, path: str, body: object, status: int = 200, **headers: str) -> None:
        """Answer `path` with one document."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.pages[path] = (
            status,
            {"Content-Type": "application/json", **names},
            content,
        )

    async def handle(self, reader, writer) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            path = head.split()[1]
            self.heads.append(head)
            self.paths.append(path)
            self.bodies.append(json.loads(body) if body else None)
            await self._answer(writer, path)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer, path: str) -> None:
        status, headers, content = self.pages.get(
            path, (200, {"Content-Type": self.content_type}, None)
        )
        lines = [f"HTTP/1.1 {status} Status", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if content is not None:
            lines.append(f"Content-Length: {len(content)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + (content or b""))
        await writer.drain()
        for piece in () if content is not None else self.pieces:
            await asyncio.sleep(self.gap_s)
            writer.write(piece)
            await writer.drain()


@pytest.fixture
async def wire() -> AsyncIterator[WireServer]:
    """A running WireServer."""
    server = WireServer()
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield server
    listener.close()
