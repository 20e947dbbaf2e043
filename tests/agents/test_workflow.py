"""The whole way from a task to verified work, and every way it can break off."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from agentfarm.agents import Workflow
from agentfarm.errors import ConfigError, ProviderError, StoreError
from agentfarm.events import EventBus, EventType
from agentfarm.llm import LLMRouter, RegisteredModel, RetryPolicy, ToolCall
from agentfarm.llm.testing import Answer, FakeProvider
from agentfarm.store import Store
from agentfarm.tools.sandbox import DockerSandbox

pytestmark = pytest.mark.docker

GOOD = "def add(a, b):\n    return a + b\n"
BROKEN = "def add(a, b)\n    return a + b\n"
TESTS = "from calc import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"
PLAN = {
    "summary": "Write it, then test it.",
    "interface": False,
    "steps": [
        {"id": "a", "title": "Write calc.py", "detail": "", "depends_on": []},
        {"id": "b", "title": "Write the tests", "detail": "", "depends_on": ["a"]},
    ],
}
APPROVED = {"verdict": "approve", "findings": [], "summary": "Fine."}
STAGES = ["plan", "step:a", "step:b", "verify:1", "review:1"]


def writes(path, content):
    arguments = {"path": path, "content": content}
    call = ToolCall(
        id="1",
        name="write_file",
        arguments=arguments,
        raw_arguments=json.dumps(arguments),
    )
    return Answer("", tool_calls=(call,))


@dataclass
class Team:
    """A model that plays every role; each role's script can be replaced."""

    plan: object = field(default_factory=lambda: PLAN)
    files: dict = field(
        default_factory=lambda: {
            "Write calc.py": ("calc.py", GOOD),
            "Write the tests": ("test_calc.py", TESTS),
        }
    )
    fixes: list = field(default_factory=list)
    reviews: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    before: object = None

    async def __call__(self, request):
        agent = request.context.agent
        text = request.messages[1].content
        self.asked.append((agent, text))
        if self.before:
            await self.before(agent, text)
        if agent == "planner":
            return json.dumps(self.plan)
        if agent == "ux_designer":
            return "Big buttons."
        if agent == "reviewer":
            review = self.reviews.pop(0) if self.reviews else APPROVED
            return json.dumps(review)
        if request.messages[-1].role == "tool":
            return "It is written."
        return self._execute(text)

    def _execute(self, text):
        if "Mend what" in text:
            return writes(*self.fixes.pop(0)) if self.fixes else "Nothing to mend."
        for title, file in self.files.items():
            if title in text.split("Step", 1)[-1]:
                return writes(*file)
        raise AssertionError(text)

    def agents(self):
        """Who was asked, in order, each turn once."""
        return [agent for agent, _ in self.asked]


@pytest.fixture
async def sandbox(engine, sandbox_image):
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=1) as opened:
        yield opened


@pytest.fixture
def make(sandbox, tmp_path):
    """Make a workflow on one folder and one Store, with a team of one's own."""
    stores = []

    def workflow(team, **options):
        bus = EventBus()
        router = LLMRouter(
            [
                RegisteredModel(
                    name="m",
                    provider=FakeProvider(team),
                    capabilities=frozenset({"tools", "json_schema"}),
                    max_concurrency=8,
                )
            ],
            bus=bus,
            retry=RetryPolicy(rounds=1),
        )
        store = Store.open(f"sqlite:///{tmp_path}/farm.db")
        stores.append(store)
        given = {
            "router": router,
            "bus": bus,
            "sandbox": sandbox,
            "store": store,
            "workspace": tmp_path / "work",
            "state": tmp_path / "state",
            "model": "m",
        }
        made = Workflow(**given | options)
        made.store = store
        return made

    yield workflow
    for store in stores:
        store.close()


def keys(bus, kind):
    return [event.data["key"] for event in bus.history(kind)]


