"""The tools of one agent, called by the name and the text that a model wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agentfarm.tools._tool import Tool, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentfarm.llm import ToolCall, ToolSpec

SHOWN_CHARS = 500


class ToolRegistry:
    """Tools in the order they were added, each with a name of its own.

    Args:
        tools: The first ones.

    Raises:
        ValueError: Two have the same name.
    """

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            self.add(tool)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def add(self, tool: Tool) -> None:
        """Add one.

        Raises:
            ValueError: There is one of that name.
        """
        if tool.name in self._tools:
            raise ValueError(f"There is a tool named {tool.name!r} already.")
        self._tools[tool.name] = tool

    def get(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return self._tools.get(name)

    def specs(self) -> tuple[ToolSpec, ...]:
        """How they are offered to a model."""
        return tuple(tool.spec() for tool in self)

    async def call(self, tool_call: ToolCall) -> ToolResult:
        """Do what a model asked for.

        An unknown name, malformed JSON and arguments that do not fit are results
        that tell the model its mistake.
        """
        tool = self.get(tool_call.name)
        if tool is None:
            there = ", ".join(self._tools) or "none"
            return ToolResult(
                text=f"There is no tool named {tool_call.name[:100]!r}. "
                f"The tools are: {there}.",
                ok=False,
                data={"error": "unknown tool"},
            )
        if tool_call.arguments is None:
            return tool.refusal(_mistake(tool_call.raw_arguments))
        return await tool.call(tool_call.arguments)


def _mistake(text: str) -> str:
    """What is wrong with a text that should be a JSON object."""
    shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
    try:
        kind = type(json.loads(text)).__name__
        problem = f"a JSON value of type {kind}, not an object"
    except ValueError as error:
        problem = f"not valid JSON ({error})"
    except RecursionError:
        problem = "nested too deeply"
    return f"The arguments are {problem}: {shown}"
