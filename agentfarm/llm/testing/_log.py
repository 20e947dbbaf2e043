"""What a stub server saw."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentfarm.llm._messages import ChatChunk
    from agentfarm.llm.testing._script import Reply

__all__ = ["SentPiece", "StubRequest", "redacted"]

_SECRET_HEADERS = frozenset({"api-key", "authorization", "cookie", "x-api-key"})


@dataclass(frozen=True, slots=True)
class SentPiece:
    """A content-bearing chunk and the `time.perf_counter` at which it was sent."""

    at: float
    chunk: ChatChunk


@dataclass(eq=False, slots=True, kw_only=True)
class StubRequest:
    """One request as the stub saw it; all ``*_at`` are `time.perf_counter`.

    Attributes:
        method, path: What was asked.
        headers: Names in lower case; secrets are redacted.
        body: The JSON body, or None.
        received_at: When its last byte arrived.
        client_port: Tells one connection from another.
        on_change: Called when headers or a piece have been sent.
        reply: What it was answered with; None beside the chat endpoints.
        status: The HTTP status that was sent, or None.
        headers_at: When the response headers of a stream were sent.
        sent: Content-bearing chunks with their moments.
        finished_at: When the answer was complete.
        disconnected_at: When the client left before that.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    received_at: float
    client_port: int
    on_change: Callable[[], None] = field(repr=False)
    reply: Reply | None = None
    status: int | None = None
    headers_at: float | None = None
    sent: list[SentPiece] = field(default_factory=list)
    finished_at: float | None = None
    disconnected_at: float | None = None
    _over: anyio.Event = field(default_factory=anyio.Event)

    @property
    def first_piece_at(self) -> float | None:
        """When the first content-bearing chunk was sent."""
        return self.sent[0].at if self.sent else None

    @property
    def last_piece_at(self) -> float | None:
        """When the last content-bearing chunk was sent."""
        return self.sent[-1].at if self.sent else None

    @property
    def true_ttft_s(self) -> float | None:
        """From the request's arrival to the first content-bearing chunk."""
        return self.sent[0].at - self.received_at if self.sent else None

    async def wait_over(self, timeout_s: float = 5.0) -> None:
        """Wait until the answer is complete, has failed, or the client has left.

        Raises:
            TimeoutError: It is still going on.
        """
        with anyio.fail_after(timeout_s):
            await self._over.wait()

    def begin(self, at: float) -> None:
        """Log the headers of a stream."""
        self.status, self.headers_at = 200, at
        self.on_change()

    def note(self, at: float, chunk: ChatChunk) -> None:
        """Log a content-bearing chunk."""
        self.sent.append(SentPiece(at, chunk))
        self.on_change()

    def end(self, lost_at: float | None) -> None:
        """Log how it ended: the client left at `lost_at`, or all was sent."""
        self.disconnected_at = lost_at
        if lost_at is None:
            self.finished_at = time.perf_counter()
        self._over.set()


def redacted(headers: dict[str, str]) -> dict[str, str]:
    """The headers without secrets."""
    return {
        name: "<redacted>" if name in _SECRET_HEADERS else value
        for name, value in headers.items()
    }
