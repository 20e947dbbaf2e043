"""The panel at work: on a real runtime and sandbox, with a scripted model."""

import dataclasses

import anyio
import pytest

from agentfarm import evals
from agentfarm.errors import AgentFarmError, ProviderError, SandboxUnavailable
from agentfarm.events import EventType
from agentfarm.llm import LLMRouter, RegisteredModel, RetryPolicy
from agentfarm.llm.testing import Answer, FakeProvider
from agentfarm.notebook.panels import WorkflowPanel
from agentfarm.runtime import open_runtime

PLAN = '{"summary": "One step.", "steps": [{"id": "1", "title": "Write a.py"}]}'
WRITES = '{"tool": "write_file", "arguments": {"path": "a.py", "content": "a = 1\\n"}}'
DONE = '{"final": "a.py is written."}'
FINE = '{"verdict": "approve", "summary": "Fine.", "findings": []}'
GOOD = (PLAN, WRITES, DONE, FINE)


@pytest.fixture
async def farm(settings, engine, sandbox_image):
    """A runtime whose model can be given a script: ``farm("a", "b")``."""
    async with open_runtime(settings) as runtime:

        def scripted(*script):
            fake = FakeProvider(list(script))
            model = RegisteredModel(name="embedded", provider=fake)
            retry = RetryPolicy(rounds=1)
            router = LLMRouter([model], bus=runtime.bus, retry=retry)
            return dataclasses.replace(runtime, router=router), fake

        yield scripted


@pytest.fixture
def click():
    """Press a button as a front end may: on another thread."""

    async def click(button):
        assert not button.disabled
        await anyio.to_thread.run_sync(button.click)

    return click


def shown(panel):
    return "".join(widget.value for widget in panel._parts.values())


@pytest.mark.docker
async def test_a_task_is_shown_from_its_start_to_its_end(farm, tmp_path):
    runtime, _ = farm(*GOOD)
    panel = WorkflowPanel(runtime, workspace=tmp_path / "work")
    assert "Not started" in shown(panel)
    result = await panel.run("Write a.py.")
    assert result.ok
    assert result is panel.result
    assert (tmp_path / "work" / "a.py").read_text() == "a = 1\n"
    page = shown(panel)
    assert "✓ Plan" in page
    assert "✓ Review" in page
    assert "a.py" in page
    assert "Completed" in page
    assert set(panel.view.tokens) == {"planner", "executor", "reviewer"}
    assert panel._task.value == "Write a.py."
    assert panel._resume.disabled
    assert not panel.running
    asked = evals.requests_frame(runtime.store, result.run_id)
    assert list(asked["agent"]) == ["planner", "executor", "executor", "reviewer"]


@pytest.mark.docker
async def test_each_task_has_a_folder_of_its_own_unless_one_is_named(farm, settings):
    runtime, _ = farm(*GOOD, *GOOD)
    panel = WorkflowPanel(runtime)
    first = await panel.run("Write a.py."), panel.workspace
    second = await panel.run("Write a.py."), panel.workspace
    assert first[0].ok
    assert second[0].ok
    assert first[1] != second[1]
    assert first[1].parent == second[1].parent == settings.home / "workspaces"


@pytest.mark.docker
async def test_stop_keeps_what_is_finished_and_resume_goes_on(farm, click):
    held = anyio.Event()
    runtime, fake = farm(PLAN, Answer(WRITES, hold=held), WRITES, DONE, FINE)
    panel = WorkflowPanel(runtime)
    async with anyio.create_task_group() as tasks:
        results = []

        async def run():
            results.append(await panel.run("Write a.py."))

        tasks.start_soon(run)
        await fake.wait_until(lambda f: len(f.calls) == 2)
        with pytest.raises(AgentFarmError, match="still shows"):
            await panel.run("Another.")
        await click(panel._stop)
    (result,) = results
    assert result.status == "interrupted"
    assert "Interrupted" in shown(panel)
    assert fake.cancelled == 1
    assert not panel._resume.disabled

    again = await panel.run(resume=result.run_id)
    assert again.ok
    assert again.run_id == result.run_id
    assert "Plan (finished before)" in shown(panel)
    # The plan was asked for once.
    assert len(fake.calls) == 5


@pytest.mark.docker
async def test_the_buttons_start_and_resume(farm, click):
    runtime, _ = farm(PLAN, ProviderError("Gone.", retryable=False), *GOOD[1:])
    panel = WorkflowPanel(runtime)
    ended = anyio.Event()
    ends = (EventType.WORKFLOW_COMPLETED, EventType.WORKFLOW_FAILED)
    runtime.bus.on(lambda _event: ended.set(), *ends)

    async def press(button):
        await click(button)
        with anyio.fail_after(60):
            await ended.wait()
            await panel._launched

    panel._task.value = "Write a.py."
    await press(panel._start)
    assert panel.result.status == "failed"
    assert "Gone." in shown(panel)
    ended = anyio.Event()
    await press(panel._resume)
    assert panel.result.ok


async def test_what_stands_in_the_way_is_shown(settings):
    docker_only = settings.sandbox.model_copy(update={"backend": "docker"})
    nowhere = {"docker_host": "unix:///nowhere/docker.sock", "sandbox": docker_only}
    async with open_runtime(settings.model_copy(update=nowhere)) as runtime:
        panel = WorkflowPanel(runtime)
        result = await panel.run("Write a.py.")
        assert result.status == "failed"
        assert isinstance(result.error, SandboxUnavailable)
        assert result.error.remedy in shown(panel).replace("&#x27;", "'")
        result = await panel.run(resume="no-such-workflow")
        assert "no workflows" in str(result.error)


@pytest.mark.docker
async def test_a_panel_leaves_nothing_on_the_bus(farm):
    runtime, _ = farm(*GOOD)
    before = len(runtime.bus.metrics().subscriptions)
    panel = WorkflowPanel(runtime)
    await panel.run("Write a.py.")
    assert len(runtime.bus.metrics().subscriptions) == before
