"""The tool loop: ask the model, run what it calls, show it the results, ask again."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from agentfarm.agents._agent import AgentResult, TokenCount
from agentfarm.agents._json_protocol import JsonProtocol, in_words
from agentfarm.agents._native_protocol import (
    NativeProtocol,
    tools_ignored,
    tools_refused,
)
from agentfarm.agents._toolbox import Toolbox, both_ends
from agentfarm.errors import ContextOverflow, ProviderError
from agentfarm.events import EventType
from agentfarm.llm import CallContext, ChatRequest, system, user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentfarm.agents._agent import Agent, AgentEnd, Caller
    from agentfarm.agents._turn import ToolProtocol, Turn
    from agentfarm.llm import ChatResponse, Message, ToolCall

# English and code have about so many; a stand-in where a server does not count.
_CHARS_PER_TOKEN = 4
# What the newest results may keep when the prompt does not fit.
_SHRUNK_CHARS = 1500
_DROPPED_RESULT = "[an older result, dropped to make room]"


async def run_agent(agent: Agent, prompt: str, *, caller: Caller) -> AgentResult:
    """Let an agent work on `prompt` until it answers or its budget is spent.

    What a model does wrong is data: a reply that cannot be used is shown to it with
    the reason, once; then the run ends as ``malformed``. Several calls in one reply
    run at once. Where the prompt overflows the model's context, older results of
    tools make room, once for each request; where that is not enough, the run ends as
    ``context``.

    Events: AGENT_THINKING ``{text}``, AGENT_MESSAGE ``{text}``, AGENT_TOOL_CALL
    ``{id, tool, arguments}``, AGENT_TOOL_RESULT ``{id, tool, ok, text, data}``,
    CODE_GENERATED and CODE_MODIFIED ``{path}``. An AGENT_MESSAGE with ``notice`` is
    the loop's own word: ``json_protocol``, ``repair``, ``shrunk``, or the `end`.

    Raises:
        ProviderError: The model could not be asked; a `ContextOverflow` only where
            not even the first prompt fits.
        AgentFarmError: A tool could not be used at all, e.g. `SandboxUnavailable`.
        ConfigError: The agent's output schema is not valid.
    """
    started = time.perf_counter()
    run = _Run(agent, prompt, caller)
    end: AgentEnd = "time"
    with anyio.move_on_after(agent.budget.wall_s):
        end = await run.work()
    if end != "done":
        run.notice(end, f"{agent.name} stopped: {_ENDS[end]}.")
    return AgentResult(
        agent=agent.name,
        text=run.text,
        output=run.output if end == "done" else None,
        end=end,
        tool_calls=tuple(run.toolbox.uses),
        tokens=run.tokens,
        duration_s=time.perf_counter() - started,
        warnings=tuple(run.warnings),
    )


_ENDS: dict[AgentEnd, str] = {
    "steps": "it used up its requests to the model",
    "tool_calls": "it asked for more tool calls than it had left",
    "tokens": "it used up its tokens",
    "time": "its time was over",
    "context": "its conversation outgrew the model's context",
    "repeated": "it made the same call again and again",
    "malformed": "its replies could not be used, also after a repair",
}


class _Run:
    """What one run knows; `text`, `tokens` and `toolbox` hold at any moment."""

    def __init__(self, agent: Agent, prompt: str, caller: Caller) -> None:
        self.text = ""
        self.output: Mapping[str, Any] | None = None
        self.tokens = TokenCount()
        self.warnings: dict[str, None] = {}
        self._emit = _emitter(caller, agent.name)
        self.toolbox = Toolbox(agent.tools, agent.budget, self._emit)
        self._agent = agent
        self._caller = caller
        self._model = caller.model_for(agent.name)
        self._context = CallContext(
            run_id=caller.run_id, sample_id=caller.sample_id, agent=agent.name
        )
        self._capabilities = caller.capabilities(agent.name)
        self._protocol = self._first_protocol()
        self._messages = [system(self._protocol.system), user(prompt)]
        # Where in the messages the tools' results are, and where the newest begin.
        self._results: list[int] = []
        self._newest = 0
        self._may_repair = True
        self._rejected = False

    async def work(self) -> AgentEnd:
        """Go on until there is an end."""
        budget = self._agent.budget
        while self.tokens.requests < budget.steps:
            if budget.tokens is not None and self.tokens.total >= budget.tokens:
                return "tokens"
            try:
                response = await self._ask()
            except ContextOverflow:
                if not self.tokens.requests:
                    raise
                return "context"
            if response is None:
                continue
            if end := await self._take(self._protocol.read(response)):
                return end
        return "steps"

    def notice(self, kind: str, text: str) -> None:
        """Say something that the agent did not."""
        self.warnings[text] = None
        self._emit(EventType.AGENT_MESSAGE, {"text": text, "notice": kind})

    def _first_protocol(self) -> ToolProtocol:
        mode = self._agent.tool_mode
        if mode == "auto":
            mode = "native" if "tools" in self._capabilities else "json"
        if mode == "native" or not len(self._agent.tools):
            return NativeProtocol(self._agent, self._capabilities)
        return JsonProtocol(self._agent, self._capabilities)

    async def _ask(self) -> ChatResponse | None:
        """The model's reply; None where it must be asked again in another way."""
        offers = bool(self._protocol.tools)
        try:
            response = await self._send_or_shrink()
        except ProviderError as error:
            if not (offers and tools_refused(error)):
                raise
            self._change_to_json(f"The server refused tools: {error.message}")
            return None
        self.warnings |= dict.fromkeys(response.warnings)
        if offers and (why := tools_ignored(response)):
            self._change_to_json(why)
            return None
        return response

    async def _send_or_shrink(self) -> ChatResponse:
        try:
            return await self._send()
        except ContextOverflow:
            if not self._shrink():
                raise
        self.notice(
            "shrunk", "The context was full: older tool results were dropped from it."
        )
        return await self._send()

    async def _send(self) -> ChatResponse:
        agent, protocol = self._agent, self._protocol
        request = ChatRequest(
            messages=tuple(self._messages),
            model=self._model,
            task_type=agent.task_type,
            tools=protocol.tools,
            response_schema=protocol.response_schema,
            temperature=agent.temperature
            if self._caller.temperature is None
            else self._caller.temperature,
            seed=self._caller.seed,
            max_tokens=agent.max_tokens,
            context=self._context,
        )
        async with self._caller.router.stream(request) as answer:
            try:
                async for _ in answer:
                    pass
            except anyio.get_cancelled_exc_class():
                self.text = answer.text or self.text
                self._count(request, None, None, len(answer.text))
                raise
        response = answer.response
        said, usage = response.message, response.usage
        written = len(said.content or "") + len(said.reasoning or "")
        written += sum(len(call.raw_arguments) for call in said.tool_calls)
        self._count(request, usage.input_tokens, usage.output_tokens, written)
        if usage.estimated:
            self.tokens = replace(self.tokens, estimated=True)
        return response

    def _count(
        self, request: ChatRequest, given: int | None, made: int | None, written: int
    ) -> None:
        estimated = given is None or made is None
        if given is None:
            given = _chars(request) // _CHARS_PER_TOKEN
        if made is None:
            made = -(-written // _CHARS_PER_TOKEN)
        self.tokens += TokenCount(
            input_tokens=given, output_tokens=made, requests=1, estimated=estimated
        )

    async def _take(self, turn: Turn) -> AgentEnd | None:
        """Do what the model's turn asks for; an end where there is one."""
        calls = self.toolbox.named(turn.calls)
        self._hear(turn, calls)
        problem = turn.problem
        if problem is None and not calls:
            problem = self._final(turn)
            if problem is None:
                return "done"
        if turn.malformed or problem is not None:
            if not self._may_repair:
                return "malformed"
            self._may_repair = False
        elif not self._rejected:
            self._may_repair = True
        if problem is not None:
            self.notice("repair", problem)
            self._messages.append(user(problem))
            return None
        return await self._use(calls)

    def _hear(self, turn: Turn, calls: tuple[ToolCall, ...]) -> None:
        """Keep what the model said, and tell it on."""
        message = turn.message
        if message.reasoning:
            self._emit(EventType.AGENT_THINKING, {"text": message.reasoning})
        if turn.text:
            self.text = turn.text
            if turn.problem is None:
                self._emit(EventType.AGENT_MESSAGE, {"text": turn.text})
        if message.tool_calls:
            # With its reasoning: models are trained to go on from it between calls.
            if message.tool_calls != calls:
                message = replace(message, tool_calls=calls)
        elif message.reasoning:
            message = replace(message, reasoning="")
        self._messages.append(message)

    def _final(self, turn: Turn) -> str | None:
        """Accept the final answer, or say what is wrong with it."""
        self.text = turn.text
        if self._agent.output_schema is None:
            return None
        problem = self._agent.problem_with(turn.output)
        if problem is None:
            self.output = turn.output
            return None
        self._rejected = True
        return (
            "Your final answer does not follow its JSON schema. "
            f"{problem} Give it again, whole and corrected."
        )

    async def _use(self, calls: tuple[ToolCall, ...]) -> AgentEnd | None:
        if end := self.toolbox.limit(calls):
            return end
        uses = await self.toolbox.run(calls)
        limit = self._agent.budget.result_chars
        answers = [(use.ok, both_ends(use.text, limit)) for use in uses]
        shown = self._protocol.results(calls, answers)
        self._newest = len(self._messages)
        self._results += range(self._newest, self._newest + len(shown))
        self._messages += shown
        return None

    def _change_to_json(self, why: str) -> None:
        """Go on in plain words: what the server answered natively is of no use."""
        self._protocol = JsonProtocol(self._agent, self._capabilities)
        self._messages = in_words(self._messages)
        self._messages[0] = system(self._protocol.system)
        self.notice("json_protocol", f"{why} The tools go into the prompt instead.")

    def _shrink(self) -> bool:
        """Make room in the conversation; returns whether there was any to make."""
        changed = False
        for index, message in enumerate(self._messages[: self._newest - 1]):
            if message.reasoning:
                self._messages[index] = replace(message, reasoning="")
                changed = True
        for index in self._results:
            message = self._messages[index]
            content = both_ends(message.content, _SHRUNK_CHARS)
            if index < self._newest:
                content = _DROPPED_RESULT
            if len(content) < len(message.content):
                self._messages[index] = replace(message, content=content)
                changed = True
        return changed


def _emitter(
    caller: Caller, agent: str
) -> Callable[[EventType, Mapping[str, Any]], None]:
    """What tells the caller's bus.

    No method of the run, whose toolbox would then hold it: with all its messages it
    would stay in memory until the next garbage collection.
    """

    def emit(kind: EventType, data: Mapping[str, Any]) -> None:
        if caller.bus is not None:
            caller.bus.emit(kind, data, run_id=caller.run_id, agent=agent)

    return emit


def _chars(request: ChatRequest) -> int:
    """The length of a prompt, without the server's own words around it."""
    return sum(_length(message) for message in request.messages) + sum(
        len(tool.description) + len(str(tool.parameters)) for tool in request.tools
    )


def _length(message: Message) -> int:
    called = sum(len(call.raw_arguments) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning) + called
