"""A solver works on the tasks in place of one question; the workflow is one."""

import dataclasses
from functools import partial

import anyio
import pytest

from agentfarm.errors import (
    EvalError,
    ProviderError,
    SandboxError,
    SandboxUnavailable,
)
from agentfarm.evals import Score, Solution, Suite, Task, exact, load_run, run
from agentfarm.llm import ChatRequest, Health, user
from agentfarm.llm.testing import FakeProvider
from agentfarm.tools.sandbox import SandboxFile

QUIET = {"progress": False}


def by_files(context):
    names = ",".join(sorted(context.files))
    right = names == context.task.target
    assert context.response is None
    return Score(value=float(right), answer=names, metadata={"seen": names})


@pytest.fixture
def suite():
    tasks = (
        Task(id="a", prompt="write a", target="a.py", scorer=by_files),
        Task(id="b", prompt="write b", target="b.py", scorer=by_files),
    )
    return Suite(name="files", tasks=tasks, seed=3)


async def twice(context):
    """Asks the model twice and writes one file."""
    first = await context.ask()
    second = await context.ask([*context.request.messages, first.message, user("a")])
    assert second.text == "a.py"
    name = first.text
    return Solution(
        text=f"wrote {name}",
        files={name: SandboxFile(content=b"x = 1\n")},
        input_tokens=20,
        output_tokens=4,
        tokens_estimated=True,
        metadata={"rounds": 2},
    )


def named(request: ChatRequest) -> str:
    return f"{request.messages[-1].content.split()[-1]}.py"


async def test_its_files_are_scored_and_its_cost_is_kept(farm, suite):
    suite = dataclasses.replace(suite, solver=twice)
    fake = FakeProvider(named)
    async with farm(fake) as runtime:
        result = await run(suite, runtime=runtime, epochs=2, **QUIET)
        kept = load_run(runtime.store, result.run.run_id)
    assert result.score == 1
    assert kept.samples == result.samples
    sample = result.samples[0]
    assert (sample.output, sample.input) == ("wrote a.py", "write a")
    assert (sample.input_tokens, sample.output_tokens) == (20, 4)
    assert sample.tokens_estimated
    assert sample.latency_s > 0
    assert sample.ttft_s is None
    assert sample.metadata == {"rounds": 2, "seen": "a.py", "answer": "a.py"}
    assert len(result.requests) == 8
    assert {request.sample_id for request in result.requests} == {
        sample.sample_id for sample in result.samples
    }
    assert {request.seed for request in fake.requests} == {3, 4}


async def test_its_name_and_fields_are_in_the_config_and_decide_resuming(farm, suite):
    @dataclasses.dataclass(frozen=True)
    class Tries:
        count: int

        async def __call__(self, context):
            if context.task.id == "b":
                raise ValueError("no idea")
            return await twice(context)

    async with farm(FakeProvider(named)) as runtime:
        first = await run(
            dataclasses.replace(suite, solver=Tries(2)), runtime=runtime, **QUIET
        )
        assert first.run.config["solver"] == {"name": "Tries", "count": 2}
        with pytest.raises(EvalError, match="solver"):
            await run(
                dataclasses.replace(suite, solver=Tries(3)),
                runtime=runtime,
                resume=first.run.run_id,
                **QUIET,
            )
        again = await run(
            dataclasses.replace(suite, solver=Tries(2)),
            runtime=runtime,
            resume=first.run.run_id,
            **QUIET,
        )
    assert again.run.run_id == first.run.run_id
    assert suite.suite_hash == first.run.suite_hash


async def test_a_run_without_a_solver_cannot_be_resumed_with_one(farm, make_suite):
    def fails(request):
        return ProviderError("boom", status_code=500)

    suite = make_suite(1)
    async with farm(FakeProvider(fails)) as runtime:
        first = await run(suite, runtime=runtime, **QUIET)
        assert "solver" not in first.run.config
        with pytest.raises(EvalError, match="solver"):
            await run(
                dataclasses.replace(suite, solver=twice),
                runtime=runtime,
                resume=first.run.run_id,
                **QUIET,
            )


