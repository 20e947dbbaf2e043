"""One reply of a model as the loop understands it, whichever way it was written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentfarm.llm import ChatResponse, Message, ToolCall, ToolSpec

# Where a server does not keep the thinking apart.
_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
# Prose has braces too: what does not go on like an object is none.
_OBJECT = re.compile(r'\{\s*"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What a model wants: calls, or else a final answer.

    Attributes:
        message: The reply as the conversation keeps it.
        text: What it says to people.
        calls: Calls of tools, to be run at once.
        output: The final answer as JSON, where one is wanted.
        problem: Why the reply cannot be used, in words for the model. A reply with
            calls needs none, for a tool's refusal says it.
        malformed: The reply cannot be used, or some call in it.
    """

    message: Message
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    output: Any = None
    problem: str | None = None
    malformed: bool = False


class ToolProtocol(Protocol):
    """A way to offer tools to a model and to read its calls.

    Attributes:
        system: The system prompt.
        tools: Goes with each request.
        response_schema: Goes with each request.
    """

    system: str
    tools: tuple[ToolSpec, ...]
    response_schema: Mapping[str, Any] | None

    def read(self, response: ChatResponse) -> Turn:
        """Understand a reply."""
        ...

    def results(
        self, calls: Sequence[ToolCall], answers: Sequence[tuple[bool, str]]
    ) -> list[Message]:
        """The turns that answer `calls`: for each, whether it went well, and a text."""
        ...


def without_thinking(text: str) -> str:
    """A reply without the ``<think>`` block that it begins with."""
    return _THINKING.sub("", text, count=1).strip()


def find_object(text: str) -> tuple[dict[str, Any], str]:
    """The one JSON object in a reply, and the text it was written as.

    Fences and words around it are passed over, and line breaks inside a string are
    taken as they are, for models write code so. All else is as JSON has it.

    Raises:
        ValueError: There is none, there are several, or it is malformed; the
            message says so in words for the model.
    """
    found: list[tuple[dict[str, Any], str]] = []
    start = _OBJECT.search(text)
    while start is not None:
        value, end = _decode(text, start.start())
        found.append((value, text[start.start() : end]))
        start = _OBJECT.search(text, end)
    if not found:
        if text.strip() == "{}":
            return {}, "{}"
        raise ValueError("It holds no JSON object.")
    if len(found) > 1:
        raise ValueError(f"It holds {len(found)} JSON objects instead of one.")
    return found[0]


def _decode(text: str, start: int) -> tuple[dict[str, Any], int]:
    try:
        value, end = _DECODER.raw_decode(text, start)
        # Half a surrogate pair is refused here, for it could not be sent on.
        msgspec.json.encode(value)
    except json.JSONDecodeError as error:
        near = text[max(start, error.pos - 20) : error.pos + 20]
        raise ValueError(f"It is not valid JSON: {error.msg} near {near!r}.") from None
    except ValueError as error:
        raise ValueError(f"It holds a value that JSON cannot carry: {error}.") from None
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None
    return value, end


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse)