async def test_a_task_becomes_verified_work(make, tmp_path):
    team = Team()
    workflow = make(team)
    result = await workflow.run("Write a calculator.")
    assert result.ok, result.summary
    assert result.status == "completed"
    assert (tmp_path / "work/calc.py").read_text() == GOOD
    assert result.written == ("calc.py", "test_calc.py")
    assert "+def add(a, b):" in result.diff
    checks = {check.name: check.status for check in result.verification.checks}
    assert checks["syntax"] == checks["imports"] == checks["tests"] == "passed"
    assert keys(workflow.bus, EventType.STEP_STARTED) == STAGES
    assert keys(workflow.bus, EventType.STEP_COMPLETED) == STAGES
    assert set(result.tokens) == {"planner", "executor", "reviewer"}
    assert result.total_tokens.requests == len(team.asked) == 6
    kinds = [event.type for event in workflow.bus.history()]
    assert kinds[0] is EventType.WORKFLOW_STARTED
    assert kinds[-1] is EventType.WORKFLOW_COMPLETED
    record = workflow.store.workflow(result.run_id)
    assert (record.status, record.summary) == ("completed", result.summary)
    kept = workflow.store.workflow_steps(result.run_id)
    assert [step.key for step in kept] == STAGES
    assert json.loads(json.dumps(result.to_dict()))["ok"] is True
    log = (tmp_path / "state" / result.run_id / "events.jsonl").read_text()
    assert [json.loads(line)["type"] for line in log.splitlines()][-1] == (
        "workflow_completed"
    )


async def test_a_step_gets_the_hand_over_of_those_it_depends_on(make):
    team = Team()
    await make(team).run("Write a calculator.")
    second = next(text for agent, text in team.asked if "Write the tests" in text)
    assert "It is written." in second
    assert "calc.py" in second


async def test_failed_checks_go_back_with_the_evidence(make, tmp_path):
    team = Team(fixes=[("calc.py", GOOD)])
    team.files["Write calc.py"] = ("calc.py", BROKEN)
    result = await make(team).run("Write a calculator.")
    assert result.ok, result.summary
    assert result.rounds == 2
    evidence = next(text for _, text in team.asked if "Mend what" in text)
    assert "calc.py:1" in evidence
    # What does not even compile is not worth a reviewer's time.
    assert team.agents().count("reviewer") == 1


async def test_a_review_that_holds_it_back_goes_back_too(make):
    finding = {"severity": "major", "file": "calc.py", "message": "Name it plus."}
    rejected = {"verdict": "request_changes", "findings": [finding], "summary": "No."}
    team = Team(reviews=[rejected], fixes=[("calc.py", f"# plus\n{GOOD}")])
    result = await make(team).run("Write a calculator.")
    assert result.ok
    assert result.rounds == 2
    assert "Name it plus." in next(text for _, text in team.asked if "Mend" in text)


async def test_the_rounds_are_bounded_and_the_result_is_honest(make):
    team = Team()
    team.files["Write calc.py"] = ("calc.py", BROKEN)
    result = await make(team, max_rounds=1).run("Write a calculator.")
    assert (result.status, result.ok, result.rounds) == ("completed", False, 2)
    assert sum("Mend what" in text for _, text in team.asked) == 1
    assert not result.verification.ok


async def test_a_model_that_does_nothing_is_not_called_a_success(make):
    team = Team()
    team._execute = lambda _text: "I have done everything."
    result = await make(team).run("Write a calculator.")
    assert (result.status, result.ok) == ("completed", False)
    assert "No file was changed." in result.summary


async def test_a_designer_joins_for_an_interface_alone(make):
    team = Team()
    await make(team).run("Write a calculator.")
    assert "ux_designer" not in team.agents()
    team = Team(plan=PLAN | {"interface": True})
    await make(team).run("Write a calculator with buttons, again.")
    assert "ux_designer" in team.agents()
    assert "Big buttons." in next(t for agent, t in team.asked if agent == "executor")


async def test_steps_that_do_not_need_each_other_run_at_once(make, tmp_path):
    both, waiting = anyio.Event(), []

    async def meet(agent, text):
        if agent == "executor" and len(waiting) < 2:
            waiting.append(text)
            if len(waiting) == 2:
                both.set()
            with anyio.fail_after(20):
                await both.wait()

    steps = [{**step, "depends_on": []} for step in PLAN["steps"]]
    team = Team(plan=PLAN | {"steps": steps}, before=meet)
    result = await make(team).run("Write a calculator.")
    assert result.ok
    assert (tmp_path / "work/test_calc.py").read_text() == TESTS