async def test_a_run_with_a_solver_cannot_be_resumed_without(farm, suite):
    async def fails(context):
        raise ValueError

    async with farm(FakeProvider(named)) as runtime:
        solved = dataclasses.replace(suite, solver=fails)
        first = await run(solved, runtime=runtime, **QUIET)
        with pytest.raises(EvalError, match=r"has the solver .*fails"):
            await run(suite, runtime=runtime, resume=first.run.run_id, **QUIET)


async def test_its_failure_is_data(farm, suite):
    async def solver(context):
        if context.task.id == "a":
            raise KeyError("plan")
        return "no solution"

    async with farm(FakeProvider(named)) as runtime:
        solved = dataclasses.replace(suite, solver=solver)
        result = await run(solved, runtime=runtime, **QUIET)
    first, second = result.samples
    assert result.run.status == "completed"
    assert (first.status, first.error_type) == ("error", "KeyError")
    assert first.latency_s is not None
    assert "solver" in second.error
    assert "returned a str" in second.error


async def test_a_dead_server_ends_the_run_as_without_a_solver(farm, suite):
    fake = FakeProvider(
        ProviderError("refused", retryable=True),
        health=Health(ok=False, detail="Nobody listens."),
    )
    async with farm(fake) as runtime:
        solved = dataclasses.replace(suite, solver=twice)
        with pytest.raises(ProviderError, match="refused"):
            await run(solved, runtime=runtime, concurrency=1, **QUIET)
        assert load_run(runtime.store).run.status == "failed"


async def test_cancelling_a_run_cancels_its_solvers(farm, suite):
    begun, ended = anyio.Event(), []

    async def solver(context):
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(context.task.id)

    solved = dataclasses.replace(suite, solver=solver)
    async with farm(FakeProvider(named)) as runtime:
        async with anyio.create_task_group() as group:
            group.start_soon(
                partial(run, solved, runtime=runtime, concurrency=1, **QUIET)
            )
            await begun.wait()
            group.cancel_scope.cancel()
        assert load_run(runtime.store).run.status == "interrupted"
    assert ended == ["a"]


@pytest.mark.parametrize("fields", [{"text": None}, {"text": "x", "metadata": [1]}])
def test_a_solution_that_could_not_be_kept_is_refused(fields):
    with pytest.raises(EvalError, match="A solution has"):
        Solution(**fields)


def test_files_change_a_suites_hash_and_references_do_not():
    task = Task(id="a", prompt="a", target="a", scorer=exact())
    plain = Suite(name="s", tasks=(task,))

    def changed(**fields):
        return Suite(name="s", tasks=(dataclasses.replace(task, **fields),))

    hashes = {
        suite.suite_hash
        for suite in (
            plain,
            changed(files={"a.py": "x"}),
            changed(files={"a.py": "y"}),
            changed(files={"b.py": "x"}),
        )
    }
    assert len(hashes) == 4
    assert changed(reference="a").suite_hash == plain.suite_hash
    # Runs of earlier versions can be resumed: this is what they kept.
    assert plain.suite_hash == "1473a7b4d798f23d"


async def test_a_run_that_needs_a_sandbox_does_not_begin_without(farm, echo):
    def in_sandbox(context):
        raise AssertionError

    in_sandbox.needs_sandbox = True
    suite = Suite(name="s", tasks=(Task(id="a", prompt="a", scorer=in_sandbox),))
    async with farm(echo) as runtime:
        nowhere = {
            "docker_host": "unix:///nowhere.sock",
            "sandbox": runtime.settings.sandbox.model_copy(
                update={"backend": "docker"}
            ),
        }
        settings = runtime.settings.model_copy(update=nowhere)
        with pytest.raises(SandboxUnavailable):
            await run(
                suite, runtime=dataclasses.replace(runtime, settings=settings), **QUIET
            )
        assert runtime.store.runs() == []
    assert echo.calls == []


async def test_a_sandbox_that_is_gone_ends_the_run_and_others_errors_do_not(
    farm, make_suite, echo
):
    def broken(error):
        def scorer(context):
            raise error

        return Suite(name="s", tasks=(Task(id="a", prompt="a", scorer=scorer),))

    async with farm(echo) as runtime:
        result = await run(broken(SandboxError("too big")), runtime=runtime, **QUIET)
        assert result.samples[0].error_type == "SandboxError"
        with pytest.raises(SandboxUnavailable):
            await run(broken(SandboxUnavailable("gone")), runtime=runtime, **QUIET)
        assert load_run(runtime.store).run.status == "failed"
