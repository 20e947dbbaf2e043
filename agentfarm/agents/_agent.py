"""What an agent is, what it may spend, who asks, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from agentfarm.errors import ConfigError
from agentfarm.tools import ToolRegistry
from agentfarm.tools._schemas import validator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jsonschema.protocols import Validator

    from agentfarm.events import EventBus
    from agentfarm.llm import LLMRouter, RegisteredModel, TaskType

AgentEnd = Literal[
    "done",
    "steps",
    "tool_calls",
    "tokens",
    "time",
    "context",
    "repeated",
    "malformed",
]
ToolMode = Literal["auto", "native", "json"]

SHOWN_CHARS = 300
SHOWN_PROBLEMS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What one run of an agent may spend; None is no limit.

    Attributes:
        steps: Requests to the model.
        tool_calls: Calls of tools. A turn that asks for more than are left is not
            begun.
        tokens: Input and output tokens of all requests together, looked at before
            each request: the last one may pass it.
        wall_s: Seconds; what runs then, a request or a tool, is cancelled.
        identical_calls: How often one tool may be called with the same arguments
            while the workspace stays as it is. The next such call is refused with
            a word to the model, the one after that ends the run.
        result_chars: Longest text of a tool's result that the model gets to see;
            of a longer one it sees both ends.

    Raises:
        ConfigError: A limit is not positive.
    """

    steps: int = 16
    tool_calls: int = 32
    tokens: int | None = None
    wall_s: float | None = 900.0
    identical_calls: int = 2
    result_chars: int = 10_000

    def __post_init__(self) -> None:
        limits = {
            "steps": self.steps,
            "tool_calls": self.tool_calls,
            "tokens": self.tokens,
            "wall_s": self.wall_s,
            "identical_calls": self.identical_calls,
            "result_chars": self.result_chars,
        }
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise ConfigError(
                    f"Budget({name}={limit}) leaves an agent nothing to spend.",
                    remedy="Give it a positive number.",
                )


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A model with a task of its own: words, tools, an output and a budget.

    Attributes:
        name: Who it is, in events and the Store.
        instructions: The system prompt, without the tools.
        tools: What it can do.
        output_schema: JSON schema (draft 2020-12) of the object that the final
            answer must be; None where any text will do.
        task_type: What the router chooses a model by, where none is named.
        budget: What a run may spend.
        temperature: Of every request; None leaves the server's default.
        max_tokens: Longest reply of the model, tokens.
        tool_mode: How tools are offered: by the server's own tool calls
            (``native``), in words with JSON replies (``json``), or natively where
            the model is registered with the capability ``tools`` (``auto``).
            Where a server turns out to ignore tools, the run goes on with ``json``.
    """

    name: str
    instructions: str
    tools: ToolRegistry = field(default_factory=ToolRegistry)
    output_schema: Mapping[str, Any] | None = None
    task_type: TaskType = "general"
    budget: Budget = field(default_factory=Budget)
    temperature: float | None = 0.0
    max_tokens: int | None = 2048
    tool_mode: ToolMode = "auto"

    def problem_with(self, output: Any) -> str | None:
        """Why `output` is not the final answer that was asked for; None if it is.

        Raises:
            ConfigError: The agent's `output_schema` is not a valid schema.
        """
        if not isinstance(output, dict):
            return f"The answer is a JSON {_kind(output)}, not an object."
        validator = self._validator
        try:
            errors = sorted(validator.iter_errors(output), key=lambda e: e.json_path)
        except RecursionError:
            return "The answer is nested too deeply."
        problems = [_short(f"{e.json_path}: {e.message}.") for e in errors]
        return " ".join(problems[:SHOWN_PROBLEMS]) or None

    @cached_property
    def _validator(self) -> Validator:
        from jsonschema import SchemaError

        try:
            return validator_of(self.output_schema or {})
        except SchemaError as error:
            raise ConfigError(
                f"The output schema of agent {self.name!r} is not valid: "
                f"{error.message}.",
                remedy="Mend it.",
            ) from None


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks: the same for all agents of a workflow.

    Attributes:
        router: Where the models are.
        bus: Gets the AGENT_* and CODE_* events; None for none. The router emits
            its LLM_* events to its own.
        model: The registered model to ask; None lets the router choose.
        models: Models of some agents, by the agent's name; they go before `model`.
        run_id, sample_id: What events and requests belong to.
        seed: Of every request.
        temperature: Of every request, instead of the agents' own; None leaves them.
    """

    router: LLMRouter
    bus: EventBus | None = None
    model: str | None = None
    models: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    run_id: str | None = None
    sample_id: str | None = None
    seed: int | None = None
    temperature: float | None = None

    def model_for(self, agent: str) -> str | None:
        """The model that an agent of this name asks; None if the router chooses."""
        return self.models.get(agent, self.model)

    def capabilities(self, agent: str) -> frozenset[str]:
        """What the model of this agent declares to be capable of.

        Of several registrations of one name it is the union, for the router prefers
        those that declare what a request needs; where the router chooses, that of
        the models with the highest preference.
        """
        name = self.model_for(agent)
        found: list[RegisteredModel] = [
            entry for entry in self.router.models if name in (None, entry.name)
        ]
        if name is None:
            top = max((entry.preference for entry in found), default=0)
            found = [entry for entry in found if entry.preference == top]
        return frozenset[str]().union(*(entry.capabilities for entry in found))


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCount:
    """What requests cost; counts of several add up with ``+``.

    Attributes:
        input_tokens: Of the prompts, each request counted whole.
        output_tokens: Generated.
        requests: Requests that were sent.
        estimated: Some server did not say, or a request was cut short, and its
            share is taken as characters / 4.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: TokenCount) -> TokenCount:
        return TokenCount(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            requests=self.requests + other.requests,
            estimated=self.estimated or other.estimated,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """One call of a tool and what came of it.

    Attributes:
        id: Of the call, unique within the run.
        tool: The name that the model wrote; there may be no such tool.
        arguments: None where the model wrote no JSON object.
        ok: Whether the tool did what was asked.
        text: Its answer, whole.
        data: The same for programs; ``error`` is ``interrupted`` where it was cut
            short and ``repeated`` where it was refused as one call too many.
        duration_s: Seconds it took.
    """

    id: str
    tool: str
    arguments: Mapping[str, Any] | None
    ok: bool
    text: str
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    duration_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentResult:
    """What a run of an agent came to. A model's failure is an `end`, not an error.

    Attributes:
        agent: Its name.
        text: The final answer; where `end` is not ``done``, the last that it wrote.
        output: The final answer as an object that follows the agent's
            `output_schema`; None where there is no schema or the run did not end
            well.
        end: ``done``, the limit that ended the run (``steps``, ``tool_calls``,
            ``tokens``, ``time``), ``context`` (the conversation outgrew the model's
            context), ``repeated`` (the same call again and again), or ``malformed``
            (two replies in a row that cannot be used, or a second final answer that
            does not follow the schema).
        tool_calls: Every call in order, refused and interrupted ones included.
        tokens: What the requests cost.
        duration_s: Wall time, seconds.
        warnings: What a person should know: what the servers warned of, repairs.
    """

    agent: str
    text: str
    output: Mapping[str, Any] | None = None
    end: AgentEnd
    tool_calls: tuple[ToolUse, ...] = ()
    tokens: TokenCount = field(default_factory=TokenCount)
    duration_s: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the agent came to a final answer."""
        return self.end == "done"


def _kind(value: Any) -> str:
    kinds = {str: "string", list: "array", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def _short(text: str) -> str:
    """Both ends of a text; a message of jsonschema quotes the whole value."""
    if len(text) <= SHOWN_CHARS:
        return text
    half = SHOWN_CHARS // 2
    return f"{text[:half]} … {text[-half:]}"
