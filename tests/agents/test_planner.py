"""The planner asks twice at most, and there is always a plan."""

import json

import pytest

from agentfarm.agents._planner import PlannerAgent
from agentfarm.agents._prompts import prompt
from agentfarm.errors import ProviderError
from agentfarm.llm import Usage
from agentfarm.llm.testing import Answer
from agentfarm.tools import ToolRegistry, file_tools

GOOD = {
    "summary": "Two files.",
    "interface": False,
    "steps": [
        {"id": "1", "title": "Write a.py", "detail": "f()", "depends_on": None},
        {"id": "2", "title": "Write b.py", "detail": "", "depends_on": ["1"]},
    ],
}
CIRCULAR = {
    "summary": "x",
    "steps": [
        {"id": "1", "title": "a", "depends_on": ["2"]},
        {"id": "2", "title": "b", "depends_on": ["1"]},
    ],
}


@pytest.fixture
def farm(stage):
    """A stage whose script each test sets."""
    return stage()


def answer(value, tokens: int = 10) -> Answer:
    text = value if isinstance(value, str) else json.dumps(value)
    return Answer(text, usage=Usage(input_tokens=tokens, output_tokens=1))


async def test_a_good_plan_costs_one_request(farm):
    farm.fake.script = [answer(GOOD)]
    found = await PlannerAgent().plan(
        "Write it.", caller=farm.caller, files=["a.py", "b.py"]
    )
    assert [step.id for step in found.plan.steps] == ["1", "2"]
    assert (found.plan.is_fallback, found.problem) == (False, "")
    [request] = farm.fake.requests
    assert request.task_type == "planning"
    assert request.context.agent == "planner"
    assert request.messages[0].content.startswith(prompt("planner"))
    assert request.messages[1].content == (
        "## Task\nWrite it.\n\n## Files in the workspace\n- a.py\n- b.py"
    )


async def test_steps_that_make_no_sense_are_shown_and_asked_for_anew(farm):
    farm.fake.script = [answer(CIRCULAR, 10), answer(GOOD, 20)]
    found = await PlannerAgent().plan("Write it.", caller=farm.caller)
    assert not found.plan.is_fallback
    assert found.result.tokens.input_tokens == 30
    assert found.result.tokens.requests == 2
    second = farm.fake.requests[1].messages
    assert len(second) == 2
    assert "These steps wait for each other: 1, 2." in second[1].content
    assert json.dumps(CIRCULAR) in second[1].content


@pytest.mark.parametrize(
    ("script", "requests"),
    [
        (["I would begin with a file.", "And then?"], 2),
        ([{"steps": "none"}, {"plan": []}], 2),
        ([CIRCULAR, CIRCULAR], 2),
        ([CIRCULAR, "no JSON", "again none"], 3),
        ([{"summary": None, "steps": None}, {"summary": None, "steps": []}], 2),
        (["", ""], 2),
    ],
)
async def test_a_weak_model_gets_a_plan_of_one_step(farm, script, requests):
    farm.fake.script = [answer(value) for value in script]
    found = await PlannerAgent().plan("Write\nit.", caller=farm.caller)
    assert found.plan.is_fallback
    assert [step.title for step in found.plan.steps] == ["Write it."]
    assert found.plan.steps[0].detail == "Write\nit."
    assert found.problem
    assert len(farm.fake.requests) == requests
    assert found.result.tokens.requests == requests


async def test_a_planner_may_look_into_the_workspace(farm, tmp_path):
    tools = ToolRegistry(
        tool
        for tool in file_tools(tmp_path)
        if tool.name in {"list_files", "read_file"}
    )
    farm.fake.script = [answer({"final": GOOD})]
    planner = PlannerAgent(tools=tools, tool_mode="json")
    found = await planner.plan("Write it.", caller=farm.caller)
    assert not found.plan.is_fallback
    assert "list_files" in farm.fake.requests[0].messages[0].content


async def test_context_goes_into_the_system_prompt(farm):
    farm.fake.script = [answer(GOOD)]
    await PlannerAgent().plan("Write it.", caller=farm.caller, context="[block]")
    system, asked = farm.fake.requests[0].messages
    assert f"{prompt('planner')}\n\n[block]" in system.content
    assert "[block]" not in asked.content


async def test_a_server_that_is_gone_is_not_the_planners_fault(farm):
    farm.fake.script = ProviderError("gone")
    with pytest.raises(ProviderError):
        await PlannerAgent().plan("Write it.", caller=farm.caller)
