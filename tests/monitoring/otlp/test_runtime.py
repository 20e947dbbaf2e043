"""Real runs, from the setting to what the receiver gets."""

import subprocess
import sys

import pytest

from agentfarm import evals, open_runtime
from agentfarm.agents import Agent, Caller, run_agent
from agentfarm.config import ModelSettings, load_settings
from agentfarm.errors import ConfigError, ProviderError
from agentfarm.evals import Suite, Task, exact
from agentfarm.llm import ChatRequest, user
from agentfarm.llm.testing import StubServer
from agentfarm.tools import Tool, ToolRegistry, ToolResult


@pytest.fixture
async def stub():
    async with StubServer(default="4") as server:
        yield server


@pytest.fixture
def settings(settings, stub, receiver):
    """A model `stub`, and spans to the receiver."""
    model = ModelSettings(
        name="stub",
        provider="openai",
        url=stub.url,
        capabilities=frozenset({"tools", "json_schema"}),
    )
    changes = {
        "models": (model,),
        "default_model": "stub",
        "otlp_endpoint": receiver.url,
    }
    return settings.model_copy(update=changes)


def question():
    return ChatRequest(messages=(user("2 + 2?"),), model="stub")


async def test_a_request_is_a_span_when_the_runtime_has_closed(settings, receiver):
    async with open_runtime(settings) as farm:
        response = await farm.router.complete(question())
    chat = receiver.one("chat stub")
    assert chat.kind == "client"
    assert not chat.failed
    assert chat.attributes["gen_ai.usage.input_tokens"] == response.usage.input_tokens
    assert chat.attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(
        response.timing.ttft_s
    )
    assert "2 + 2" not in str(receiver.bodies)


async def test_a_failure_is_a_span_with_its_error(settings, receiver, stub):
    await stub.aclose()
    async with open_runtime(settings) as farm:
        with pytest.raises(ProviderError):
            await farm.router.complete(question())
    chat = receiver.one("chat stub")
    assert chat.failed
    assert chat.attributes["error.type"] == "ProviderError"
    assert not any("usage" in key for key in chat.attributes)


async def test_without_the_setting_nothing_is_loaded_or_sent(settings, receiver):
    off = settings.model_copy(update={"otlp_endpoint": None})
    async with open_runtime(off) as farm:
        await farm.router.complete(question())
        names = [each.name for each in farm.bus.metrics().subscriptions]
    assert "otlp" not in names
    assert receiver.asked == []
    code = (
        "import sys, agentfarm.runtime, agentfarm.monitoring, agentfarm.cli; "
        "print([n for n in sys.modules if n.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


async def test_a_runtime_for_reading_sends_nothing(settings, receiver):
    async with open_runtime(settings):
        pass
    async with open_runtime(settings, read_only=True) as farm:
        await farm.router.complete(question())
    assert receiver.asked == []


async def test_a_remote_receiver_is_refused_unless_it_is_allowed(settings):
    far = settings.model_copy(update={"otlp_endpoint": "https://otlp.example.com"})
    with pytest.raises(ConfigError, match=r"otlp\.example\.com") as caught:
        await open_runtime(far)
    assert "AGENTFARM_LOCAL_ONLY" in str(caught.value)
    allowed = far.model_copy(update={"local_only": False})
    async with open_runtime(allowed):
        pass


def test_a_missing_extra_is_one_clear_error(tmp_path):
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "import anyio, agentfarm\n"
        "async def main():\n"
        "    await agentfarm.open_runtime()\n"
        "try:\n"
        "    anyio.run(main)\n"
        "except agentfarm.AgentFarmError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            "AGENTFARM_HOME": str(tmp_path),
            "AGENTFARM_OTLP_ENDPOINT": "http://127.0.0.1:4318",
            "PATH": "/usr/bin",
        },
    )
    assert done.stdout.startswith("ConfigError"), done.stderr
    assert "pip install 'agentfarm[otlp]'" in done.stdout


def test_headers_come_from_the_environment_and_show_nowhere(monkeypatch):
    monkeypatch.setenv("AGENTFARM_OTLP_HEADERS", '{"authorization": "Bearer hunter2"}')
    settings = load_settings()
    secret = settings.otlp_headers["authorization"]
    assert secret.get_secret_value() == "Bearer hunter2"
    assert "hunter2" not in repr(settings)
    monkeypatch.setenv("AGENTFARM_OTLP_HEADERS", "authorization=hunter2")
    with pytest.raises(ConfigError, match="otlp_headers") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    assert "JSON" in str(caught.value)


async def test_headers_of_the_settings_reach_the_receiver(settings, receiver):
    with_key = load_settings(**settings.model_dump() | {"otlp_headers": {"x-key": "k"}})
    async with open_runtime(with_key) as farm:
        await farm.router.complete(question())
    (_, headers), *_ = receiver.asked
    assert headers["x-key"] == "k"


async def test_an_agents_tools_and_requests_are_in_one_trace(settings, receiver, stub):
    async def look(**_):
        return ToolResult(text="Nothing.")

    tool = Tool(
        name="look", description="Looks.", parameters={"type": "object"}, run=look
    )
    stub.queue += ['{"tool": "look", "arguments": {}}', '{"final": "Nothing."}']
    async with open_runtime(settings) as farm:
        tools = ToolRegistry([tool])
        agent = Agent(name="worker", instructions="x", tools=tools, tool_mode="json")
        caller = Caller(router=farm.router, bus=farm.bus, model="stub", run_id="r")
        result = await run_agent(agent, "Look.", caller=caller)
    assert result.ok
    names = [span.name for span in receiver.spans]
    assert names == ["chat stub", "execute_tool look", "chat stub"]
    assert len({span.trace_id for span in receiver.spans}) == 1
    agents = {span.attributes["gen_ai.agent.name"] for span in receiver.spans}
    assert agents == {"worker"}


async def test_an_evaluation_is_the_parent_of_its_requests(settings, receiver):
    tasks = tuple(
        Task(id=f"t{n}", prompt="2 + 2?", target="4", scorer=exact()) for n in range(3)
    )
    async with open_runtime(settings) as farm:
        await evals.run(Suite(name="sums", tasks=tasks), model="stub", runtime=farm)
    assert receiver.tree() == {
        "": ["evaluate sums"],
        "evaluate sums": ["chat stub"] * 3,
    }
    root = receiver.one("evaluate sums")
    assert root.attributes["agentfarm.run.planned_samples"] == 3
    assert root.attributes["agentfarm.run.finished_samples"] == 3
