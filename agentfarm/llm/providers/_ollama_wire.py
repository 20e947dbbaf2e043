"""The words of Ollama's own API: one JSON object a line.

Source: ``api/types.go`` of Ollama, August 2026, and ``docs/api.md``. Every count
and duration is ``omitempty`` there: a zero is absent, so absent means unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from agentfarm.llm._messages import ServerTiming, ToolCallDelta, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.llm._messages import ChatRequest, Message, ToolCall

# Fields of the request itself; whatever else is extra is a model option.
_TOP_LEVEL = frozenset(
    {"keep_alive", "logprobs", "shift", "think", "top_logprobs", "truncate"}
)
_USUAL_CONTEXTS = frozenset(2**power for power in range(11, 19))
_BYTES_PER_TOKEN = 4


class Function(msgspec.Struct, gc=False):
    """A whole function call; its arguments are an object."""

    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Call(msgspec.Struct, gc=False):
    """A tool call."""

    function: Function
    id: str | None = None


class Part(msgspec.Struct, gc=False):
    """What is new in the message."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = None


class Line(msgspec.Struct, gc=False):
    """One line of the answer; durations are nanoseconds."""

    message: Part | None = None
    done: bool = False
    done_reason: str | None = None
    model: str | None = None
    error: Any = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None

    def usage(self) -> Usage:
        """Token counts in our words."""
        return Usage(input_tokens=self.prompt_eval_count, output_tokens=self.eval_count)

    def server(self) -> ServerTiming:
        """Durations in our words; the rate is eval_count / eval_duration."""
        output_s = _seconds(self.eval_duration)
        return ServerTiming(
            load_s=_seconds(self.load_duration),
            prompt_s=_seconds(self.prompt_eval_duration),
            output_s=output_s,
            total_s=_seconds(self.total_duration),
            prompt_tokens=self.prompt_eval_count,
            output_tokens=self.eval_count,
            output_tokens_per_s=self.eval_count / output_s
            if self.eval_count and output_s
            else None,
        )


decode_line = msgspec.json.Decoder(Line).decode


class PullLine(msgspec.Struct, gc=False):
    """One line of ``/api/pull``."""

    status: str = ""
    completed: int | None = None
    total: int | None = None
    error: Any = None


decode_pull = msgspec.json.Decoder(PullLine).decode


def call_deltas(calls: Sequence[Call], first: int) -> tuple[ToolCallDelta, ...]:
    """Whole calls, numbered from `first`.

    The index on the wire starts anew in every line of some versions.
    """
    return tuple(
        ToolCallDelta(
            index=first + place,
            id=call.id or None,
            name=call.function.name,
            arguments=_arguments_text(call.function.arguments),
        )
        for place, call in enumerate(calls)
    )


def _arguments_text(raw: msgspec.Raw) -> str:
    text = bytes(raw).decode()
    return str(msgspec.json.decode(text)) if text.startswith('"') else text


def request_body(request: ChatRequest) -> dict[str, Any]:
    """The body of a streamed ``/api/chat``.

    ``truncate: false`` asks for an error where the prompt does not fit; servers
    that do not know it cut the prompt silently.
    """
    top = {name: value for name, value in request.extra.items() if name in _TOP_LEVEL}
    options: dict[str, Any] = {
        "num_ctx": request.context_length,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "num_predict": request.max_tokens,
        **{name: value for name, value in request.extra.items() if name not in top},
    }
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "truncate": False,
        "options": {
            name: value for name, value in options.items() if value is not None
        },
        **top,
    }
    if request.response_schema is not None:
        body["format"] = dict(request.response_schema)
    if request.tools and request.tool_choice != "none":
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                },
            }
            for tool in request.tools
        ]
    return {name: value for name, value in body.items() if value is not None}


def _message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        wire["thinking"] = message.reasoning
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "function": {
                    "index": index,
                    "name": call.name,
                    "arguments": _arguments(call),
                },
            }
            for index, call in enumerate(message.tool_calls)
        ]
    if message.role == "tool":
        wire |= {"tool_name": message.name, "tool_call_id": message.tool_call_id}
    return {name: value for name, value in wire.items() if value is not None}


def _arguments(call: ToolCall) -> dict[str, Any]:
    """An object also where the model wrote none, or the server refuses the turn."""
    if call.arguments is None:
        return {"invalid": call.raw_arguments}
    return dict(call.arguments)


def truncation_warning(request: ChatRequest, counted: int | None) -> str | None:
    """Says that the prompt was cut silently, where the numbers look like it.

    Ollama keeps num_ctx/2 + 2 tokens of a prompt that is too long and answers
    200 (ollama issues 17427, 3839, 4967). Two signs, both against an estimate of
    4 bytes a token: the count is that very number and the prompt clearly longer;
    or the prompt does not fit and less than half of it was counted. Where
    num_ctx is not known, the server's usual ones are tried for the first sign,
    and the second is left out: old servers do not count a cached prefix.
    """
    if counted is None:
        return None
    num_ctx = request.context_length
    estimate = _prompt_bytes(request) // _BYTES_PER_TOKEN
    doubled = 2 * (counted - 2)
    contexts = _USUAL_CONTEXTS if num_ctx is None else {num_ctx}
    halved = any(abs(doubled - context) <= 2 for context in contexts)
    too_long = num_ctx is not None and estimate > num_ctx and estimate > 2 * counted
    if not too_long and not (halved and estimate > 1.25 * counted):
        return None
    of = "its context" if num_ctx is None else f"its context of {num_ctx}"
    return (
        f"The server kept {counted} of about {estimate} prompt tokens, to fit {of}: "
        "the beginning of the prompt was dropped. Raise context_length or shorten it."
    )


def _prompt_bytes(request: ChatRequest) -> int:
    """Without the thinking of past turns, which most chat templates leave out."""
    return sum(
        len(text.encode())
        for message in request.messages
        for text in (
            message.content,
            *(call.raw_arguments for call in message.tool_calls),
        )
    )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9
