"""How each of the two wire formats writes one scripted answer."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from agentfarm.llm._messages import ServerTiming, Usage

if TYPE_CHECKING:
    from agentfarm.llm._messages import ChatChunk
    from agentfarm.llm.testing._script import Reply, WireName

__all__ = ["OllamaWire", "OpenAIWire", "Sent", "Wire", "to_json"]


@dataclass(slots=True)
class Sent:
    """When things happened, on the stub's `time.perf_counter`."""

    received_at: float
    first_at: float | None = None
    last_at: float | None = None

    def measured(self) -> ServerTiming:
        """What an honest server would report of this answer."""
        now = time.perf_counter()
        if self.first_at is None or self.last_at is None:
            return ServerTiming(total_s=now - self.received_at)
        return ServerTiming(
            prompt_s=self.first_at - self.received_at,
            output_s=self.last_at - self.first_at,
            total_s=now - self.received_at,
        )


class Wire(Protocol):
    """One answer in one wire format."""

    @property
    def name(self) -> WireName:
        """Which format."""
        ...

    @property
    def content_type(self) -> str:
        """Of a streamed answer."""
        ...

    def opening(self) -> list[bytes]:
        """What comes right after the headers, before there is content."""
        ...

    def piece(self, chunk: ChatChunk) -> bytes:
        """One content-bearing chunk."""
        ...

    def closing(self, sent: Sent) -> list[bytes]:
        """What follows the last piece."""
        ...

    def whole(self, sent: Sent) -> bytes:
        """The answer in one body."""
        ...

    def error_line(self, message: str) -> bytes:
        """An error in the middle of a stream."""
        ...

    def broken_line(self) -> bytes:
        """A chunk that ends where it should not."""
        ...


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8, with characters as themselves."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class OpenAIWire:
    """Server-sent events of ``/v1/chat/completions``, in llama.cpp's dialect.

    Source: recorded answers of llama.cpp's server and OpenAI's API reference.
    """

    name: WireName = "openai"
    content_type = "text/event-stream"

    def __init__(self, reply: Reply, body: dict[str, Any]) -> None:
        self._reply = reply
        self._model = str(body.get("model", "stub"))
        options = body.get("stream_options") or {}
        self._wants_usage = bool(options.get("include_usage"))

    def opening(self) -> list[bytes]:
        """An SSE comment and the role chunk, where asked for."""
        lines = [b": PROCESSING\n\n"] if self._reply.comment else []
        if self._reply.role_chunk:
            lines.append(self._chunk({"role": "assistant", "content": None}))
        return lines

    def piece(self, chunk: ChatChunk) -> bytes:
        """One delta."""
        delta: dict[str, Any] = {}
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.reasoning:
            delta["reasoning_content"] = chunk.reasoning
        if chunk.tool_calls:
            delta["tool_calls"] = [
                {
                    "index": call.index,
                    **({"id": call.id, "type": "function"} if call.id else {}),
                    "function": {
                        **({"name": call.name} if call.name else {}),
                        "arguments": call.arguments,
                    },
                }
                for call in chunk.tool_calls
            ]
        return self._chunk(delta)

    def closing(self, sent: Sent) -> list[bytes]:
        """Finish reason, then usage where the client asked for it, then DONE."""
        timings = self._timings()
        usage = self._usage()
        late: dict[str, Any] = timings if not self._wants_usage else {}
        lines = [self._chunk({}, finish_reason=self._reply.final_reason, **late)]
        if self._wants_usage and usage:
            lines.append(_event(self._frame([]) | usage | timings))
        return [*lines, b"data: [DONE]\n\n"]

    def whole(self, sent: Sent) -> bytes:
        """A chat.completion object."""
        reply = self._reply
        message: dict[str, Any] = {"role": "assistant", "content": reply.full_text}
        if reply.reasoning:
            message["reasoning_content"] = "".join(reply.reasoning)
        if reply.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.raw_arguments},
                }
                for call in reply.tool_calls
            ]
        choice = {"finish_reason": reply.final_reason, "index": 0, "message": message}
        frame = self._frame([choice]) | {"object": "chat.completion"}
        return to_json(frame | self._usage() | self._timings())

    def error_line(self, message: str) -> bytes:
        """llama.cpp's error event; no DONE follows it."""
        return _event(
            {"error": {"code": 500, "message": message, "type": "server_error"}}
        )

    def broken_line(self) -> bytes:
        """An event whose JSON ends too soon."""
        return self._chunk({"content": "never seen"})[:-20] + b"\n\n"

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "choices": choices,
            "created": int(time.time()),
            "id": "chatcmpl-stub",
            "model": self._model,
            "object": "chat.completion.chunk",
        }

    def _chunk(
        self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any
    ) -> bytes:
        choice = {"finish_reason": finish_reason, "index": 0, "delta": delta}
        return _event(self._frame([choice]) | more)

    def _usage(self) -> dict[str, Any]:
        counted = self._reply.counted
        if counted is None:
            return {}
        usage: dict[str, Any] = {
            "prompt_tokens": counted.input_tokens,
            "completion_tokens": counted.output_tokens,
            "total_tokens": (counted.input_tokens or 0) + (counted.output_tokens or 0),
        }
        if counted.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": counted.cached_tokens}
        if counted.reasoning_tokens is not None:
            details = {"reasoning_tokens": counted.reasoning_tokens}
            usage["completion_tokens_details"] = details
        return {"usage": usage}

    def _timings(self) -> dict[str, Any]:
        server, counted = self._reply.server, self._reply.counted
        if server is None or counted is None:
            return {}
        prompt_n = server.prompt_tokens or counted.input_tokens or 0
        predicted_n = server.output_tokens or counted.output_tokens or 0
        timings: dict[str, Any] = {"cache_n": counted.cached_tokens or 0}
        timings |= _rate("prompt", prompt_n, server.prompt_s or 0.0)
        timings |= _rate("predicted", predicted_n, server.output_s or 0.0)
        if server.output_tokens_per_s is not None:
            timings["predicted_per_second"] = server.output_tokens_per_s
        return {"timings": timings}


