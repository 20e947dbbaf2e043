"""Agents work on coding tasks in folders of their own, in the real sandbox."""

import dataclasses
import json

import pytest

from agentfarm.errors import ContextOverflow, EvalError, ProviderError, SandboxError
from agentfarm.evals import WorkflowSolver, load_run, requests_frame, run
from agentfarm.evals._code_suite import code_suite
from agentfarm.evals._solver import SolveContext
from agentfarm.evals._workflow_solver import _folder_name
from agentfarm.llm import CallContext, ChatRequest, Health
from agentfarm.llm.testing import FakeProvider

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

QUIET = {"progress": False}
TOML = """
[[tasks]]
id = "inc"
category = "bug_fixing"
title = "Add one"
description = "Mend a function."
weights = { test_one = 3 }
"""
TESTS = """
from inc import inc

def test_one():
    assert inc(1) == 2

def test_is_there():
    assert callable(inc)
"""


@pytest.fixture
def folder(tmp_path):
    """One task whose starting file passes one of four points."""
    root = tmp_path / "tasks"
    for name, text in {
        "tasks.toml": TOML,
        "inc/prompt.en.md": "inc(n) in inc.py must add one.",
        "inc/prompt.sv.md": "inc(n) i inc.py ska lägga till ett.",
        "inc/files/inc.py": "def inc(n):\n    return n\n",
        "inc/tests/test_hidden.py": TESTS,
        "inc/reference/inc.py": "def inc(n):\n    return n + 1\n",
        "inc/wrong/two/inc.py": "def inc(n):\n    return n + 2\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def suite(folder):
    return code_suite(folder, name="own", solver=WorkflowSolver(max_rounds=0))


@pytest.fixture
def workspaces(settings):
    """The names in the folder where workspaces are."""

    def names():
        place = settings.home / "workspaces"
        return [path.name for path in place.iterdir()] if place.exists() else []

    return names


async def test_the_reference_scores_1_and_leaves_nothing(
    no_leftovers, farm, echo, sandbox_image, suite, workspaces
):
    async with farm(echo) as runtime:
        result = await run(suite, runtime=runtime, model="reference", **QUIET)
        kept = load_run(runtime.store, result.run.run_id)
        frame = requests_frame(runtime.store, result.run.run_id)
    sample = result.samples[0]
    assert (sample.score, sample.status) == (1.0, "ok"), sample.explanation
    assert sample.metadata["category"] == "bug_fixing"
    assert sample.metadata["workflow_status"] == "completed"
    assert sample.metadata["plan_steps"] == 1
    assert sample.metadata["rounds"] == 1
    assert sample.metadata["written"] == ["inc.py"]
    assert sample.metadata["verification"]["syntax"] == "passed"
    assert set(sample.metadata["tokens"]) == {"planner", "executor", "reviewer"}
    assert sample.metadata["checks"] == {
        "test_one": "passed",
        "test_is_there": "passed",
    }
    assert (sample.metadata["checks_passed"], sample.metadata["checks_total"]) == (2, 2)
    assert "+    return n + 1" in sample.output
    assert sample.latency_s > 0
    assert result.run.config["solver"] == {"name": "workflow", "max_rounds": 0}
    agents = [request.agent for request in result.requests]
    assert agents == ["planner", "executor", "executor", "reviewer"]
    assert {request.sample_id for request in result.requests} == {sample.sample_id}
    assert kept.requests == result.requests
    assert len(frame) == 4
    assert workspaces() == []


async def test_a_wrong_solution_is_caught_the_same_way(
    farm, echo, sandbox_image, suite, folder
):
    wrong = {"inc.py": (folder / "inc/wrong/two/inc.py").read_text()}
    tasks = tuple(dataclasses.replace(task, reference=wrong) for task in suite.tasks)
    async with farm(echo) as runtime:
        played = dataclasses.replace(suite, tasks=tasks)
        result = await run(played, runtime=runtime, model="reference", **QUIET)
    sample = result.samples[0]
    assert sample.score == pytest.approx(0.25)
    assert sample.metadata["checks"]["test_one"] == "failed"
    assert "test_one" in sample.explanation
    assert "assert" in sample.metadata["messages"]["test_one"]


async def test_a_model_that_talks_nonsense_leaves_the_starting_files(
    no_leftovers, farm, sandbox_image, suite, workspaces
):
    fake = FakeProvider("I am a teapot.")
    async with farm(fake) as runtime:
        result = await run(suite, runtime=runtime, temperature=0.7, seed=5, **QUIET)
    sample = result.samples[0]
    assert (sample.status, sample.score) == ("ok", pytest.approx(0.25))
    assert sample.metadata["workflow_status"] == "completed"
    assert sample.input_tokens > 0
    assert sample.tokens_estimated
    assert {request.temperature for request in fake.requests} == {0.7}
    assert {request.seed for request in fake.requests} == {5}
    assert "inc.py" in fake.requests[0].messages[-1].content
    assert workspaces() == []


async def test_a_dead_server_ends_the_run_and_resuming_begins_afresh(
    farm, sandbox_image, suite, workspaces
):
    gone = ProviderError("refused", retryable=True)
    fake = FakeProvider(gone, health=Health(ok=False, detail="Nobody listens."))
    async with farm(fake) as runtime:
        with pytest.raises(ProviderError, match="refused"):
            await run(suite, runtime=runtime, **QUIET)
        failed = load_run(runtime.store)
        assert (failed.run.status, failed.samples) == ("failed", ())
        assert workspaces() == [f"{failed.run.run_id}-inc-1"]
        left = runtime.settings.home / "workspaces" / workspaces()[0]
        (left / "left.py").write_text("of an earlier attempt")
        fake.script = "I am a teapot."
        result = await run(suite, runtime=runtime, resume="latest", **QUIET)
    assert result.run.status == "completed"
    assert result.samples[0].metadata["written"] == []
    assert "left.py" not in fake.requests[-1].messages[-1].content
    assert workspaces() == []


async def test_what_a_failed_workflow_wrote_counts(
    farm, sandbox_image, suite, workspaces
):
    plan = {"summary": "", "steps": [{"id": "1", "title": "Mend it"}]}
    fixed = {"path": "inc.py", "content": "def inc(n):\n    return n + 1\n"}
    call = {"tool": "write_file", "arguments": fixed}

    def answer(request):
        if request.context.agent == "planner":
            return json.dumps(plan)
        if request.context.agent == "executor" and len(request.messages) < 3:
            return json.dumps(call)
        return ContextOverflow("too long", status_code=400)

    async with farm(FakeProvider(answer)) as runtime:
        result = await run(suite, runtime=runtime, **QUIET)
    sample = result.samples[0]
    assert sample.metadata["workflow_status"] == "failed"
    assert "too long" in sample.metadata["workflow_error"]
    assert sample.score == 1.0
    assert sample.metadata["workspace"].endswith(workspaces()[0])


async def test_files_that_cannot_be_read_are_an_error_of_the_sample(
    farm, sandbox_image, suite
):
    bad = {"../out.py": "x"}
    tasks = tuple(dataclasses.replace(task, files=bad) for task in suite.tasks)
    async with farm(FakeProvider("?")) as runtime:
        broken = dataclasses.replace(suite, tasks=tasks)
        result = await run(broken, runtime=runtime, **QUIET)
    assert result.samples[0].error_type == SandboxError.__name__
    assert result.run.status == "completed"


def test_folders_are_fit_for_a_file_system_and_never_meet():
    def folder_of(sample_id):
        request = ChatRequest(messages=(), context=CallContext(sample_id=sample_id))
        return _folder_name(SolveContext(task=None, request=request, runtime=None))

    assert folder_of("r-inc-1") == "r-inc-1"
    names = [folder_of(name) for name in ("r-a/b-1", "r-a_b-1", "r-" + "x" * 300)]
    assert len(set(names)) == 3
    assert all("/" not in name and len(name) < 200 for name in names)


def test_a_suite_speaks_both_languages_and_no_other(folder):
    swedish = code_suite(folder, name="own", language="sv")
    english = code_suite(folder, name="own")
    assert "lägga till" in swedish.tasks[0].prompt
    assert swedish.tasks[0].scorer == english.tasks[0].scorer
    assert swedish.suite_hash != english.suite_hash
    with pytest.raises(EvalError, match="no prompts in 'de'"):
        code_suite(folder, name="own", language="de")


def test_the_hidden_tests_are_in_the_hash_and_the_solutions_are_not(folder):
    before = code_suite(folder, name="own").suite_hash
    (folder / "inc/reference/inc.py").write_text("def inc(n):\n    return 1 + n\n")
    assert code_suite(folder, name="own").suite_hash == before
    (folder / "inc/tests/test_hidden.py").write_text(TESTS.replace("2", "3"))
    assert code_suite(folder, name="own").suite_hash != before
