"""An agent may ask a peer: seldom, visibly, and never in circles."""

import json
from dataclasses import replace

import pytest

from agentfarm.agents._agent import Agent
from agentfarm.agents._collaboration import ask_peer_tool, peer_tokens
from agentfarm.agents._loop import run_agent
from agentfarm.agents._prompts import prompt
from agentfarm.errors import ProviderError
from agentfarm.events import EventType
from agentfarm.llm import ToolCall, Usage
from agentfarm.llm.testing import Answer
from agentfarm.tools import ToolRegistry


@pytest.fixture
def farm(stage):
    """A stage whose script each test sets."""
    return stage()


def call(**arguments) -> Answer:
    raw = json.dumps(arguments)
    asked = ToolCall(id="1", name="ask_peer", arguments=arguments, raw_arguments=raw)
    return Answer(tool_calls=(asked,))


async def test_a_peer_answers_one_question_and_everybody_sees_it(farm):
    farm.fake.script = [
        Answer("Yes. It halts.", usage=Usage(input_tokens=9, output_tokens=4))
    ]
    tool = ask_peer_tool(caller=farm.caller, asker="executor")
    result = await tool.call({"kind": "sanity_check", "question": "Does it halt?"})
    assert (result.text, result.ok) == ("Yes. It halts.", True)

    [request] = farm.fake.requests
    assert request.messages[0].content == prompt("peer")
    assert request.messages[1].content == "Kind: sanity_check\n\nDoes it halt?"
    assert request.tools == ()
    assert request.context.agent == "peer"

    [event] = farm.events(EventType.COLLABORATION)
    assert event.data == {
        "from": "executor",
        "to": "peer",
        "kind": "sanity_check",
        "question": "Does it halt?",
        "answer": "Yes. It halts.",
        "ok": True,
    }
    assert (event.agent, event.run_id) == ("executor", "r1")


async def test_the_loop_uses_it_like_any_tool_and_its_cost_is_known(farm):
    farm.fake.script = [
        call(kind="review", question="x = 1"),
        Answer("Fine.", usage=Usage(input_tokens=20, output_tokens=3)),
        "Done.",
    ]
    tools = ToolRegistry([ask_peer_tool(caller=farm.caller, asker="executor")])
    agent = Agent(
        name="executor", instructions="Work.", tools=tools, tool_mode="native"
    )
    result = await run_agent(agent, "Go.", caller=farm.caller)
    assert (result.text, result.end) == ("Done.", "done")
    assert result.tool_calls[0].text == "Fine."
    cost = peer_tokens(result.tool_calls)
    assert (cost.input_tokens, cost.output_tokens, cost.requests) == (20, 3, 1)


async def test_a_peer_cannot_ask_another_one(farm):
    tool = ask_peer_tool(caller=farm.caller, asker="executor")
    inner = []

    async def think(request):
        inner.append(await tool.call({"kind": "review", "question": "And you?"}))
        return "Fine."

    farm.fake.script = think
    outer = await tool.call({"kind": "review", "question": "x = 1"})
    assert outer.ok
    assert [result.data for result in inner] == [{"error": "recursion"}]
    assert len(farm.fake.requests) == 1
    assert len(farm.events(EventType.COLLABORATION)) == 1


async def test_after_a_peer_has_answered_or_failed_one_may_ask_again(farm):
    tool = ask_peer_tool(caller=farm.caller, asker="executor")
    farm.fake.script = [ProviderError("gone"), "Fine."]
    with pytest.raises(ProviderError):
        await tool.call({"kind": "review", "question": "a"})
    assert (await tool.call({"kind": "review", "question": "b"})).ok


async def test_questions_are_counted(farm):
    farm.fake.script = "Fine."
    tool = ask_peer_tool(caller=farm.caller, asker="executor", max_questions=2)
    results = [
        await tool.call({"kind": "brainstorm", "question": f"{number}?"})
        for number in range(4)
    ]
    assert [result.ok for result in results] == [True, True, False, False]
    assert results[2].data == {"error": "exhausted"}
    assert len(farm.fake.requests) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "gossip", "question": "x"},
        {"kind": "review"},
        {"kind": "review", "question": ""},
    ],
)
async def test_only_the_three_kinds_with_a_question(farm, arguments):
    tool = ask_peer_tool(caller=farm.caller, asker="executor")
    assert not (await tool.call(arguments)).ok
    assert farm.fake.requests == []


async def test_question_and_answer_stay_short(farm):
    farm.fake.script = "An answer. " * 5000
    tool = ask_peer_tool(caller=farm.caller, asker="executor")
    result = await tool.call({"kind": "review", "question": "code " * 50_000})
    assert len(result.text) <= 1600
    assert len(farm.fake.requests[0].messages[1].content) < 6100
    [event] = farm.events(EventType.COLLABORATION)
    assert len(event.data["question"]) <= 2000


async def test_a_silent_peer_is_no_answer(farm):
    farm.fake.script = ""
    tool = ask_peer_tool(caller=farm.caller, asker="executor")
    result = await tool.call({"kind": "review", "question": "x"})
    assert not result.ok
    assert "no answer" in result.text
    assert not farm.events(EventType.COLLABORATION)[0].data["ok"]
    assert len(farm.fake.requests) == 1


async def test_without_a_bus_it_works_too(farm):
    farm.fake.script = "Fine."
    tool = ask_peer_tool(caller=replace(farm.caller, bus=None), asker="executor")
    assert (await tool.call({"kind": "review", "question": "x"})).ok
