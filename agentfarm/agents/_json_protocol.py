"""Tools in plain words: the model answers with one JSON object, a call or its result.

For models whose server knows no tools. What is not exactly such an object is
malformed; nothing is guessed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentfarm.agents._native_protocol import EMPTY, constraint, cut_off
from agentfarm.agents._turn import Turn, find_object, without_thinking
from agentfarm.llm import Message, ToolCall, user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentfarm.agents._agent import Agent
    from agentfarm.llm import ChatResponse, ToolSpec

_KEYS = frozenset({"tool", "arguments", "final"})
_CALL = '{"tool": "<name>", "arguments": {<its arguments>}}'
_TEXT = '{"final": "<your answer>"}'
_OBJECT = '{"final": {<your answer>}}'


class JsonProtocol:
    """Describes tools in the system prompt and reads JSON; see `ToolProtocol`.

    Args:
        agent: Whose.
        capabilities: Of the model; ``json_schema`` lets the server constrain it.
    """

    def __init__(self, agent: Agent, capabilities: frozenset[str]) -> None:
        self.tools: tuple[ToolSpec, ...] = ()
        self.system = f"{agent.instructions}\n\n{_description(agent)}"
        self.response_schema: Mapping[str, Any] | None = None
        self._wants_object = agent.output_schema is not None
        if "json_schema" in capabilities:
            self.response_schema = _reply_schema(agent)

    def read(self, response: ChatResponse) -> Turn:
        """Understand a reply."""
        said = response.message
        text = without_thinking(said.content or "")
        try:
            value, written = find_object(text)
            call = _call(value)
        except ValueError as error:
            return Turn(
                message=replace(said, content=text or EMPTY, tool_calls=()),
                text=text,
                malformed=True,
                problem=self._repair(f"{error}{cut_off(response)}"),
            )
        message = replace(said, content=written, tool_calls=())
        if call is not None:
            return Turn(message=message, calls=(call,))
        final = value["final"]
        return Turn(message=message, text=_text(final), output=final)

    def results(
        self, calls: Sequence[ToolCall], answers: Sequence[tuple[bool, str]]
    ) -> list[Message]:
        """The turn that answers `calls`."""
        return [
            user(
                "\n\n".join(
                    f"Result of {call.name} ({'ok' if ok else 'failed'}):\n{text}"
                    for call, (ok, text) in zip(calls, answers, strict=True)
                )
            )
        ]

    def _repair(self, problem: str) -> str:
        final = _OBJECT if self._wants_object else _TEXT
        return (
            f"Your reply cannot be used. {problem} Reply again with exactly one JSON "
            f"object and nothing else, either {_CALL} or {final}."
        )


def in_words(messages: Sequence[Message]) -> list[Message]:
    """A conversation with native tool calls as this protocol would have written it."""
    written = []
    for message in messages:
        if message.role == "tool":
            content = f"Result of {message.name}:\n{message.content}"
            written.append(user(content))
        elif message.tool_calls:
            calls = [
                json.dumps({"tool": call.name, "arguments": dict(call.arguments or {})})
                for call in message.tool_calls
            ]
            content = "\n".join(calls)
            bare = replace(message, content=content, reasoning="", tool_calls=())
            written.append(bare)
        else:
            written.append(message)
    return written


def _call(value: Mapping[str, Any]) -> ToolCall | None:
    """The call that `value` asks for; None where it is a final answer.

    Raises:
        ValueError: It is neither, or both; in words for the model.
    """
    if unknown := sorted(set(value) - _KEYS):
        raise ValueError(f"It has the unknown key {unknown[0][:50]!r}.")
    name, arguments = value.get("tool"), value.get("arguments")
    if name is None:
        if "final" not in value:
            raise ValueError('It has neither "tool" nor "final".')
        return None
    if value.get("final") is not None:
        raise ValueError('It has both "tool" and "final".')
    if not isinstance(name, str) or not name:
        raise ValueError('"tool" is not the name of a tool.')
    # Models write null for what they leave out.
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        problem = '"arguments" is not a JSON object.'
        raise ValueError(problem)  # noqa: TRY004 - the model's mistake, not a caller's
    return ToolCall(id="", name=name, arguments=arguments, raw_arguments="")


def _text(final: Any) -> str:
    if final is None:
        return ""
    return final if isinstance(final, str) else json.dumps(final, ensure_ascii=False)


def _description(agent: Agent) -> str:
    tools = "\n".join(
        f"- {tool.name}: {tool.description}\n  {json.dumps(dict(tool.parameters))}"
        for tool in agent.tools
    )
    final = _TEXT
    follows = ""
    if agent.output_schema is not None:
        final = _OBJECT
        schema = json.dumps(dict(agent.output_schema))
        follows = f"\nThe value of final follows this JSON schema:\n{schema}\n"
    return (
        "# Tools\n\n"
        "Each of your replies is exactly one JSON object and nothing else: no prose, "
        "no code fence. To call a tool, reply with\n"
        f"{_CALL}\n"
        "You then get its result, as data, and reply again; one call in a reply. "
        "When the work is done, reply with\n"
        f"{final}\n{follows}\n"
        f"The tools, each with the JSON schema of its arguments:\n{tools}"
    )


def _reply_schema(agent: Agent) -> dict[str, Any]:
    """What a server may constrain the reply by."""
    calls = [
        _closed(tool={"const": tool.name}, arguments=constraint(tool.parameters))
        for tool in agent.tools
    ]
    schema = agent.output_schema
    final = {"type": "string"} if schema is None else constraint(schema)
    return {"anyOf": [*calls, _closed(final=final)]}


def _closed(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
