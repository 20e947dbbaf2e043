"""What goes to a model and what comes back, in the same words for every provider."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from agentfarm.config import TimeoutSettings

Role = Literal["system", "user", "assistant", "tool"]
TaskType = Literal[
    "code_generation",
    "code_review",
    "planning",
    "reasoning",
    "verification",
    "simple_response",
    "translation",
    "math",
    "general",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """A tool that the model may call.

    Attributes:
        name: Function name.
        description: What it does, for the model.
        parameters: JSON schema of the arguments object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """One call that the model asks for.

    Attributes:
        id: The server's id, or one made here where it gave none.
        name: Function name.
        arguments: The parsed arguments; None where `raw_arguments` is not a JSON
            object, so that a caller can show the model its mistake.
        raw_arguments: The text the model wrote.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] | None
    raw_arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: The text; `""` where the turn holds tool calls only.
        reasoning: The model's thinking, where the server keeps it apart.
        tool_calls: Calls that an assistant turn asks for.
        tool_call_id: The call that a ``tool`` turn answers.
        name: The tool's name, on a ``tool`` turn.
    """

    role: Role
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CallContext:
    """Who asks, so that events, telemetry and the Store can be joined."""

    run_id: str | None = None
    sample_id: str | None = None
    agent: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """One question to a model.

    Attributes:
        messages: The conversation so far, oldest first.
        model: A registered model's name; None lets the router choose.
        task_type: What the request is for; the router chooses by it.
        tools: Tools the model may call.
        tool_choice: ``auto``, ``none``, ``required`` or a tool's name.
        response_schema: JSON schema that the answer must follow.
        temperature, top_p, seed, stop, max_tokens: As the servers define them;
            None leaves the server's default.
        context_length: Tokens of context to reserve; Ollama's ``num_ctx``.
        timeouts: Overrides the provider's limits for this request.
        extra: Further fields for the wire, verbatim (Ollama: into ``options``).
        context: Who asks.
        request_id: Unique id, made here.
    """

    messages: tuple[Message, ...]
    model: str | None = None
    task_type: TaskType = "general"
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    response_schema: Mapping[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    context_length: int | None = None
    timeouts: TimeoutSettings | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    context: CallContext = CallContext()
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of one request; None where the server did not say.

    Attributes:
        input_tokens: Tokens of the prompt, cached ones included.
        output_tokens: Tokens generated, reasoning included.
        cached_tokens: Prompt tokens that the server had ready.
        reasoning_tokens: Output tokens spent on thinking.
        estimated: Whether the counts come from a tokenizer and not the server.
            Chunks are never counted as tokens.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerTiming:
    """What the server itself reports, in seconds; None where it does not.

    Source: Ollama's ``*_duration`` fields (ns) and llama.cpp's ``timings`` (ms).
    """

    load_s: float | None = None
    prompt_s: float | None = None
    output_s: float | None = None
    total_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_per_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One request as the client measured it, on a monotonic clock.

    All durations are seconds, counted from the moment the request was sent,
    stamped when bytes left the socket and before they are parsed. The first
    token is the first non-empty content, reasoning or tool-call delta: neither
    response headers nor a role-only chunk count.

    Attributes:
        started_at: Unix time of the request.
        queue_s: Wait for a free slot in the router, before the request was sent.
        ttft_s: Time to first token; None where nothing was generated.
        last_token_s: Time to the last content-bearing chunk.
        latency_s: End to end: until the last content-bearing chunk, or until
            the answer ended where there was none.
        inter_chunk_s: Gaps between content-bearing chunks. A chunk may hold
            several tokens, so these are not gaps between tokens.
        load_s: The part of `ttft_s` in which the server loaded the model, if
            it says so.
    """

    started_at: float
    queue_s: float = 0.0
    ttft_s: float | None = None
    last_token_s: float | None = None
    latency_s: float = 0.0
    inter_chunk_s: tuple[float, ...] = ()
    load_s: float | None = None

    @property
    def ttft_excl_load_s(self) -> float | None:
        """Time to first token without the model's load time."""
        if self.ttft_s is None:
            return None
        return max(0.0, self.ttft_s - (self.load_s or 0.0))

    def output_tokens_per_s(self, usage: Usage) -> float | None:
        """Decode rate (n - 1) / (t_last - t_first), as vLLM's TPOT inverted.

        None for fewer than two tokens, an unknown count, or a reply that came in
        one piece.
        """
        n = usage.output_tokens
        if n is None or n < 2 or self.ttft_s is None or self.last_token_s is None:
            return None
        span = self.last_token_s - self.ttft_s
        return (n - 1) / span if span > 0 else None


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool call; `arguments` is a fragment of JSON text."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A streamed piece of an answer.

    A Struct and not a dataclass: one is made per chunk, and it costs a tenth.

    Attributes:
        text: New content.
        reasoning: New thinking.
        tool_calls: New pieces of tool calls.
        at_s: Seconds since the request was sent, stamped at the socket.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    at_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatResponse:
    """A whole answer with its cost.

    Attributes:
        message: The assistant's turn.
        model: The model as the server names it.
        provider: Kind of provider that answered.
        host: Base URL that answered.
        finish_reason: ``stop``, ``length``, ``tool_calls`` or the server's word.
        usage: Tokens.
        timing: Measured here.
        server: Reported by the server.
        context_truncated: The server seems to have cut the prompt silently.
        warnings: What a person should know about this answer.
        attempts: Tries it took, 1 for the first.
    """

    message: Message
    model: str
    provider: str
    host: str
    finish_reason: str | None
    usage: Usage
    timing: Timing
    server: ServerTiming = ServerTiming()
    context_truncated: bool = False
    warnings: tuple[str, ...] = ()
    attempts: int = 1

    @property
    def text(self) -> str:
        """The answer's content."""
        return self.message.content

    @property
    def output_tokens_per_s(self) -> float | None:
        """Decode rate measured at the client, tokens per second."""
        return self.timing.output_tokens_per_s(self.usage)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A model that a server offers.

    Attributes:
        name: As the server names it.
        context_length: Tokens, if the server says so.
        capabilities: Of ``tools``, ``json_schema``, ``vision``, ``thinking``.
        loaded: Whether it is in memory now; None where the server does not say.
        size_bytes: Size on disk or in memory, if known.
        slots: Requests the server answers at once, if it says so.
        details: Whatever else the server tells, for people.
    """

    name: str
    context_length: int | None = None
    capabilities: frozenset[str] = frozenset()
    loaded: bool | None = None
    size_bytes: int | None = None
    slots: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether a server can be asked.

    Attributes:
        ok: It answered and is ready.
        detail: One sentence for people; the cause and the remedy if not `ok`.
        latency_s: Time the check took; None where no answer came.
    """

    ok: bool
    detail: str
    latency_s: float | None = None


def system(content: str) -> Message:
    """A system turn."""
    return Message(role="system", content=content)


def user(content: str) -> Message:
    """A user turn."""
    return Message(role="user", content=content)
