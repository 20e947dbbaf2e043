"""The one way in which every provider measures and gathers a streamed answer."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from agentfarm.llm._messages import (
    ChatChunk,
    ChatResponse,
    Message,
    ServerTiming,
    Timing,
    ToolCall,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_decode = msgspec.json.Decoder().decode


class StreamClock:
    """Turns stamped deltas into chunks, and at the end into one answer.

    Make it at the moment the request is sent. Stamp `time.perf_counter()` when
    bytes arrive from the socket, before parsing them, and pass the stamp to
    `add`. The first stamp with content, reasoning or a piece of a tool call is
    the first token; anything else (headers, a role-only chunk, a keep-alive)
    adds nothing and is not counted.

    Args:
        origin: `time.perf_counter()` when the request was sent; now if None. A
            replay passes 0.0 and then counts in recorded seconds.
        started_at: Unix time of the same moment; now if None.
    """

    __slots__ = (
        "_calls",
        "_ended_s",
        "_reasoning",
        "_stamps",
        "_text",
        "origin",
        "started_at",
    )

    def __init__(
        self, *, origin: float | None = None, started_at: float | None = None
    ) -> None:
        self.started_at = time.time() if started_at is None else started_at
        self.origin = time.perf_counter() if origin is None else origin
        self._ended_s: float | None = None
        self._stamps: list[float] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, _CallParts] = {}

    def add(
        self,
        now: float,
        text: str = "",
        reasoning: str = "",
        tool_calls: tuple[ToolCallDelta, ...] = (),
    ) -> ChatChunk | None:
        """Count one delta, stamped `now`; None where it holds nothing."""
        if text:
            self._text.append(text)
        elif not (reasoning or tool_calls):
            return None
        if reasoning:
            self._reasoning.append(reasoning)
        if tool_calls:
            self._add_calls(tool_calls)
        at_s = now - self.origin
        self._stamps.append(at_s)
        return ChatChunk(
            text=text, reasoning=reasoning, tool_calls=tool_calls, at_s=at_s
        )

    def end(self, now: float) -> None:
        """Note when the answer ended, for one that held nothing."""
        self._ended_s = now - self.origin

    @property
    def chunks(self) -> int:
        """Content-bearing chunks so far; not a count of tokens."""
        return len(self._stamps)

    @property
    def partial_text(self) -> str:
        """The content so far, for an error to carry."""
        return "".join(self._text)

    @property
    def has_tool_calls(self) -> bool:
        """Whether the model asked for a tool."""
        return bool(self._calls)

    def timing(self, *, load_s: float | None = None) -> Timing:
        """What was measured so far."""
        stamps = self._stamps
        if stamps:
            latency_s = stamps[-1]
        elif self._ended_s is not None:
            latency_s = self._ended_s
        else:
            latency_s = time.perf_counter() - self.origin
        return Timing(
            started_at=self.started_at,
            ttft_s=stamps[0] if stamps else None,
            last_token_s=stamps[-1] if stamps else None,
            latency_s=latency_s,
            inter_chunk_s=tuple(b - a for a, b in pairwise(stamps)),
            load_s=load_s,
        )

    def message(self, finish_reason: str | None = None) -> Message:
        """The assistant's turn as gathered so far."""
        cut = finish_reason == "length"
        return Message(
            role="assistant",
            content="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(
                self._calls[index].call(index, cut=cut) for index in sorted(self._calls)
            ),
        )

    def response(
        self,
        *,
        model: str,
        provider: str,
        host: str,
        finish_reason: str | None,
        usage: Usage,
        server: ServerTiming | None = None,
        load_s: float | None = None,
        context_truncated: bool = False,
        warnings: Sequence[str] = (),
    ) -> ChatResponse:
        """The whole answer with what was measured."""
        return ChatResponse(
            message=self.message(finish_reason),
            model=model,
            provider=provider,
            host=host,
            finish_reason=finish_reason,
            usage=usage,
            timing=self.timing(load_s=load_s),
            server=ServerTiming() if server is None else server,
            context_truncated=context_truncated,
            warnings=tuple(warnings),
        )

    def _add_calls(self, deltas: tuple[ToolCallDelta, ...]) -> None:
        for delta in deltas:
            parts = self._calls.get(delta.index)
            if parts is None:
                parts = self._calls[delta.index] = _CallParts()
            parts.id = parts.id or delta.id
            parts.name = parts.name or delta.name
            if delta.arguments:
                parts.arguments.append(delta.arguments)


class _CallParts:
    """A tool call while it is being streamed."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments: list[str] = []

    def call(self, index: int, *, cut: bool) -> ToolCall:
        """The whole call; `cut` where the answer ended at its token limit."""
        raw = "".join(self.arguments)
        return ToolCall(
            id=self.id or f"call_{index}",
            name=self.name or "",
            arguments={} if not raw.strip() and not cut else _json_object(raw),
            raw_arguments=raw,
        )


def _json_object(text: str) -> dict[str, Any] | None:
    """The JSON object in `text`, or None where it holds none."""
    try:
        value = _decode(text)
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, dict) else None
