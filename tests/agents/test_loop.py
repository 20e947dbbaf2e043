"""The loop with native tool calls: what it asks, shows, tells and keeps."""

import gc
import json

import anyio
import pytest

from agentfarm.agents._agent import Agent, Budget, Caller, TokenCount
from agentfarm.agents._loop import _Run, run_agent
from agentfarm.errors import (
    ConfigError,
    ContextOverflow,
    ProviderError,
    SandboxUnavailable,
)
from agentfarm.events import EventType
from agentfarm.llm import LLMRouter, ModelInfo, OpenAIProvider, RegisteredModel, Usage
from agentfarm.llm.testing import Answer, FakeProvider, Reply, StubServer
from agentfarm.tools import ToolResult

ANSWER = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


async def test_an_agent_without_tools_answers(stage):
    scene = stage(Answer("four", usage=Usage(input_tokens=9, output_tokens=2)), seed=7)
    agent = Agent(name="adder", instructions="Add.", task_type="math", max_tokens=5)
    result = await run_agent(agent, "2 + 2?", caller=scene.caller)
    assert (result.text, result.end, result.ok) == ("four", "done", True)
    assert result.output is None
    assert result.tokens == TokenCount(input_tokens=9, output_tokens=2, requests=1)
    assert result.warnings == ()
    (request,) = scene.fake.requests
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "Add."),
        ("user", "2 + 2?"),
    ]
    assert (request.context.run_id, request.context.agent) == ("r1", "adder")
    assert (request.seed, request.temperature, request.max_tokens) == (7, 0.0, 5)
    assert (request.task_type, request.tools) == ("math", ())
    assert scene.told() == [("agent_message", "four")]


async def test_calls_are_run_and_their_results_shown(stage, bench, asks):
    scene = stage([asks("look", {"x": 1}, text="I look."), "seen"])
    result = await run_agent(bench.agent(), "look", caller=scene.caller)
    assert (result.text, result.end) == ("seen", "done")
    assert bench.asked == [("look", {"x": 1})]
    (use,) = result.tool_calls
    assert (use.tool, use.arguments, use.ok) == ("look", {"x": 1}, True)
    assert use.text == 'look {"x": 1}'
    first, second = scene.fake.requests
    assert [tool.name for tool in first.tools] == ["look"]
    assert first.response_schema is None
    *_, asked, answered = second.messages
    assert (asked.role, asked.tool_calls[0].id) == ("assistant", use.id)
    assert (answered.role, answered.tool_call_id) == ("tool", use.id)
    assert answered.content == use.text


async def test_events_come_in_order(stage, bench, asks):
    made = {"written": ["a.py", "b.py"], "created": ["b.py"]}
    bench.add("write", ToolResult(text="ok", data=made))
    scene = stage([asks("write", text="I write.", reasoning=("Hm.",)), "done"])
    await run_agent(bench.agent(), "go", caller=scene.caller)
    assert scene.told() == [
        ("agent_thinking", "Hm."),
        ("agent_message", "I write."),
        ("agent_tool_call", "write"),
        ("agent_tool_result", "write"),
        ("code_generated", "b.py"),
        ("code_modified", "a.py"),
        ("agent_message", "done"),
    ]
    assert {(e.run_id, e.agent) for e in scene.events()} == {("r1", "worker")}
    (called,) = scene.events(EventType.AGENT_TOOL_CALL)
    (came,) = scene.events(EventType.AGENT_TOOL_RESULT)
    assert called.data == {"id": "c", "tool": "write", "arguments": {}}
    assert (came.data["id"], came.data["ok"], came.data["data"]) == ("c", True, made)


async def test_without_a_bus_nothing_is_told(stage, bench, asks):
    scene = stage([asks("look"), "seen"])
    caller = Caller(router=scene.caller.router, model="m")
    result = await run_agent(bench.agent(), "look", caller=caller)
    assert result.ok
    assert scene.events() == []


async def test_calls_of_one_turn_run_at_once_and_answer_in_order(stage, bench, call):
    waiting = {1: anyio.Event(), 2: anyio.Event()}

    async def meet(x):
        waiting[x].set()
        await waiting[3 - x].wait()
        return f"met {x}"

    bench.add("meet", meet)
    turn = Answer(
        tool_calls=(call("meet", {"x": 2}, id="p"), call("meet", {"x": 1}, id="q"))
    )
    scene = stage([turn, "done"])
    with anyio.fail_after(5):
        result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert [use.text for use in result.tool_calls] == ["met 2", "met 1"]
    assert scene.said()[1:] == [("tool", "met 2"), ("tool", "met 1")]


