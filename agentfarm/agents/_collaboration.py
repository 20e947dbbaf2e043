"""Agents that ask each other: one question, one answer, and no questions back."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agentfarm.agents._agent import Agent, Budget, Caller, TokenCount
from agentfarm.agents._handover import handover, shortened
from agentfarm.agents._loop import run_agent
from agentfarm.agents._prompts import prompt
from agentfarm.events import EventType
from agentfarm.tools import Tool, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentfarm.agents._agent import AgentResult, ToolUse

KINDS = ("review", "sanity_check", "brainstorm")
QUESTION_TOKENS = 1500
ANSWER_TOKENS = 400
EVENT_TOKENS = 500

_PARAMETERS = {
    "type": "object",
    "properties": {
        "kind": {"enum": list(KINDS)},
        "question": {
            "type": "string",
            "minLength": 1,
            "description": "All the peer needs: it sees neither files nor the task.",
        },
    },
    "required": ["kind", "question"],
    "additionalProperties": False,
}

# Set while a peer thinks, and inherited by the tasks that are started meanwhile.
_asked: ContextVar[bool] = ContextVar("agentfarm_peer_asked", default=False)


def ask_peer_tool(
    *,
    caller: Caller,
    asker: str,
    peer: str = "peer",
    max_questions: int = 3,
    wall_s: float = 180.0,
) -> Tool:
    """Make the ``ask_peer`` tool of one agent.

    The peer is a model request of its own without tools, so it can ask nobody; a
    call from within a peer's answer is refused all the same. Each answer is a
    COLLABORATION event ``{from, to, kind, question, answer, ok}``.

    Args:
        caller: Whose router, bus and model choice the peer uses.
        asker: Name of the agent that gets the tool.
        peer: Name of the peer in events, and in `Caller.models` to give it a model
            of its own.
        max_questions: How many the tool answers in its life; further ones are
            refused.
        wall_s: Seconds that an answer may take.
    """
    peers = _Peers(
        caller=caller,
        asker=asker,
        left=max_questions,
        agent=Agent(
            name=peer,
            instructions=prompt("peer"),
            task_type="reasoning",
            budget=Budget(steps=1, wall_s=wall_s),
            max_tokens=ANSWER_TOKENS * 2,
        ),
    )
    return Tool(
        name="ask_peer",
        description="Ask a colleague for a second opinion: review what you did, check "
        "an assumption (sanity_check), or find ways to go (brainstorm). "
        f"At most {max_questions} questions.",
        parameters=_PARAMETERS,
        run=peers.ask,
    )


def peer_tokens(uses: Iterable[ToolUse]) -> TokenCount:
    """What the peers that were asked in these calls cost together."""
    total = TokenCount()
    for use in uses:
        if use.tool == "ask_peer" and (tokens := use.data.get("tokens")):
            total += TokenCount(**tokens)
    return total


@dataclass(kw_only=True)
class _Peers:
    """What the calls of one tool share."""

    caller: Caller
    asker: str
    left: int
    agent: Agent = field(repr=False)

    async def ask(self, *, kind: str, question: str) -> ToolResult:
        if _asked.get():
            return _refusal("A peer that is asked cannot ask another one.", "recursion")
        if self.left <= 0:
            return _refusal("All your questions are used up. Go on alone.", "exhausted")
        self.left -= 1
        token = _asked.set(True)
        try:
            result = await run_agent(
                self.agent,
                f"Kind: {kind}\n\n{shortened(question, QUESTION_TOKENS)}",
                caller=self.caller,
            )
        finally:
            _asked.reset(token)
        answer = handover(result.text, ANSWER_TOKENS) if result.ok else ""
        self._report(kind, question, answer)
        return _answer(result, answer)

    def _report(self, kind: str, question: str, answer: str) -> None:
        if self.caller.bus is None:
            return
        self.caller.bus.emit(
            EventType.COLLABORATION,
            {
                "from": self.asker,
                "to": self.agent.name,
                "kind": kind,
                "question": shortened(question, EVENT_TOKENS),
                "answer": answer,
                "ok": bool(answer),
            },
            run_id=self.caller.run_id,
            agent=self.asker,
        )


def _answer(result: AgentResult, answer: str) -> ToolResult:
    data: dict[str, Any] = {"tokens": asdict(result.tokens)}
    if answer:
        return ToolResult(text=answer, data=data)
    data["error"] = result.end
    return ToolResult(text="The peer gave no answer. Go on alone.", ok=False, data=data)


def _refusal(text: str, error: str) -> ToolResult:
    return ToolResult(text=text, ok=False, data={"error": error})
