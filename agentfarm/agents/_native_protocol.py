"""Tools by the server's own tool calls; also the way of an agent without tools."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentfarm.agents._turn import Turn, find_object, without_thinking
from agentfarm.llm import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentfarm.agents._agent import Agent
    from agentfarm.errors import ProviderError
    from agentfarm.llm import ChatResponse, ToolCall, ToolSpec

# What OpenAIProvider warns of; a test holds the two together.
_DROPPED = "no place for tools"
# How Ollama, llama.cpp without --jinja and vLLM without a tool parser refuse them.
_REFUSALS = ("does not support tools", "requires --jinja", "--enable-auto-tool-choice")
# A call in the words of a chat template: the server did not understand its model.
_UNREAD = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")

_OUTPUT = (
    "\n\n# Answer\n\nYour final answer is one JSON object and nothing else: no prose, "
    "no code fence. It follows this JSON schema:\n"
)
EMPTY = "(empty reply)"


class NativeProtocol:
    """Offers tools as the server's API has them; see `ToolProtocol`.

    Args:
        agent: Whose.
        capabilities: Of the model; without tools, ``json_schema`` constrains the
            answer. Beside tools it would, on most servers, forbid calls.
    """

    def __init__(self, agent: Agent, capabilities: frozenset[str]) -> None:
        self.tools: tuple[ToolSpec, ...] = agent.tools.specs()
        self.system = agent.instructions
        self.response_schema: Mapping[str, Any] | None = None
        self._wants_object = agent.output_schema is not None
        if agent.output_schema is not None:
            self.system += _OUTPUT + json.dumps(dict(agent.output_schema))
            if not self.tools and "json_schema" in capabilities:
                self.response_schema = constraint(agent.output_schema)

    def read(self, response: ChatResponse) -> Turn:
        """Understand a reply."""
        said = response.message
        text = without_thinking(said.content or "")
        message, calls = said, said.tool_calls
        if not all(call.name for call in calls):
            # Servers refuse to be shown a call without a name.
            calls = tuple(replace(call, name=call.name or "?") for call in calls)
        if text != said.content or calls != said.tool_calls:
            message = replace(said, content=text, tool_calls=calls)
        if calls:
            broken = any(call.arguments is None for call in calls)
            return Turn(message=message, text=text, calls=calls, malformed=broken)
        if not text:
            # Some servers refuse a turn that holds nothing.
            message = replace(message, content=EMPTY)
            return _unusable(message, text, "It is empty.", response)
        if not self._wants_object:
            return Turn(message=message, text=text)
        try:
            output, _ = find_object(text)
        except ValueError as error:
            return _unusable(message, text, str(error), response)
        return Turn(message=message, text=text, output=output)

    def results(
        self, calls: Sequence[ToolCall], answers: Sequence[tuple[bool, str]]
    ) -> list[Message]:
        """The turns that answer `calls`."""
        return [
            Message(role="tool", content=text, tool_call_id=call.id, name=call.name)
            for call, (_, text) in zip(calls, answers, strict=True)
        ]


def _unusable(message: Message, text: str, why: str, response: ChatResponse) -> Turn:
    return Turn(
        message=message,
        text=text,
        malformed=True,
        problem=f"Your reply cannot be used. {why}{cut_off(response)} "
        "Reply again, as you were asked to.",
    )


def cut_off(response: ChatResponse) -> str:
    """A sentence for the model, where its reply reached the limit of tokens."""
    if response.finish_reason != "length":
        return ""
    return " It was cut off at the limit of its length: keep it shorter."


def tools_ignored(response: ChatResponse) -> str | None:
    """Why this reply shows that the server has no use for tools; None if it is fine."""
    if response.message.tool_calls:
        return None
    for warning in response.warnings:
        if _DROPPED in warning:
            return warning
    text = response.message.content or ""
    if any(mark in text for mark in _UNREAD):
        return "The server did not understand the tool call that its model wrote."
    return None


def tools_refused(error: ProviderError) -> bool:
    """Whether the server refused the request because of its tools."""
    return any(words in error.message for words in _REFUSALS)


def constraint(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a schema every server can constrain a model by.

    A reference breaks where the schema is put inside another one, and llama.cpp
    refuses patterns without anchors: such a schema is left to be checked afterwards.
    """
    text = json.dumps(dict(schema))
    return {"type": "object"} if '"$ref"' in text or '"pattern"' in text else schema
