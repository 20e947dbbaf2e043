"""A real workflow in a real sandbox, as the receiver sees it."""

import json

import anyio
import pytest
from anyio import to_thread

from agentfarm.agents import Workflow
from agentfarm.llm import LLMRouter, RegisteredModel, ToolCall
from agentfarm.llm.testing import Answer, FakeProvider
from agentfarm.tools.sandbox import DockerSandbox

pytestmark = pytest.mark.docker

PLAN = {
    "summary": "Two files.",
    "interface": False,
    "steps": [
        {"id": "a", "title": "Write a.py", "detail": "", "depends_on": []},
        {"id": "b", "title": "Write b.py", "detail": "", "depends_on": []},
    ],
}
APPROVED = {"verdict": "approve", "findings": [], "summary": "Fine."}


class Team:
    """Plays every role; the two executors wait for each other at their first turn."""

    def __init__(self):
        self.begun = 0
        self.both = anyio.Event()

    async def __call__(self, request):
        agent = request.context.agent
        if agent == "planner":
            return json.dumps(PLAN)
        if agent == "reviewer":
            return json.dumps(APPROVED)
        if request.messages[-1].role == "tool":
            return "It is written."
        step = "a" if "a.py" in request.messages[1].content.split("Step")[-1] else "b"
        self.begun += 1
        if self.begun == 2:
            self.both.set()
        await self.both.wait()
        arguments = {"path": f"{step}.py", "content": "x = 1\n"}
        raw = json.dumps(arguments)
        # Both calls have the same id, as those of servers that count have.
        call = ToolCall(
            id="1", name="write_file", arguments=arguments, raw_arguments=raw
        )
        return Answer("", tool_calls=(call,))


async def test_stages_that_run_at_once_keep_their_own_requests_and_tools(
    receiver, bus, export, engine, sandbox_image, tmp_path
):
    exported = export()
    model = RegisteredModel(
        name="m",
        provider=FakeProvider(Team()),
        capabilities=frozenset({"tools", "json_schema"}),
        max_concurrency=8,
    )
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=1) as sandbox:
        workflow = Workflow(
            router=LLMRouter([model], bus=bus),
            bus=bus,
            sandbox=sandbox,
            workspace=tmp_path / "work",
        )
        result = await workflow.run("Write two files.")
    await to_thread.run_sync(exported.close)
    assert result.status == "completed", result.summary
    root = receiver.one("invoke_workflow plan-execute-verify")
    stages = [span for span in receiver.spans if span.parent_id == root.span_id]
    assert [span.name for span in stages] == [
        "invoke_agent planner",
        "invoke_agent executor",
        "invoke_agent executor",
        "invoke_agent verifier",
        "invoke_agent reviewer",
    ]
    for executor in stages[1:3]:
        children = [s.name for s in receiver.spans if s.parent_id == executor.span_id]
        assert children == ["chat m", "execute_tool write_file", "chat m"]
    assert stages[2].started_ns < stages[1].ended_ns
    assert not any(span.failed for span in receiver.spans)
    assert exported._builder.open == 0
