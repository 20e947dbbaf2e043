"""A tool checks what a model passes, and tells it what is wrong."""

import json

import pytest

from agentfarm.llm import ToolSpec
from agentfarm.tools import Tool, ToolResult

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "times": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"type": ["string", "null"]},
    },
    "required": ["text"],
    "additionalProperties": False,
}


@pytest.fixture
def calls() -> list:
    return []


@pytest.fixture
def echo(calls) -> Tool:
    async def run(**arguments) -> ToolResult:
        calls.append(arguments)
        return ToolResult(text=arguments["text"])

    return Tool(name="echo", description="Says it.", parameters=SCHEMA, run=run)


def test_a_model_is_offered_the_same_schema(echo):
    assert echo.spec() == ToolSpec(
        name="echo", description="Says it.", parameters=SCHEMA
    )


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ({"text": "x"}, {"text": "x"}),
        ({"text": "x", "times": 2, "tags": []}, {"text": "x", "times": 2, "tags": []}),
        ({"text": "x", "times": None, "tags": None}, {"text": "x"}),
        ({"text": "x", "unknown": None}, {"text": "x"}),
        ({"text": "x", "note": None}, {"text": "x", "note": None}),
    ],
)
async def test_null_counts_as_absent_unless_it_is_wanted(
    echo, calls, arguments, passed
):
    result = await echo.call(arguments)
    assert (result.text, result.ok) == ("x", True)
    assert calls == [passed]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'text' is a required property"),
        ({"text": None}, "'text' is a required property"),
        ({"text": 1}, "$.text: 1 is not of type 'string'"),
        ({"text": "x", "times": "2"}, "$.times: '2' is not of type 'integer'"),
        ({"text": "x", "times": 0}, "$.times: 0 is less than the minimum"),
        ({"text": "x", "tags": [1]}, "$.tags[0]: 1 is not of type 'string'"),
        ({"text": "x", "loud": True}, "'loud' was unexpected"),
        ({"text": 1, "times": "2"}, "$.times: '2' is not of type 'integer'"),
    ],
)
async def test_wrong_arguments_are_a_result_with_the_mistake_and_the_schema(
    echo, calls, arguments, said
):
    result = await echo.call(arguments)
    assert not result.ok
    assert said in result.text
    assert json.dumps(SCHEMA) in result.text
    assert calls == []


async def test_a_huge_wrong_value_is_not_repeated(echo):
    result = await echo.call({"text": ["x" * 100_000]})
    assert len(result.text) < 1000
    assert "is not of type 'string'" in result.text


async def test_deeply_nested_arguments_are_a_result(echo):
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    result = await echo.call({"text": nested})
    assert not result.ok
    while nested:  # taken apart by hand, since its repr would recurse
        nested = nested[0]


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "ö", "a.b", "x\n"])
def test_a_name_that_servers_refuse_is_refused_here(name):
    with pytest.raises(ValueError, match="tool name"):
        Tool(name=name, description="", parameters={}, run=None)
