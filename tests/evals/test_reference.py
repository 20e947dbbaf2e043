"""The model `reference` plays the solutions that a suite brings along."""

import dataclasses
import json
import subprocess
import sys

import pytest

from agentfarm.agents import Caller, PlannerAgent, ReviewerAgent
from agentfarm.errors import EvalError, ProviderError
from agentfarm.evals import Score, Suite, Task, exact, load_suite, run
from agentfarm.evals._reference import ReferenceProvider
from agentfarm.llm import (
    CallContext,
    ChatRequest,
    LLMRouter,
    Provider,
    RegisteredModel,
    ToolSpec,
    user,
)
from agentfarm.llm.testing import FakeProvider

QUIET = {"progress": False}


def task(name, reference, **fields):
    return Task(
        id=name,
        prompt="?",
        scorer=exact(),
        target=f"answer {name}",
        reference=reference,
        **fields,
    )


@pytest.fixture
def suite():
    """The id of one task ends in that of another; one has a wrong reference."""
    tasks = (
        task("a", "answer a"),
        task("b-a", "answer b-a"),
        task("c/1", "wrong"),
    )
    return Suite(name="own", tasks=tasks)


async def test_each_task_gets_its_own_reference_and_no_server_is_asked(
    farm, echo, suite
):
    async with farm(echo) as runtime:
        result = await run(suite, runtime=runtime, model="reference", **QUIET)
        names = {model.name for model in runtime.router.models}
    assert {sample.task: sample.score for sample in result.samples} == {
        "a": 1.0,
        "b-a": 1.0,
        "c/1": 0.0,
    }
    assert (result.run.model, result.run.status) == ("reference", "completed")
    assert {request.provider for request in result.requests} == {"reference"}
    assert len(result.requests) == 3
    assert {sample.output_tokens for sample in result.samples} == {None}
    assert echo.calls == []
    assert names == {"fake"}


async def test_a_suite_without_references_says_so_and_keeps_no_run(
    farm, echo, make_suite, suite
):
    some = dataclasses.replace(suite, tasks=(*suite.tasks, task("d", None)))
    async with farm(echo) as runtime:
        with pytest.raises(EvalError, match=r"'say' has no reference .* 2 of its 2"):
            await run(make_suite(2), runtime=runtime, model="reference", **QUIET)
        with pytest.raises(EvalError, match=r"1 of its 4 tasks, e\.g\. 'd'"):
            await run(some, runtime=runtime, model="reference", **QUIET)
        assert runtime.store.runs() == []


async def test_a_registered_model_of_that_name_goes_first(farm, suite):
    own = FakeProvider("answer a")
    async with farm(own) as runtime:
        router = LLMRouter([RegisteredModel(name="reference", provider=own)])
        runtime = dataclasses.replace(runtime, router=router)
        result = await run(suite, runtime=runtime, model="reference", **QUIET)
    assert len(own.calls) == 3
    assert result.score == pytest.approx(1 / 3)


async def test_its_run_can_be_resumed(farm, echo):
    fails = [True]

    def scorer(context):
        if fails:
            raise ValueError
        return Score(value=float(context.text == "right"))

    suite = Suite(
        name="own",
        tasks=(Task(id="a", prompt="?", scorer=scorer, reference="right"),),
    )
    async with farm(echo) as runtime:
        first = await run(suite, runtime=runtime, model="reference", **QUIET)
        assert first.errors == 1
        fails.clear()
        again = await run(suite, runtime=runtime, resume=first.run.run_id, **QUIET)
    assert again.score == 1


def request_of(name, *, agent, tools=()):
    return ChatRequest(
        messages=(user("?"),),
        tools=tuple(
            ToolSpec(name=tool, description="", parameters={}) for tool in tools
        ),
        context=CallContext(run_id="r", sample_id=f"r-{name}-1", agent=agent),
    )


@pytest.fixture
def files():
    return {"a.py": "x = 'å\n'\n", "tests/test_a.py": "import a\n"}


async def answer(provider, request):
    assert isinstance(provider, Provider)
    *_, last = [piece async for piece in provider.stream(request)]
    return last.message


async def test_the_executor_writes_every_file_and_then_is_done(files):
    provider = ReferenceProvider([task("a", files)])
    request = request_of("a", agent="executor", tools=["read_file", "write_file"])
    message = await answer(provider, request)
    assert [call.name for call in message.tool_calls] == ["write_file"] * 2
    assert {
        call.arguments["path"]: call.arguments["content"] for call in message.tool_calls
    } == files
    assert len({call.id for call in message.tool_calls}) == 2
    done = dataclasses.replace(
        request,
        messages=(user("?"), message, dataclasses.replace(user("ok"), role="tool")),
    )
    message = await answer(provider, done)
    assert message.tool_calls == ()
    assert message.content


async def test_the_roles_understand_it(files):
    provider = ReferenceProvider([task("a", files)])
    router = LLMRouter([RegisteredModel(name="reference", provider=provider)])
    caller = Caller(router=router, model="reference", sample_id="r-a-1", run_id="w")
    planned = await PlannerAgent().plan("a task", caller=caller, files=())
    assert not planned.plan.is_fallback
    assert len(planned.plan.steps) == 1
    review = await ReviewerAgent().review("a task", "+x", "ok", caller=caller)
    assert (review.verdict, review.findings) == ("approve", ())
    assert not review.blocking


async def test_a_request_outside_of_its_suite_is_an_error(files):
    provider = ReferenceProvider([task("a", files), task("b", None)])
    for name in ("none", "b"):
        with pytest.raises(ProviderError, match="There is no reference solution"):
            await answer(provider, request_of(name, agent="executor"))
    assert (await provider.health()).ok
    assert [model.name for model in await provider.models()] == ["reference"]


@pytest.mark.docker
@pytest.mark.timeout(600)
def test_the_command_plays_all_eleven_coding_tasks(
    sandbox_image, no_leftovers, tmp_path
):
    command = [sys.executable, "-m", "agentfarm", "eval", "run", "coding"]
    options = ["--model", "reference", "--json", "--no-progress"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    scores = {sample["task"]: sample["score"] for sample in data["samples"]}
    assert scores == dict.fromkeys(scores, 1.0), data["samples"]
    assert len(scores) == 11
    assert data["score"] == 1.0
    assert list((tmp_path / "home" / "workspaces").iterdir()) == []


def test_both_languages_have_the_same_tasks():
    english, swedish = load_suite("coding"), load_suite("coding_sv")
    assert (english.name, swedish.name) == ("coding", "coding_sv")
    assert len(english) == 11
    assert [each.id for each in english.tasks] == [each.id for each in swedish.tasks]
    assert english.suite_hash != swedish.suite_hash
    for one, other in zip(english.tasks, swedish.tasks, strict=True):
        assert (one.files, one.reference) == (other.files, other.reference)
        assert one.prompt != other.prompt