async def test_ids_are_unique_in_a_run_though_the_servers_are_not(stage, bench, asks):
    scene = stage([asks("look", {"x": n}) for n in range(3)] + ["done"])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    ids = [use.id for use in result.tool_calls]
    assert len(set(ids)) == 3
    messages = scene.fake.requests[-1].messages
    assert [m.tool_calls[0].id for m in messages if m.tool_calls] == ids
    assert [m.tool_call_id for m in messages if m.role == "tool"] == ids


async def test_an_unknown_tool_and_wrong_arguments_are_answered(stage, bench, asks):
    scene = stage([asks("peek"), asks("look", {"x": "one"}), asks("look"), "seen"])
    result = await run_agent(bench.agent(), "look", caller=scene.caller)
    assert result.ok
    assert [use.ok for use in result.tool_calls] == [False, False, True]
    assert "The tools are: look" in result.tool_calls[0].text
    assert "not of type 'integer'" in result.tool_calls[1].text


async def test_malformed_arguments_are_repaired_once(stage, bench, asks):
    scene = stage([asks("look", raw='{"x": '), asks("look"), "seen"])
    result = await run_agent(bench.agent(), "look", caller=scene.caller)
    assert (result.end, result.text) == ("done", "seen")
    assert "not valid JSON" in scene.said(1)[1][1]


async def test_a_second_malformed_call_in_a_row_ends_the_run(stage, bench, asks):
    broken = asks("look", raw="[]")
    scene = stage([broken, asks("look"), broken, broken, "never"])
    result = await run_agent(bench.agent(), "look", caller=scene.caller)
    assert (result.end, result.ok) == ("malformed", False)
    assert len(result.tool_calls) == 3
    assert scene.notices() == ["malformed"]
    assert "could not be used" in result.warnings[-1]


@pytest.mark.parametrize("end", ["done", "malformed"])
async def test_an_empty_reply_is_repaired_once(stage, end):
    scene = stage(["", "here" if end == "done" else Answer(" \n")])
    agent = Agent(name="a", instructions="")
    result = await run_agent(agent, "go", caller=scene.caller)
    assert result.end == end
    assert result.text == ("here" if end == "done" else "")
    (_, said), (role, repair) = scene.said()
    assert said
    assert role == "user"
    assert "It is empty" in repair


async def test_a_null_from_the_server_is_an_empty_reply(stage):
    async with StubServer(Reply(), "here") as stub:
        scene = stage(provider=OpenAIProvider(stub.url))
        result = await run_agent(
            Agent(name="a", instructions=""), "go", caller=scene.caller
        )
        assert (result.text, result.end) == ("here", "done")
        await scene.caller.router.aclose()


async def test_a_call_without_a_name_is_answered(stage, bench, asks):
    scene = stage([asks(""), "ok"])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert result.ok
    assert scene.fake.requests[1].messages[2].tool_calls[0].name


# --- final answers that follow a schema


async def test_the_final_answer_is_an_object_that_follows_the_schema(stage):
    scene = stage('Here:\n```json\n{"n": 4}\n```')
    agent = Agent(name="a", instructions="Add.", output_schema=ANSWER)
    result = await run_agent(agent, "2 + 2?", caller=scene.caller)
    assert (result.output, result.end) == ({"n": 4}, "done")
    (request,) = scene.fake.requests
    assert request.response_schema == ANSWER
    assert json.dumps(ANSWER) in request.messages[0].content


