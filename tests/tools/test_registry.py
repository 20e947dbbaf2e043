"""Calls find their tool by name, and every mistake of a model comes back as text."""

import pytest

from agentfarm.llm import ToolCall
from agentfarm.tools import Tool, ToolRegistry, ToolResult


def tool(name) -> Tool:
    async def run(**arguments) -> ToolResult:
        return ToolResult(text=f"{name}: {arguments}")

    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return Tool(name=name, description=name, parameters=schema, run=run)


def call(name, arguments, raw="") -> ToolCall:
    return ToolCall(id="1", name=name, arguments=arguments, raw_arguments=raw)


@pytest.fixture
def registry() -> ToolRegistry:
    return ToolRegistry([tool("b"), tool("a")])


def test_tools_keep_their_order(registry):
    registry.add(tool("0"))
    assert [each.name for each in registry] == ["b", "a", "0"]
    assert [spec.name for spec in registry.specs()] == ["b", "a", "0"]
    assert len(registry) == 3


def test_a_name_is_taken_once(registry):
    with pytest.raises(ValueError, match="'a'"):
        registry.add(tool("a"))
    assert registry.get("a").name == "a"
    assert registry.get("c") is None


async def test_a_call_reaches_its_tool(registry):
    result = await registry.call(call("a", {"x": 1}))
    assert result == ToolResult(text="a: {'x': 1}")


async def test_an_unknown_name_is_answered_with_the_known_ones(registry):
    result = await registry.call(call("run_pyhton", {}))
    assert not result.ok
    assert "'run_pyhton'" in result.text
    assert "b, a" in result.text


async def test_an_empty_registry_says_so():
    result = await ToolRegistry().call(call("a", {}))
    assert "none" in result.text


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ('{"x": 1', "not valid JSON (Expecting ',' delimiter"),
        ("", "not valid JSON (Expecting value"),
        ("[1]", "of type list, not an object"),
        ("null", "of type NoneType, not an object"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
async def test_malformed_arguments_are_shown_to_the_model(registry, raw, said):
    result = await registry.call(call("a", None, raw))
    assert not result.ok
    assert said in result.text
    assert raw[:100] in result.text
    assert '"integer"' in result.text
    assert len(result.text) < 1500
