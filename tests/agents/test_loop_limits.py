"""What ends a run of an agent before it is done, and what is kept then."""

import asyncio

import anyio
import pytest

from agentfarm.agents._agent import Agent, Budget
from agentfarm.agents._loop import run_agent
from agentfarm.errors import ConfigError
from agentfarm.events import EventType
from agentfarm.llm import OpenAIProvider, Usage
from agentfarm.llm.testing import Answer, Reply, StubServer
from agentfarm.tools import ToolResult


async def test_steps(stage, bench, asks):
    scene = stage(lambda _: asks("look", {"x": len(bench.asked)}, text="on it"))
    agent = bench.agent(budget=Budget(steps=3))
    result = await run_agent(agent, "go", caller=scene.caller)
    assert (result.end, result.text) == ("steps", "on it")
    assert result.tokens.requests == len(scene.fake.requests) == 3
    assert len(result.tool_calls) == len(bench.asked) == 3
    assert scene.notices() == ["steps"]


async def test_tool_calls(stage, bench, call):
    turn = Answer(tool_calls=tuple(call("look", {"x": n}) for n in range(2)))
    scene = stage([turn, turn])
    agent = bench.agent(budget=Budget(tool_calls=3))
    result = await run_agent(agent, "go", caller=scene.caller)
    assert result.end == "tool_calls"
    assert len(result.tool_calls) == len(bench.asked) == 2

    scene = stage([turn, "done"])
    agent = bench.agent(budget=Budget(tool_calls=2))
    assert (await run_agent(agent, "go", caller=scene.caller)).ok


@pytest.mark.parametrize(("limit", "requests"), [(29, 1), (31, 2), (61, 3)])
async def test_tokens(stage, bench, asks, limit, requests):
    usage = Usage(input_tokens=20, output_tokens=10)
    scene = stage(lambda _: asks("look", {"x": len(bench.asked)}, usage=usage))
    agent = bench.agent(budget=Budget(tokens=limit))
    result = await run_agent(agent, "go", caller=scene.caller)
    assert (result.end, result.tokens.requests) == ("tokens", requests)
    assert (result.tokens.total, result.tokens.estimated) == (30 * requests, False)


async def test_the_last_answer_may_pass_the_tokens(stage):
    scene = stage(Answer("four", usage=Usage(input_tokens=99, output_tokens=1)))
    agent = Agent(name="a", instructions="", budget=Budget(tokens=10))
    result = await run_agent(agent, "go", caller=scene.caller)
    assert result.ok


async def test_tokens_that_nobody_counted_are_estimated(stage):
    agent = Agent(name="a", instructions="i" * 40)
    result = await run_agent(agent, "p" * 40, caller=stage("r" * 41).caller)
    tokens = result.tokens
    assert (tokens.input_tokens, tokens.output_tokens) == (20, 11)
    assert tokens.estimated
    usage = Usage(input_tokens=1, output_tokens=2, estimated=True)
    scene = stage(Answer("ok", usage=usage))
    result = await run_agent(agent, "p", caller=scene.caller)
    assert (result.tokens.total, result.tokens.estimated) == (3, True)


async def test_time_ends_a_waiting_tool_and_keeps_what_was_done(stage, bench, call):
    async def wait():
        await anyio.Event().wait()

    bench.add("wait", wait)
    turn = Answer("I wait.", tool_calls=(call("look"), call("wait")))
    scene = stage([turn])
    agent = bench.agent(budget=Budget(wall_s=0.3))
    result = await run_agent(agent, "go", caller=scene.caller)
    assert (result.end, result.text) == ("time", "I wait.")
    look, waited = result.tool_calls
    assert (look.ok, look.text) == (True, "look {}")
    assert (waited.ok, waited.data["error"]) == (False, "interrupted")
    assert 0.0 < waited.duration_s <= result.duration_s
    told = scene.events(EventType.AGENT_TOOL_CALL, EventType.AGENT_TOOL_RESULT)
    assert len(told) == 4
    assert asyncio.current_task().cancelling() == 0


async def test_time_ends_a_request_and_keeps_the_text_so_far(stage, bench):
    scene = stage(Answer("one two three", hold=anyio.Event(), hold_after=2))
    agent = bench.agent(budget=Budget(wall_s=0.3))
    result = await run_agent(agent, "go", caller=scene.caller)
    assert (result.end, result.text) == ("time", "one two ")
    assert (scene.fake.cancelled, scene.fake.active) == (1, 0)
    assert (result.tokens.requests, result.tokens.estimated) == (1, True)
    assert result.tokens.output_tokens == 2


