"""What a stand-in for an LLM says, and when."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from agentfarm.llm._messages import (
    ChatChunk,
    ServerTiming,
    ToolCall,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anyio

__all__ = ["Answer", "Fault", "Reply", "Script", "WireName"]

WireName = Literal["ollama", "openai"]


class Fault(StrEnum):
    """How `StubServer` misbehaves, as real servers were seen to.

    Some are failures, some only a trap for a careless client: the answer is
    whole, but comes in an awkward way or lacks something.
    """

    RATE_LIMITED = "429, with Retry-After in seconds"
    RATE_LIMITED_UNTIL = "429, with Retry-After as a date"
    OVERLOADED = "503"
    BAD_GATEWAY = "502 with a proxy's HTML page"
    MODEL_NOT_FOUND = "404 for the model"
    UNAUTHORIZED = "401 that echoes the key"
    CONTEXT_OVERFLOW = "400 in llama.cpp's words, or Ollama's"
    CONTEXT_OVERFLOW_OPENAI = "400 in OpenAI's words"
    ERROR_MID_STREAM = "an error object in the middle of the stream"
    STALL_HEADERS = "no response headers, ever"
    STALL_FIRST_TOKEN = "headers, then no first token, ever"  # noqa: S105  not a password
    STALL_MID_STREAM = "some tokens, then no more, ever"
    CUT_BEFORE_HEADERS = "the connection ends before the headers"
    CUT_MID_STREAM = "the connection ends in the middle of the stream"
    RESET_MID_STREAM = "the connection is reset in the middle of the stream"
    END_EARLY = "the stream ends properly, but without its last message"
    MALFORMED_CHUNK = "a chunk that is not JSON"
    UTF8_SPLIT = "characters split across TCP writes"
    TOOL_ARGUMENTS_SPLIT = "tool calls split across chunks or TCP writes"
    MISSING_USAGE = "no token counts"
    SILENT_TRUNCATION = "the prompt cut to num_ctx/2 + 2 tokens, and not a word"

    @property
    def wires(self) -> frozenset[WireName]:
        """The wire formats in which this fault exists."""
        if self is Fault.CONTEXT_OVERFLOW_OPENAI:
            return frozenset({"openai"})
        if self is Fault.SILENT_TRUNCATION:
            return frozenset({"ollama"})
        return frozenset({"ollama", "openai"})


@dataclass(frozen=True, slots=True)
class Script:
    """One answer in pieces: thinking first, then text, then tool calls.

    Attributes:
        text: The answer. Streamed word by word where `chunks` is empty.
        chunks: The answer cut where you want it cut; wins over `text`.
        reasoning: Thinking, in pieces.
        tool_calls: Calls the answer ends with, one piece each.
        first_delay_s: Wait before the first piece, seconds.
        gap_s: Wait between pieces, seconds.
        finish_reason: By default ``tool_calls`` where there are any, or ``stop``.
        usage: Token counts that the server reports.
        server: Durations that the server reports.
    """

    text: str = ""
    _: KW_ONLY
    chunks: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    first_delay_s: float = 0.0
    gap_s: float = 0.0
    finish_reason: str | None = None
    usage: Usage | None = None
    server: ServerTiming | None = None

    @property
    def full_text(self) -> str:
        """The whole text that the pieces add up to."""
        return "".join(self.chunks) if self.chunks else self.text

    @property
    def final_reason(self) -> str:
        """The finish reason that is reported."""
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")

    def pieces(self) -> tuple[ChatChunk, ...]:
        """The answer's content-bearing chunks, in the order they are sent."""
        words = self.chunks or tuple(re.split(r"(?<=\s)(?=\S)", self.text))
        return (
            *(ChatChunk(reasoning=part) for part in self.reasoning if part),
            *(ChatChunk(text=part) for part in words if part),
            *(ChatChunk(tool_calls=deltas) for deltas in _deltas(self.tool_calls)),
        )


@dataclass(frozen=True, slots=True)
class Answer(Script):
    """What `FakeProvider` says to one request.

    Attributes:
        error: Raised instead of the rest of the answer. A ProviderError without
            a partial text gets what had been streamed.
        error_after: Pieces that are yielded before `error`.
        hold: The answer waits for this event, so that a test can keep a request
            in flight for as long as it likes.
        hold_after: Pieces that are yielded before `hold`.
        context_truncated: What the response says about the prompt.
        warnings: What the response warns of.
    """

    _: KW_ONLY
    error: Exception | None = None
    error_after: int = 0
    hold: anyio.Event | None = None
    hold_after: int = 0
    context_truncated: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply(Script):
    """What `StubServer` says to one chat request.

    Without `usage` the stub counts one output token for each piece. Without
    `server` Ollama's durations are the stub's own, and llama.cpp's ``timings``
    are left out.

    Attributes:
        header_delay_s: Wait before the response headers, seconds;
            `first_delay_s` counts from the headers.
        role_chunk: Send a chunk without content right after the headers, as
            llama.cpp does (OpenAI's format only).
        comment: Send an SSE comment right after the headers, as OpenRouter does.
        fault: What goes wrong.
        fault_after: Pieces that are sent before a fault in the middle of the
            stream.
        retry_after_s: Seconds for the Retry-After header of a 429 or 503.
    """

    _: KW_ONLY
    header_delay_s: float = 0.0
    role_chunk: bool = True
    comment: bool = False
    fault: Fault | None = None
    fault_after: int = 2
    retry_after_s: float | None = None

    @property
    def counted(self) -> Usage | None:
        """The token counts that go over the wire."""
        if self.fault is Fault.MISSING_USAGE:
            return None
        return self.usage or Usage(input_tokens=8, output_tokens=len(self.pieces()))


def _deltas(calls: Sequence[ToolCall]) -> list[tuple[ToolCallDelta, ...]]:
    return [
        (
            ToolCallDelta(
                index=index, id=call.id, name=call.name, arguments=call.raw_arguments
            ),
        )
        for index, call in enumerate(calls)
    ]
