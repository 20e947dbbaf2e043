"""One thing an agent can do, with arguments that are checked before it is done."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agentfarm.tools._schemas import validator_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jsonschema.protocols import Validator

    from agentfarm.llm import ToolSpec

SHOWN_CHARS = 300
SHOWN_PROBLEMS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolResult:
    """What a tool answers.

    Attributes:
        text: For the model.
        ok: Whether the tool did what was asked and it went well.
        data: The same for programs, as JSON values.
    """

    text: str
    ok: bool = True
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Tool:
    """Something an agent can do.

    Attributes:
        name: What the model calls it: letters, digits, ``_`` and ``-``.
        description: What it does and when to use it, for the model.
        parameters: JSON schema (draft 2020-12) of the arguments object.
        run: Does it; takes the arguments by keyword.

    Raises:
        ValueError: `name` is not one that every server takes.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Callable[..., Awaitable[ToolResult]] = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.name):
            raise ValueError(
                f"The tool name {self.name!r} is not 1 to 64 letters, digits, _ or -."
            )

    def spec(self) -> ToolSpec:
        """How it is offered to a model."""
        from agentfarm.llm import ToolSpec

        return ToolSpec(
            name=self.name, description=self.description, parameters=self.parameters
        )

    async def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Check the arguments and do it.

        Arguments that do not fit the schema are a result that says what is wrong.
        Models write ``null`` for what they leave out, so a null counts as absent
        unless the schema wants one.
        """
        given = {
            name: value
            for name, value in arguments.items()
            if value is not None or self._takes_null(name)
        }
        if problems := self._problems(given):
            return self.refusal(" ".join(problems))
        return await self.run(**given)

    def refusal(self, problem: str) -> ToolResult:
        """The answer to arguments that do not fit, with those that would."""
        return ToolResult(
            text=f"{self.name} was not run. {problem}\n"
            f"Its arguments are one JSON object that follows this schema: "
            f"{json.dumps(dict(self.parameters))}",
            ok=False,
            data={"error": "arguments"},
        )

    @cached_property
    def _validator(self) -> Validator:
        return validator_of(self.parameters)

    def _takes_null(self, name: str) -> bool:
        schema = self.parameters.get("properties", {}).get(name, False)
        return bool(self._validator.evolve(schema=schema).is_valid(None))

    def _problems(self, arguments: dict[str, Any]) -> list[str]:
        try:
            errors = self._validator.iter_errors(arguments)
            found = sorted(errors, key=lambda error: error.json_path)
            return [
                _shortened(f"{error.json_path}: {error.message}.")
                for error in found[:SHOWN_PROBLEMS]
            ]
        except RecursionError:
            return ["They are nested too deeply."]


def _shortened(text: str) -> str:
    """Both ends of a text; a message of jsonschema quotes the whole value."""
    if len(text) <= SHOWN_CHARS:
        return text
    half = SHOWN_CHARS // 2
    return f"{text[:half]} … {text[-half:]}"
