"""The words of OpenAI's chat completions, as the servers of today speak them.

Source: OpenAI's API reference and recorded answers of llama.cpp's server; vLLM,
LM Studio, SGLang and the hosted ones differ in what they leave out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from agentfarm.llm._messages import ServerTiming, ToolCallDelta, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentfarm.llm._messages import ChatRequest, Message, ToolCall

_T = TypeVar("_T")


class FunctionPiece(msgspec.Struct, gc=False):
    """Part of a function call."""

    name: str | None = None
    arguments: str | None = None


class CallPiece(msgspec.Struct, gc=False):
    """Part of a tool call; some servers leave the index out."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class Delta(msgspec.Struct, gc=False):
    """What is new; a whole message has the same fields."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallPiece] | None = None


class Choice(msgspec.Struct, gc=False):
    """One alternative; we ask for one only."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Counts(msgspec.Struct, gc=False):
    """``usage``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

    def usage(self) -> Usage:
        """In our words."""
        prompt, completion = self.prompt_tokens_details, self.completion_tokens_details
        return Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=self.completion_tokens,
            cached_tokens=prompt.cached_tokens if prompt else None,
            reasoning_tokens=completion.reasoning_tokens if completion else None,
        )


class Timings(msgspec.Struct, gc=False):
    """llama.cpp's ``timings``, in milliseconds; ``prompt_n`` excludes ``cache_n``."""

    cache_n: int | None = None
    prompt_n: int | None = None
    prompt_ms: float | None = None
    predicted_n: int | None = None
    predicted_ms: float | None = None
    predicted_per_second: float | None = None

    def usage(self) -> Usage:
        """Token counts, for a stream without ``usage``."""
        prompt = None if self.prompt_n is None else self.prompt_n + (self.cache_n or 0)
        return Usage(
            input_tokens=prompt,
            output_tokens=self.predicted_n,
            cached_tokens=self.cache_n,
        )

    def server(self) -> ServerTiming:
        """In our words."""
        return ServerTiming(
            prompt_s=None if self.prompt_ms is None else self.prompt_ms / 1e3,
            output_s=None if self.predicted_ms is None else self.predicted_ms / 1e3,
            prompt_tokens=self.prompt_n,
            output_tokens=self.predicted_n,
            output_tokens_per_s=self.predicted_per_second,
        )


class Event(msgspec.Struct, gc=False):
    """One ``data:`` line, or a whole answer."""

    choices: list[Choice] | None = None
    model: str | None = None
    usage: Counts | None = None
    timings: Timings | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Event).decode


def decode_event(payload: bytes) -> Event:
    """Read one event; odd shapes are smoothed, which costs time.

    Raises:
        msgspec.DecodeError: It is not JSON, or no event of this format.
    """
    try:
        return _decode(payload)
    except msgspec.ValidationError:
        return _smoothed(msgspec.json.decode(payload))


def _smoothed(value: Any) -> Event:
    """An event whose fields are not of the documented types."""
    if not isinstance(value, dict):
        raise msgspec.ValidationError("An event is an object.")
    choices = [_choice(item) for item in _items(value.get("choices"))]
    model = value.get("model")
    return Event(
        choices=choices,
        model=model if isinstance(model, str) else None,
        usage=_or_none(value.get("usage"), Counts),
        timings=_or_none(value.get("timings"), Timings),
        error=value.get("error"),
    )


def _choice(value: dict[str, Any]) -> Choice:
    delta = value.get("delta") or value.get("message")
    if not isinstance(delta, dict):
        delta = {"content": value.get("text")}
    reason = value.get("finish_reason")
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    return Choice(
        delta=Delta(
            content=_text(delta.get("content"), "text"),
            reasoning=_text(reasoning, "text")
            + _text(delta.get("content"), "thinking"),
            tool_calls=[_call(item) for item in _items(delta.get("tool_calls"))],
        ),
        finish_reason=reason if isinstance(reason, str) else None,
    )


def _text(value: Any, part: str) -> str:
    """Text, also from Mistral's list of typed parts."""
    if isinstance(value, str):
        return value if part == "text" else ""
    return "".join(
        _text(item.get(part), "text")
        for item in _items(value)
        if item.get("type") == part
    )


def _call(value: dict[str, Any]) -> CallPiece:
    function = value.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    call_id, name, index = value.get("id"), function.get("name"), value.get("index")
    return CallPiece(
        index=index if isinstance(index, int) else None,
        id=None if call_id is None else str(call_id),
        function=FunctionPiece(
            name=name if isinstance(name, str) else None, arguments=arguments
        ),
    )


def _items(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def _or_none(value: Any, kind: type[_T]) -> _T | None:
    try:
        return None if value is None else msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return None


class CallIndex:
    """Gives every piece of a tool call the place it belongs to.

    Some servers leave ``index`` out, and some send 0 with every one of several
    calls; there a new id begins a new call.
    """

    def __init__(self) -> None:
        self._ids: list[str | None] = []
        self._place: dict[int, int] = {}

    def deltas(self, pieces: Sequence[CallPiece]) -> tuple[ToolCallDelta, ...]:
        """The pieces in our words."""
        return tuple(
            ToolCallDelta(
                index=self._find(piece),
                id=piece.id or None,
                name=(piece.function and piece.function.name) or None,
                arguments=(piece.function and piece.function.arguments) or "",
            )
            for piece in pieces
        )

    def _find(self, piece: CallPiece) -> int:
        given = -1 if piece.index is None else piece.index
        place = self._place.get(given)
        if place is not None and (not piece.id or piece.id == self._ids[place]):
            return place
        if place is not None and self._ids[place] is None:
            self._ids[place] = piece.id
            return place
        self._place[given] = len(self._ids)
        self._ids.append(piece.id or None)
        return len(self._ids) - 1


def request_body(request: ChatRequest) -> dict[str, Any]:
    """The body of a streamed chat completion.

    ``extra`` goes in last; a None in it takes a field out, e.g.
    ``{"stream_options": None}`` for a server that refuses it.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "max_tokens": request.max_tokens,
    }
    if request.tools:
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
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_schema is not None:
        body["response_format"] = _response_format(request.response_schema)
    body |= request.extra
    return {name: value for name, value in body.items() if value is not None}


def _tool_choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    # OpenAI refuses a strict schema that is open; local servers follow both.
    strict = schema.get("additionalProperties") is False
    return {
        "type": "json_schema",
        "json_schema": {"name": "response", "schema": dict(schema), "strict": strict},
    }


def _message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["content"] = message.content or None
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": _arguments(call),
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    if message.name is not None and message.role != "tool":
        wire["name"] = message.name
    return wire


def _arguments(call: ToolCall) -> str:
    """The arguments as a JSON object, since chat templates parse them."""
    if call.arguments is None:
        return msgspec.json.encode({"invalid": call.raw_arguments}).decode()
    return call.raw_arguments or "{}"
