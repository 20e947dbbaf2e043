"""A scripted model behind a real router, a bus that remembers, and a tool or two."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from agentfarm.agents._agent import Agent, Caller
from agentfarm.events import EventBus, EventType
from agentfarm.llm import LLMRouter, RegisteredModel, RetryPolicy, ToolCall
from agentfarm.llm.testing import Answer, FakeProvider
from agentfarm.tools import Tool, ToolRegistry, ToolResult

NATIVE = frozenset({"tools", "json_schema"})


@dataclass
class Stage:
    """One model, called ``m``, and whoever asks it."""

    fake: FakeProvider
    bus: EventBus
    caller: Caller

    def events(self, *types: EventType) -> list:
        """What was told, without the router's own events."""
        return [
            event
            for event in self.bus.history(*types)
            if not event.type.value.startswith("llm_")
        ]

    def told(self) -> list[tuple[str, object]]:
        """Types of the events, each with what tells it from others."""
        return [
            (e.type.value, e.data.get("tool") or e.data.get("path") or e.data["text"])
            for e in self.events()
        ]

    def notices(self) -> list[str]:
        """What the loop itself had to say."""
        messages = self.events(EventType.AGENT_MESSAGE)
        return [e.data["notice"] for e in messages if "notice" in e.data]

    def said(self, request: int = -1) -> list[tuple[str, str]]:
        """The turns of a request after system prompt and task."""
        messages = self.fake.requests[request].messages[2:]
        return [(message.role, message.content) for message in messages]


@pytest.fixture
def stage() -> Callable[..., Stage]:
    """Set the stage: a script, what the model declares, and fields of the Caller."""

    def make(script="ok", *, capabilities=NATIVE, provider=None, **fields) -> Stage:
        bus = EventBus()
        fake = FakeProvider(script)
        router = LLMRouter(
            [
                RegisteredModel(
                    name="m",
                    provider=provider or fake,
                    capabilities=frozenset(capabilities),
                )
            ],
            bus=bus,
            retry=RetryPolicy(rounds=1),
        )
        fields = {"model": "m", "run_id": "r1", **fields}
        return Stage(fake, bus, Caller(router=router, bus=bus, **fields))

    return make


@dataclass
class Bench:
    """A registry whose tools remember what they were asked."""

    asked: list[tuple[str, dict]] = field(default_factory=list)
    registry: ToolRegistry = field(default_factory=ToolRegistry)

    def add(self, name: str, answer=None) -> "Bench":
        """Add a tool; `answer` is a text, a ToolResult, or an async function."""

        async def run(**arguments) -> ToolResult:
            self.asked.append((name, arguments))
            found = await answer(**arguments) if callable(answer) else answer
            if isinstance(found, ToolResult):
                return found
            return ToolResult(text=found or f"{name} {json.dumps(arguments)}")

        schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
        self.registry.add(
            Tool(name=name, description=f"Does {name}.", parameters=schema, run=run)
        )
        return self

    def agent(self, **fields) -> Agent:
        """An agent with these tools."""
        fields = {"name": "worker", "instructions": "You work.", **fields}
        return Agent(tools=self.registry, **fields)


@pytest.fixture
def bench() -> Bench:
    """A bench with the tool ``look``, which says what it was asked."""
    return Bench().add("look")


def _call(name, arguments=None, *, id="c", raw=None) -> ToolCall:
    if raw is None:
        raw = json.dumps(arguments or {})
        return ToolCall(id=id, name=name, arguments=arguments or {}, raw_arguments=raw)
    return ToolCall(id=id, name=name, arguments=None, raw_arguments=raw)


@pytest.fixture
def call() -> Callable[..., ToolCall]:
    """A native call; `raw` for one whose arguments are no JSON object."""
    return _call


@pytest.fixture
def asks() -> Callable[..., Answer]:
    """A reply with one native call: ``asks("look", {"x": 1})``."""

    def make(name, arguments=None, *, raw=None, text="", **fields) -> Answer:
        return Answer(text, tool_calls=(_call(name, arguments, raw=raw),), **fields)

    return make


@pytest.fixture
def written() -> Callable[..., str]:
    """A call as the JSON protocol writes it."""

    def make(name, arguments=None) -> str:
        return json.dumps({"tool": name, "arguments": arguments or {}})

    return make
