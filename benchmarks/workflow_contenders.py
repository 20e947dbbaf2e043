"""Who takes part in `bench_workflow.py`, and the one script that all models play.

Each contender has a `name`, gets ready in `prepare`, and says in `run` how many
requests and calls of tools it took.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel

from agentfarm.agents import Agent, Budget, Caller, Memory, Workflow, run_agent
from agentfarm.events import EventBus, EventType
from agentfarm.llm import LLMRouter, RegisteredModel, ToolCall, Usage
from agentfarm.llm.testing import Answer, FakeProvider
from agentfarm.monitoring import PerformanceTracker
from agentfarm.tools import Tool, ToolRegistry, ToolResult
from agentfarm.tools.sandbox import SandboxResult

try:
    import pydantic_ai as peer
    from pydantic_ai.models.function import DeltaToolCall, FunctionModel
except ImportError:
    raise SystemExit(
        "pydantic-ai is not installed: pip install --group bench"
    ) from None

STEPS = 5
FILES = {
    f"part{n}.py": f"def part{n}(a, b):\n    return a + b * {n}\n" for n in range(STEPS)
}
PLAN = {
    "summary": "Five parts, one after the other.",
    "interface": False,
    "steps": [
        {
            "id": f"s{n}",
            "title": f"Write {name}",
            "detail": "One function of two arguments.",
            "depends_on": [f"s{n - 1}"] if n else [],
        }
        for n, name in enumerate(FILES)
    ],
}
REVIEW = {"verdict": "approve", "summary": "Fine.", "findings": []}
TASK = "Write a package of five parts."
REQUESTS = 2 * STEPS + 2
INPUT_TOKENS, OUTPUT_TOKENS = 100, 20
INSTRUCTIONS = "You are a careful engineer. Use your tools, then say what you did."


def looks(calls):
    """The script for both: what is said after so many answers of tools."""
    return lambda done: ("look", {"number": done}) if done < calls else "All seen."


def writes(name):
    content = FILES[name]
    return lambda done: (
        "It is written." if done else ("write_file", {"path": name, "content": content})
    )


class OurModel(FakeProvider):
    """Plays the script `say`, or each role of a workflow."""

    def __init__(self, say=None):
        super().__init__(self.answer)
        self.say = say
        self.requests_got = self.results_got = 0
        self.usage = Usage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS)

    def answer(self, request):
        self.calls.clear()  # what a fake remembers is not to be measured
        self.requests_got += 1
        self.results_got += request.messages[-1].role == "tool"
        done = sum(message.role == "tool" for message in request.messages)
        said = self.script_of(request)(done)
        if isinstance(said, str):
            return Answer(said, usage=self.usage)
        name, arguments = said
        raw = json.dumps(arguments)
        call = ToolCall(id="", name=name, arguments=None, raw_arguments=raw)
        return Answer(tool_calls=(call,), usage=self.usage)

    def script_of(self, request):
        role = request.context.agent
        if self.say is not None:
            return self.say
        if role == "planner":
            return lambda _: json.dumps(PLAN)
        if role == "reviewer":
            return lambda _: json.dumps(REVIEW)
        task = request.messages[1].content
        return writes(task.rpartition("## Your step\nWrite ")[2].split("\n")[0])


def our_router(provider, bus):
    model = RegisteredModel(
        name="m", provider=provider, capabilities=frozenset({"tools", "json_schema"})
    )
    return LLMRouter([model], bus=bus)


async def our_look(*, number):
    return ToolResult(text=f"seen {number}")


class OurLoop:
    def __init__(self, calls, *, bus):
        self.name = f"agentfarm run_agent{', bus' if bus else ''}"
        self.calls = calls
        self.has_bus = bus
        number = {"number": {"type": "integer"}}
        self.agent = Agent(
            name="looker",
            instructions=INSTRUCTIONS,
            tools=ToolRegistry(
                [
                    Tool(
                        name="look",
                        description="Look at a number.",
                        parameters={
                            "type": "object",
                            "properties": number,
                            "required": ["number"],
                            "additionalProperties": False,
                        },
                        run=our_look,
                    )
                ]
            ),
            budget=Budget(steps=calls + 1, tool_calls=calls),
        )

    def prepare(self, _folder):
        bus = EventBus() if self.has_bus else None
        self.model = OurModel(looks(self.calls))
        router = our_router(self.model, bus)
        self.caller = Caller(router=router, bus=bus, model="m", run_id="r")

    async def run(self):
        result = await run_agent(self.agent, "Look at all.", caller=self.caller)
        if not result.ok or result.text != "All seen.":
            raise SystemExit(f"{self.name} ended as {result.end}: {result.text}")
        return self.model.requests_got, len(result.tool_calls)


class InstantSandbox:
    """Says at once that all is well; for what a workflow costs beside a sandbox."""

    backend = "none"
    unenforced = ()

    async def run(self, command=None, **_options):
        said = {"files": STEPS, "modules": STEPS, "all": 0, "findings": [], "notes": []}
        scripted = command[-1] != "."
        return SandboxResult(exit_code=0, stdout=json.dumps(said) if scripted else "")

    async def aclose(self):
        pass


class OurWorkflow:
    def __init__(self, more="", store=None, *, whole=False):
        self.name = f"agentfarm Workflow{more}"
        self.store = store
        self.whole = whole

    def prepare(self, folder):
        bus = EventBus()
        self.model = OurModel()
        self.options = {
            "router": our_router(self.model, bus),
            "sandbox": InstantSandbox(),
            "workspace": folder / "work",
            "bus": bus,
            "store": self.store,
            "model": "m",
        }
        if self.whole:
            PerformanceTracker().attach(bus)
            bus.on(
                lambda event: self.store.add_request(event.data["record"]),
                EventType.LLM_RESPONSE,
            )
            self.options["state"] = folder / "state"
            self.options["memory"] = Memory(self.store, folder / "work")

    async def run(self):
        result = await Workflow(**self.options).run(TASK)
        if not result.ok:
            raise SystemExit(f"{self.name} did not end well: {result.summary}")
        return self.model.requests_got, self.model.results_got


class PeerModel:
    """Plays a script as a `FunctionModel`, whole and streamed."""

    def __init__(self, say):
        self.say = say
        self.requests = 0
        self.model = FunctionModel(self.answer, stream_function=self.stream)

    def next(self, messages, info):
        self.requests += 1
        said = self.say(
            sum(
                isinstance(part, peer.messages.ToolReturnPart)
                for message in messages
                for part in message.parts
            )
        )
        return (info.output_tools[0].name, said) if isinstance(said, dict) else said

    async def answer(self, messages, info):
        said = self.next(messages, info)
        if isinstance(said, str):
            part = peer.messages.TextPart(said)
        else:
            part = peer.messages.ToolCallPart(said[0], json.dumps(said[1]))
        # With its own, or the model would count the whole history's anew each time.
        usage = peer.RequestUsage(
            input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS
        )
        return peer.ModelResponse(parts=[part], usage=usage)

    async def stream(self, messages, info):
        said = self.next(messages, info)
        if isinstance(said, str):
            yield said
        else:
            yield {0: DeltaToolCall(said[0], json.dumps(said[1]))}


async def drained(_context, events):
    async for _ in events:
        pass


NO_LIMIT = peer.UsageLimits(request_limit=None)


class PeerLoop:
    def __init__(self, calls, *, stream):
        self.name = f"pydantic-ai run{', streaming' if stream else ''}"
        self.handler = drained if stream else None
        self.calls = calls
        self.model = PeerModel(looks(calls))
        self.agent = peer.Agent(self.model.model, instructions=INSTRUCTIONS)

        @self.agent.tool_plain
        async def look(number: int) -> str:
            """Look at a number."""
            return f"seen {number}"

    def prepare(self, _folder):
        self.model.requests = 0

    async def run(self):
        result = await self.agent.run(
            "Look at all.",
            usage_limits=NO_LIMIT,
            event_stream_handler=self.handler,
        )
        if result.output != "All seen.":
            raise SystemExit(f"{self.name} said {result.output}")
        return self.model.requests, result.usage.tool_calls


class PeerStep(BaseModel):
    id: str
    title: str
    detail: str = ""
    depends_on: list[str] = []


class PeerPlan(BaseModel):
    summary: str
    interface: bool | None = None
    steps: list[PeerStep]


class PeerFinding(BaseModel):
    severity: Literal["critical", "major", "minor", "info"]
    message: str
    file: str | None = None
    line: int | None = None


class PeerReview(BaseModel):
    verdict: Literal["approve", "request_changes"]
    summary: str = ""
    findings: list[PeerFinding] = []


class PeerWorkflow:
    def __init__(self, *, stream):
        self.name = f"pydantic-ai, 7 runs{', streaming' if stream else ''}"
        self.handler = drained if stream else None
        said = {"planner": lambda _: PLAN, "reviewer": lambda _: REVIEW}
        self.models = {role: PeerModel(say) for role, say in said.items()}
        self.models["executor"] = PeerModel(lambda done: self.say(done))
        kinds = {"planner": PeerPlan, "executor": str, "reviewer": PeerReview}
        self.agents = {
            role: peer.Agent(
                self.models[role].model, instructions=INSTRUCTIONS, output_type=kind
            )
            for role, kind in kinds.items()
        }

        @self.agents["executor"].tool_plain
        async def write_file(path: str, content: str) -> str:
            """Create a file, or replace all of its content."""
            (self.folder / path).write_text(content)
            return f"Created {path}."

    def prepare(self, folder):
        self.folder = folder / "work"
        for model in self.models.values():
            model.requests = 0

    async def ask(self, role, prompt):
        run = await self.agents[role].run(prompt, event_stream_handler=self.handler)
        self.used += run.usage.tool_calls
        return run.output

    async def run(self):
        self.used = 0
        self.folder.mkdir()
        plan = await self.ask("planner", f"Task: {TASK}")
        done = []
        for step in plan.steps:
            self.say = writes(step.title.removeprefix("Write "))
            before = "\n".join(done)
            done.append(
                await self.ask("executor", f"Task: {TASK}\n{before}\n{step.title}")
            )
        review = await self.ask("reviewer", f"Task: {TASK}\n" + "\n".join(done))
        if review.verdict != "approve":
            raise SystemExit(f"{self.name} did not end well.")
        return sum(model.requests for model in self.models.values()), self.used