@pytest.mark.parametrize("stage", STAGES)
async def test_interrupted_in_any_stage_it_resumes_at_the_last_finished_step(
    make, stage, tmp_path
):
    workflow = make(Team())
    async with workflow.stream("Write a calculator.") as events:
        async for event in events:
            if event.type is EventType.STEP_STARTED and event.data["key"] == stage:
                break
    record = workflow.store.workflow(events.run_id)
    assert record.status == "interrupted"
    done = [step.key for step in workflow.store.workflow_steps(events.run_id)]
    # The stage may have ended before its start was read.
    assert done == STAGES[: len(done)]
    assert len(done) >= STAGES.index(stage)
    files = {path.name: path.read_text() for path in (tmp_path / "work").glob("*.py")}

    again = make(Team())
    result = await again.run(resume=events.run_id)
    assert result.ok, result.summary
    assert result.run_id == events.run_id
    assert keys(again.bus, EventType.STEP_STARTED) == STAGES[len(done) :]
    assert result.written == ("calc.py", "test_calc.py")
    for name, text in files.items():
        assert (tmp_path / "work" / name).read_text() == text


KILLED = """
import sys, anyio
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from agentfarm.agents import Workflow
from agentfarm.containers import Engine
from agentfarm.events import EventBus, EventType
from agentfarm.llm import LLMRouter, RegisteredModel
from agentfarm.llm.testing import FakeProvider
from agentfarm.store import Store
from agentfarm.tools.sandbox import DockerSandbox
from test_workflow import Team

home, stage, image = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

async def main():
    bus = EventBus()
    model = RegisteredModel(
        name="m", provider=FakeProvider(Team()), capabilities=frozenset({"tools"})
    )
    async with DockerSandbox(image=image, pool=0) as sandbox:
        workflow = Workflow(
            router=LLMRouter([model], bus=bus), bus=bus, sandbox=sandbox, model="m",
            store=Store.open(f"sqlite:///{home}/farm.db"), workspace=home / "work",
            state=home / "state",
        )
        async for event in workflow.stream("Write a calculator."):
            if event.type is EventType.STEP_STARTED and event.data["key"] == stage:
                print(event.run_id, flush=True)
                await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.mark.parametrize("stage", STAGES)
async def test_killed_in_any_stage_it_resumes_at_the_last_finished_step(
    make, stage, tmp_path, sandbox_image
):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, str(tmp_path), stage, sandbox_image, here]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        run_id = process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGKILL)
    assert run_id
    workflow = make(Team())
    assert workflow.store.workflow(run_id).status == "interrupted"
    done = [step.key for step in workflow.store.workflow_steps(run_id)]
    result = await workflow.run(resume=run_id)
    assert result.ok, result.summary
    assert keys(workflow.bus, EventType.STEP_STARTED) == STAGES[len(done) :]
    assert STAGES.index(stage) <= len(done) + 1
    assert result.written == ("calc.py", "test_calc.py")


async def test_a_server_that_is_gone_fails_it_and_it_can_be_resumed(make):
    async def gone(agent, _text):
        if agent == "reviewer":
            raise ProviderError("The server is gone.", retryable=False)

    workflow = make(Team(before=gone))
    result = await workflow.run("Write a calculator.")
    assert (result.status, result.ok) == ("failed", False)
    assert isinstance(result.error, ProviderError)
    assert workflow.bus.history()[-1].type is EventType.WORKFLOW_FAILED
    assert workflow.store.workflow(result.run_id).status == "failed"
    again = make(Team())
    result = await again.run(resume=result.run_id)
    assert result.ok
    assert keys(again.bus, EventType.STEP_STARTED) == ["review:1"]


async def test_what_does_not_fit_is_refused(make, tmp_path):
    workflow = make(Team())
    with pytest.raises(ConfigError):
        await workflow.run("")
    with pytest.raises(ConfigError):
        await workflow.run("x", resume="y")
    with pytest.raises(ConfigError):
        make(Team(), concurrency=0)
    with pytest.raises(StoreError):
        await workflow.run(resume="no-such-run")
    result = await workflow.run("Write a calculator.")
    with pytest.raises(StoreError, match="complete"):
        await workflow.run(resume=result.run_id)
    with pytest.raises(StoreError, match="no-such-run"):
        async for _ in workflow.stream(resume="no-such-run"):
            pass


async def test_the_stream_ends_with_the_result(make):
    workflow = make(Team())
    kinds = []
    async with workflow.stream("Write a calculator.") as events:
        kinds += [event.type async for event in events]
    assert kinds[0] is EventType.WORKFLOW_STARTED
    assert kinds[-1] is EventType.WORKFLOW_COMPLETED
    assert EventType.LLM_STREAM_CHUNK in kinds
    assert EventType.AGENT_TOOL_CALL in kinds
    assert EventType.CODE_GENERATED in kinds
    assert events.result.ok