async def test_cancelling_the_caller_closes_the_request(stage, bench):
    async with StubServer(Reply("one two three", gap_s=60.0)) as stub:
        scene = stage(provider=OpenAIProvider(stub.url))
        async with anyio.create_task_group() as tasks:

            async def run():
                await run_agent(bench.agent(), "go", caller=scene.caller)
                raise AssertionError("it was cancelled")

            tasks.start_soon(run)
            await stub.wait_until(lambda stub: stub.chats and stub.chats[0].sent)
            tasks.cancel_scope.cancel()
        await stub.chats[0].wait_over()
        assert stub.chats[0].disconnected_at is not None
        await scene.caller.router.aclose()


async def test_cancelling_the_caller_ends_a_tool_that_others_see_end(
    stage, bench, asks
):
    begun = anyio.Event()

    async def wait():
        begun.set()
        await anyio.sleep_forever()

    bench.add("wait", wait)
    scene = stage([asks("wait")])
    async with anyio.create_task_group() as tasks:

        async def run():
            await run_agent(bench.agent(), "go", caller=scene.caller)

        tasks.start_soon(run)
        await begun.wait()
        tasks.cancel_scope.cancel()
    (came,) = scene.events(EventType.AGENT_TOOL_RESULT)
    assert (came.data["ok"], came.data["text"]) == (False, "It was interrupted.")


# --- the same again and again


async def test_one_identical_call_too_many_is_refused_and_the_next_ends_it(
    stage, bench, asks
):
    again = asks("look", {"x": 1})
    scene = stage([again, asks("look"), again, again, again, "never"])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert result.end == "repeated"
    assert [x for _, x in bench.asked] == [{"x": 1}, {}, {"x": 1}]
    refused = result.tool_calls[-1]
    assert (refused.ok, refused.data) == (False, {"error": "repeated"})
    assert "2 times with exactly these arguments" in scene.said()[-1][1]
    assert len(scene.fake.requests) == 5


async def test_a_model_that_hears_the_refusal_may_go_on(stage, bench, asks):
    again = asks("look", {"x": 1})
    scene = stage([again, again, again, asks("look", {"x": 2}), "done"])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert result.ok
    assert len(bench.asked) == 3


@pytest.mark.parametrize(
    "same",
    [
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}),
        ({"x": 1}, {"x": 1, "y": None}),
        ({}, {"x": None}),
    ],
    ids=["order", "null", "all null"],
)
async def test_calls_are_identical_however_they_are_written(stage, bench, asks, same):
    scene = stage([asks("look", same[0]), asks("look", same[1]), "done"])
    agent = bench.agent(budget=Budget(identical_calls=1))
    result = await run_agent(agent, "go", caller=scene.caller)
    assert [use.ok for use in result.tool_calls] == [True, False]


async def test_identical_calls_of_one_turn_are_refused_but_do_not_end_it(
    stage, bench, call
):
    turn = Answer(tool_calls=tuple(call("look", {"x": 1}) for _ in range(4)))
    scene = stage([turn, "done"])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert result.ok
    assert [use.ok for use in result.tool_calls] == [True, True, False, False]


async def test_the_same_test_after_a_change_is_no_repetition(stage, bench, asks):
    bench.add("write", ToolResult(text="ok", data={"written": ["a.py"]}))
    bench.add("test", ToolResult(text="failed", ok=False, data={"written": []}))
    rounds = [(asks("test"), asks("write", {"x": n})) for n in range(5)]
    scene = stage([reply for pair in rounds for reply in pair] + ["done"])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert result.ok
    assert len(bench.asked) == 10


async def test_a_refused_call_is_fine_again_after_a_change(stage, bench, asks):
    bench.add("write", ToolResult(text="ok", data={"deleted": ["a.py"]}))
    again = [asks("look")] * 3
    scene = stage([*again, asks("write"), *again, "done"])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert result.ok
    oks = [use.ok for use in result.tool_calls]
    assert oks == [True, True, False, True, True, True, False]


async def test_the_same_change_is_a_repetition_all_the_same(stage, bench, asks):
    bench.add("write", ToolResult(text="ok", data={"written": ["a.py"]}))
    scene = stage(lambda _: asks("write", {"x": 1}))
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert result.end == "repeated"
    assert len(bench.asked) == 2


@pytest.mark.parametrize("limit", ["steps", "tool_calls", "tokens", "wall_s"])
def test_a_budget_of_nothing_is_refused(limit):
    with pytest.raises(ConfigError, match=limit):
        Budget(**{limit: 0})
    Budget(**{limit: 1})
