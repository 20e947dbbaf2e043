"""Playing one scripted reply over one connection, faults included."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from agentfarm.llm._messages import ChatChunk, ToolCallDelta
from agentfarm.llm.testing._refusal import OVERFLOW_TOKENS, error_body, refuse
from agentfarm.llm.testing._script import Fault
from agentfarm.llm.testing._wire import OllamaWire, OpenAIWire, Sent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentfarm.llm.testing._http import Connection
    from agentfarm.llm.testing._log import StubRequest
    from agentfarm.llm.testing._script import Reply, WireName
    from agentfarm.llm.testing._wire import Wire

__all__ = ["Play", "send_whole"]

_FAILURE = "The model produced output that does not match the format"

# Long enough for a client to read each part of a split frame for itself.
_SPLIT_PAUSE_S = 0.002

_MID_STREAM = {
    Fault.ERROR_MID_STREAM,
    Fault.STALL_MID_STREAM,
    Fault.CUT_MID_STREAM,
    Fault.RESET_MID_STREAM,
    Fault.END_EARLY,
    Fault.MALFORMED_CHUNK,
}


class Play:
    """One reply on its way to one client."""

    def __init__(
        self,
        connection: Connection,
        record: StubRequest,
        reply: Reply,
        wire: WireName,
        *,
        context_length: int,
        key: str | None,
    ) -> None:
        body = record.body if isinstance(record.body, dict) else {}
        if reply.fault is Fault.SILENT_TRUNCATION:
            reply = _truncated(reply, body, context_length)
        self._connection = connection
        self._record = record
        self._reply = reply
        self._facts = {
            "model": str(body.get("model")),
            "key": key or "",
            "n_prompt": OVERFLOW_TOKENS,
            "n_ctx": context_length,
        }
        self._wire: Wire = (OpenAIWire if wire == "openai" else OllamaWire)(reply, body)
        self._streams = bool(body.get("stream", wire == "ollama"))

    async def run(self) -> bool:
        """Answer; returns whether the connection can carry another request."""
        reply, connection = self._reply, self._connection
        await connection.pause(reply.header_delay_s)
        if reply.fault is Fault.STALL_HEADERS:
            await connection.stall()
        if reply.fault is Fault.CUT_BEFORE_HEADERS:
            connection.cut()
            return False
        refusal = refuse(reply, self._wire.name, self._facts)
        if refusal is not None:
            self._record.status = refusal.status
            send_whole(connection, refusal.body, refusal.status, refusal.headers)
            return True
        return await (self._stream() if self._streams else self._whole())

    async def _stream(self) -> bool:
        connection, record, reply = self._connection, self._record, self._reply
        headers = {
            "Content-Type": self._wire.content_type,
            "Transfer-Encoding": "chunked",
        }
        record.begin(connection.send_head(200, headers))
        for line in self._wire.opening():
            connection.send_chunk(line)
        delay_s = reply.first_delay_s
        for chunk in self._chunks():
            await connection.pause(delay_s)
            await self._send(chunk)
            delay_s = reply.gap_s
        if not record.sent:
            await connection.pause(delay_s)
        if reply.fault in _MID_STREAM | {Fault.STALL_FIRST_TOKEN}:
            await connection.pause(reply.gap_s)
            if not await self._break():
                return False
        else:
            sent = Sent(record.received_at, record.first_piece_at, record.last_piece_at)
            for line in self._wire.closing(sent):
                connection.send_chunk(line)
        connection.send_chunk(b"")
        return True

    async def _send(self, chunk: ChatChunk) -> None:
        for index, part in enumerate(self._parts(chunk)):
            if index:
                await self._connection.pause(_SPLIT_PAUSE_S)
            at = self._connection.send_chunk(part)
        # A client can use a split chunk only once its last part is there.
        self._record.note(at, chunk)

    def _chunks(self) -> Sequence[ChatChunk]:
        """The content-bearing chunks that are sent before whatever goes wrong."""
        fault, pieces = self._reply.fault, self._reply.pieces()
        if fault is Fault.STALL_FIRST_TOKEN:
            return ()
        if fault in _MID_STREAM:
            return pieces[: self._reply.fault_after]
        if fault is Fault.TOOL_ARGUMENTS_SPLIT and self._wire.name == "openai":
            return [part for piece in pieces for part in _split_tool(piece)]
        return pieces

    def _parts(self, piece: ChatChunk) -> tuple[bytes, ...]:
        data = self._wire.piece(piece)
        if self._reply.fault is Fault.UTF8_SPLIT:
            return _split_characters(data)
        if self._reply.fault is Fault.TOOL_ARGUMENTS_SPLIT and piece.tool_calls:
            third = max(1, len(data) // 3)
            return data[:third], data[third : 2 * third], data[2 * third :]
        return (data,)

    async def _break(self) -> bool:
        """Do what goes wrong; returns whether the body ends properly."""
        connection, fault = self._connection, self._reply.fault
        if fault in {Fault.STALL_FIRST_TOKEN, Fault.STALL_MID_STREAM}:
            await connection.stall()
        if fault is Fault.CUT_MID_STREAM:
            connection.cut()
            return False
        if fault is Fault.RESET_MID_STREAM:
            # A reset throws away what the client has not read yet.
            await connection.pause(0.02)
            connection.reset()
            return False
        if fault is Fault.ERROR_MID_STREAM:
            connection.send_chunk(self._wire.error_line(_FAILURE))
        if fault is Fault.MALFORMED_CHUNK:
            connection.send_chunk(self._wire.broken_line())
        return True

    async def _whole(self) -> bool:
        connection, reply, record = self._connection, self._reply, self._record
        pieces = reply.pieces()
        gaps_s = reply.gap_s * max(0, len(pieces) - 1)
        await connection.pause(reply.first_delay_s + gaps_s)
        if reply.fault in {Fault.STALL_FIRST_TOKEN, Fault.STALL_MID_STREAM}:
            await connection.stall()
        if reply.fault is Fault.ERROR_MID_STREAM:
            body = error_body(self._wire.name, 500, _FAILURE, "server_error")
            record.status = 500
            send_whole(connection, body, record.status)
            return True
        record.status = 200
        body = self._wire.whole(Sent(record.received_at))
        if reply.fault in {Fault.MALFORMED_CHUNK, Fault.END_EARLY}:
            body = body[: len(body) // 2]
        if reply.fault in {Fault.CUT_MID_STREAM, Fault.RESET_MID_STREAM}:
            connection.send_head(200, {"Content-Length": str(len(body))})
            connection.send(body[: len(body) // 2])
            connection.cut()
            return False
        at = send_whole(connection, body)
        for piece in pieces:
            record.note(at, piece)
        return True


def send_whole(
    connection: Connection,
    body: bytes,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> float:
    """Send an answer that is not streamed, in one write."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    at = connection.send_head(status, fields | (headers or {}))
    connection.send(body)
    return at