async def test_a_schema_does_not_constrain_what_may_also_be_a_call(stage, bench, asks):
    scene = stage([asks("look"), '{"n": 4}'])
    result = await run_agent(
        bench.agent(output_schema=ANSWER), "go", caller=scene.caller
    )
    assert result.output == {"n": 4}
    assert {request.response_schema for request in scene.fake.requests} == {None}


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ('{"n": "four"}', "'four' is not of type 'integer'"),
        ("four", "no JSON object"),
        ("null", "no JSON object"),
        ('{"n": 1} {"n": 2}', "2 JSON objects"),
        ('{"n": 1,}', "not valid JSON"),
        ('{"n": ' + "[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_wrong_final_answer_is_repaired_once(stage, first, said):
    agent = Agent(name="a", instructions="Add.", output_schema=ANSWER)
    scene = stage([first, '{"n": 4}'])
    result = await run_agent(agent, "2 + 2?", caller=scene.caller)
    assert (result.output, result.end) == ({"n": 4}, "done")
    assert scene.said()[1][0] == "user"
    assert said in scene.said()[1][1]
    assert scene.notices() == ["repair"]

    scene = stage(first)
    result = await run_agent(agent, "2 + 2?", caller=scene.caller)
    assert (result.output, result.end) == (None, "malformed")
    assert result.text == first
    assert result.tokens.requests == 2


async def test_a_second_wrong_answer_ends_the_run_also_after_a_call(stage, bench, asks):
    scene = stage(['{"n": "4"}', asks("look"), '{"n": "4"}', '{"n": 4}'])
    agent = bench.agent(output_schema=ANSWER)
    result = await run_agent(agent, "go", caller=scene.caller)
    assert (result.end, result.output) == ("malformed", None)


async def test_a_schema_that_is_none_is_an_error(stage):
    agent = Agent(name="a", instructions="", output_schema={"type": "objekt"})
    with pytest.raises(ConfigError, match="agent 'a' is not valid"):
        await run_agent(agent, "go", caller=stage('{"n": 1}').caller)


# --- failures of the machine


async def test_a_failing_server_is_an_error(stage):
    scene = stage(ProviderError("gone"))
    with pytest.raises(ProviderError, match="gone"):
        await run_agent(Agent(name="a", instructions=""), "go", caller=scene.caller)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("error", [SandboxUnavailable("no Docker"), KeyError("bug")])
async def test_a_failing_tool_is_an_error_and_cancels_the_others(
    stage, bench, call, count, error
):
    cancelled = []

    async def fail(x):
        if x == 0:
            raise error
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(x)

    bench.add("fail", fail)
    turn = Answer(tool_calls=tuple(call("fail", {"x": n}) for n in range(count)))
    scene = stage([turn])
    with pytest.raises(type(error)) as caught:
        await run_agent(bench.agent(), "go", caller=scene.caller)
    assert caught.value is error
    assert cancelled == list(range(1, count))
    results = scene.events(EventType.AGENT_TOOL_RESULT)
    assert [e.data["ok"] for e in results] == [False] * count
    assert type(error).__name__ in results[0].data["text"]


async def test_older_results_make_room_in_a_full_context(stage, bench, asks):
    bench.add("read", "line\n" * 1000)
    reads = [asks("read", {"x": n}) for n in range(2)]
    scene = stage([*reads, ContextOverflow("too long"), "done"])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert (result.end, result.tokens.requests) == ("done", 3)
    assert scene.notices() == ["shrunk"]
    full = [content for role, content in scene.said(2) if role == "tool"]
    older, newest = [content for role, content in scene.said(3) if role == "tool"]
    assert [len(content) for content in full] == [5000, 5000]
    assert "dropped" in older
    assert 1000 < len(newest) < 2000
    assert [len(use.text) for use in result.tool_calls] == [5000, 5000]


async def test_a_first_prompt_that_does_not_fit_is_an_error(stage, bench):
    scene = stage([ContextOverflow("too long")])
    with pytest.raises(ContextOverflow):
        await run_agent(bench.agent(), "go", caller=scene.caller)
    assert len(scene.fake.requests) == 1


async def test_a_conversation_that_outgrows_the_context_ends_the_run(
    stage, bench, asks
):
    full = ContextOverflow("too long")
    bench.add("read", "line\n" * 1000)
    scene = stage([asks("read", text="I look."), full, full])
    result = await run_agent(bench.agent(), "go", caller=scene.caller)
    assert len(scene.fake.requests) == 3
    assert (result.end, result.text) == ("context", "I look.")
    assert result.tokens.requests == 1
    assert scene.notices() == ["shrunk", "context"]


async def test_long_results_are_shown_by_both_ends(stage, bench, asks):
    bench.add("read", "a" * 900 + "z" * 900)
    scene = stage([asks("read"), "done"])
    agent = bench.agent(budget=Budget(result_chars=100))
    result = await run_agent(agent, "go", caller=scene.caller)
    shown = scene.said()[1][1]
    assert len(shown) < 150
    assert (shown[:50], shown[-50:]) == ("a" * 50, "z" * 50)
    assert len(result.tool_calls[0].text) == 1800


# --- whom it asks


def test_a_caller_knows_the_model_of_each_agent():
    def entry(name, preference=0, **fields):
        return RegisteredModel(
            name=name, provider=FakeProvider(), preference=preference, **fields
        )

    router = LLMRouter(
        [
            entry("big", capabilities=frozenset({"tools"})),
            entry("small", preference=-1, capabilities=frozenset({"json_schema"})),
        ]
    )
    caller = Caller(router=router, models={"planner": "small"})
    assert (caller.model_for("planner"), caller.model_for("x")) == ("small", None)
    assert caller.capabilities("planner") == {"json_schema"}
    assert caller.capabilities("x") == {"tools"}
    assert Caller(router=router, model="none").capabilities("x") == frozenset()


@pytest.mark.parametrize(
    ("mode", "capabilities", "native"),
    [
        ("auto", {"tools"}, True),
        ("auto", {"json_schema"}, False),
        ("auto", (), False),
        ("native", (), True),
        ("json", {"tools"}, False),
    ],
)
async def test_the_mode_follows_what_the_model_declares(
    stage, bench, mode, capabilities, native
):
    scene = stage('{"final": "x"}', capabilities=capabilities)
    await run_agent(bench.agent(tool_mode=mode), "go", caller=scene.caller)
    (request,) = scene.fake.requests
    assert bool(request.tools) is native


# --- servers that ignore tools


async def test_tools_that_the_server_drops_silently_go_into_the_prompt(
    stage, bench, written
):
    said = ["I cannot see.", written("look", {"x": 1}), '{"final": "seen"}']
    async with StubServer(*said, models=[ModelInfo(name="m")]) as stub:
        scene = stage(provider=OpenAIProvider(stub.url))
        result = await run_agent(bench.agent(), "look", caller=scene.caller)
        assert (result.text, result.end) == ("seen", "done")
        assert bench.asked == [("look", {"x": 1})]
        first, second, _ = [chat.body for chat in stub.chats]
        assert "tools" in first
        assert "tools" not in second
        assert "Does look." in second["messages"][0]["content"]
        assert [m["role"] for m in second["messages"]] == ["system", "user"]
        assert scene.notices() == ["json_protocol"]
        assert "dropped them silently" in result.warnings[0]
        await scene.caller.router.aclose()


async def test_a_call_that_the_server_does_not_understand_changes_to_json(
    stage, bench, asks, written
):
    unread = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    replies = [asks("look", {"x": 1}), unread, written("look", {"x": 2})]
    scene = stage([*replies, '{"final": "seen"}'])
    result = await run_agent(bench.agent(), "look", caller=scene.caller)
    assert (result.text, result.end) == ("seen", "done")
    assert bench.asked == [("look", {"x": 1}), ("look", {"x": 2})]
    assert scene.said(2) == [
        ("assistant", '{"tool": "look", "arguments": {"x": 1}}'),
        ("user", 'Result of look:\nlook {"x": 1}'),
    ]


@pytest.mark.parametrize(
    "message",
    [
        "registry/gemma:2b does not support tools",
        "tools param requires --jinja flag",
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser',
    ],
)
async def test_tools_that_the_server_refuses_go_into_the_prompt(stage, bench, message):
    scene = stage([ProviderError(message, status_code=400), '{"final": "seen"}'])
    result = await run_agent(bench.agent(), "look", caller=scene.caller)
    assert (result.text, result.end) == ("seen", "done")
    assert scene.notices() == ["json_protocol"]


def _kept_runs() -> int:
    return sum(type(kept) is _Run for kept in gc.get_objects())


async def test_an_ended_run_is_freed_without_the_garbage_collector(stage, bench, asks):
    scene = stage([asks("look", {"x": 1}), "seen"])
    gc.collect()
    before = _kept_runs()
    gc.disable()
    try:
        await run_agent(bench.agent(), "look", caller=scene.caller)
        assert _kept_runs() == before
    finally:
        gc.enable()