class OllamaWire:
    """Lines of JSON of ``/api/chat``.

    Source: Ollama's ``api/types.go`` and ``docs/api.md``. All counts and
    durations are ``omitempty`` there, so that a zero is absent.
    """

    name: WireName = "ollama"
    content_type = "application/x-ndjson"

    def __init__(self, reply: Reply, body: dict[str, Any]) -> None:
        self._reply = reply
        self._model = str(body.get("model", "stub"))

    def opening(self) -> list[bytes]:
        """Nothing: Ollama has no role chunk."""
        return []

    def piece(self, chunk: ChatChunk) -> bytes:
        """One line with a message."""
        message: dict[str, Any] = {"role": "assistant", "content": chunk.text}
        if chunk.reasoning:
            message["thinking"] = chunk.reasoning
        if chunk.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "function": {
                        "index": call.index,
                        "name": call.name,
                        "arguments": json.loads(call.arguments),
                    },
                }
                for call in chunk.tool_calls
            ]
        return _line(self._frame(message) | {"done": False})

    def closing(self, sent: Sent) -> list[bytes]:
        """The line that says done."""
        message = {"role": "assistant", "content": ""}
        return [_line(self._frame(message) | self._final(sent))]

    def whole(self, sent: Sent) -> bytes:
        """All in one object."""
        reply = self._reply
        message: dict[str, Any] = {"role": "assistant", "content": reply.full_text}
        if reply.reasoning:
            message["thinking"] = "".join(reply.reasoning)
        if reply.tool_calls:
            message["tool_calls"] = [
                {"function": {"name": call.name, "arguments": call.arguments}}
                for call in reply.tool_calls
            ]
        return to_json(self._frame(message) | self._final(sent))

    def error_line(self, message: str) -> bytes:
        """A bare error object, with HTTP 200 long sent."""
        return _line({"error": message})

    def broken_line(self) -> bytes:
        """A line whose JSON ends too soon."""
        message = {"role": "assistant", "content": "never seen"}
        return _line(self._frame(message) | {"done": False})[:-20] + b"\n"

    def _frame(self, message: dict[str, Any]) -> dict[str, Any]:
        created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return {"model": self._model, "created_at": created, "message": message}

    def _final(self, sent: Sent) -> dict[str, Any]:
        counted = self._reply.counted or Usage()
        server = self._reply.server or sent.measured()
        # Ollama says "stop" after tool calls, too.
        reason = self._reply.final_reason.replace("tool_calls", "stop")
        numbers = {
            "total_duration": _ns(server.total_s),
            "load_duration": _ns(server.load_s),
            "prompt_eval_count": counted.input_tokens,
            "prompt_eval_duration": _ns(server.prompt_s),
            "eval_count": counted.output_tokens,
            "eval_duration": _ns(server.output_s),
        }
        present = {name: value for name, value in numbers.items() if value}
        return {"done": True, "done_reason": reason, **present}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


def _line(value: dict[str, Any]) -> bytes:
    return to_json(value) + b"\n"


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def _rate(name: str, count: int, seconds: float) -> dict[str, Any]:
    return {
        f"{name}_n": count,
        f"{name}_ms": seconds * 1e3,
        f"{name}_per_token_ms": seconds * 1e3 / count if count else 0.0,
        f"{name}_per_second": count / seconds if seconds else 0.0,
    }