def _truncated(reply: Reply, body: dict[str, Any], context_length: int) -> Reply:
    """The reply with the count that Ollama reports after a silent cut."""
    num_ctx = int((body.get("options") or {}).get("num_ctx", context_length))
    counted = reply.counted
    if counted is None:
        return reply
    return replace(reply, usage=replace(counted, input_tokens=num_ctx // 2 + 2))


def _split_characters(data: bytes) -> tuple[bytes, ...]:
    """Cut after the first byte of every character of several bytes."""
    cuts = [index + 1 for index, byte in enumerate(data) if byte >= 0xC0]
    edges = [0, *cuts, len(data)]
    return tuple(data[a:b] for a, b in pairwise(edges) if a < b)


def _split_tool(piece: ChatChunk) -> Iterator[ChatChunk]:
    """The same tool calls, their arguments three characters at a time."""
    if not piece.tool_calls:
        yield piece
    for call in piece.tool_calls:
        first, rest = call.arguments[:3], call.arguments[3:]
        deltas = [
            ToolCallDelta(
                index=call.index, id=call.id, name=call.name, arguments=first
            ),
            *(
                ToolCallDelta(index=call.index, arguments=rest[start : start + 3])
                for start in range(0, len(rest), 3)
            ),
        ]
        yield from (ChatChunk(tool_calls=(delta,)) for delta in deltas)
