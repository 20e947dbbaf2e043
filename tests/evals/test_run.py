"""`run` against a scripted model and a real Store."""

import dataclasses

import anyio
import anyio.lowlevel
import pytest

from agentfarm.errors import (
    ConfigError,
    EvalError,
    ModelNotFound,
    ProviderError,
    RateLimited,
    StoreError,
)
from agentfarm.evals import Score, Suite, Task, exact, json_schema, load_run, run
from agentfarm.events import EventType
from agentfarm.llm import BreakerPolicy, Health, Usage
from agentfarm.llm.testing import Answer, FakeProvider

QUIET = {"progress": False}


def answers(request):
    return request.messages[-1].content.split()[-1]


def broken(message="boom", **fields):
    return ProviderError(message, **{"status_code": 500, **fields})


async def test_every_task_is_asked_scored_and_kept(farm, make_suite, echo):
    async with farm(echo) as runtime:
        result = await run(make_suite(5), runtime=runtime, **QUIET)
        kept = load_run(runtime.store, result.run.run_id)
    assert result.run.status == "completed"
    assert result.score == 1
    assert [sample.task for sample in result.samples] == ["t1", "t2", "t3", "t4", "t5"]
    assert [sample.output for sample in result.samples] == ["1", "2", "3", "4", "5"]
    assert kept.run == result.run
    assert kept.samples == result.samples
    assert kept.requests == result.requests
    assert {request.sample_id for request in result.requests} == {
        sample.sample_id for sample in result.samples
    }
    assert {request.run_id for request in result.requests} == {result.run.run_id}


async def test_the_record_says_what_was_run(farm, make_suite, echo):
    async with farm(echo, max_concurrency=3) as runtime:
        suite = make_suite(5, temperature=0.3)
        result = await run(suite, runtime=runtime, epochs=2, limit=4, seed=7, **QUIET)
    record = result.run
    assert (record.suite, record.suite_hash) == ("say", suite.suite_hash)
    assert (record.model, record.epochs, record.planned_samples) == ("fake", 2, 8)
    assert record.concurrency == 3
    assert record.config["temperature"] == 0.3
    assert (record.config["seed"], record.config["limit"]) == (7, 4)
    assert record.finished_at >= record.started_at
    assert record.pid
    assert record.hostname
    assert record.version
    assert {(s.task, s.epoch) for s in result.samples} == {
        (f"t{n}", epoch) for n in range(1, 5) for epoch in (1, 2)
    }


async def test_the_request_carries_the_tasks_settings(farm, echo):
    schema = {"type": "object"}
    echo.script = "{}"
    task = Task(
        id="a",
        prompt="?",
        system="Own",
        max_tokens=9,
        response_schema=schema,
        scorer=json_schema(),
    )
    suite = Suite(name="s", tasks=(task,), system="Suite", seed=5)
    async with farm(echo) as runtime:
        await run(suite, runtime=runtime, epochs=2, temperature=0.9, **QUIET)
    first, second = sorted(echo.requests, key=lambda request: request.seed)
    assert [turn.content for turn in first.messages] == ["Own", "?"]
    assert (first.max_tokens, first.temperature) == (9, 0.9)
    assert first.response_schema == schema
    assert (first.seed, second.seed) == (5, 6)
    assert first.context.sample_id != second.context.sample_id


async def test_concurrency_is_bounded_by_the_models_slots(farm, make_suite):
    fake = FakeProvider(lambda request: Answer(answers(request), first_delay_s=0.01))
    async with farm(fake, max_concurrency=3) as runtime:
        await run(make_suite(12), runtime=runtime, **QUIET)
    assert fake.max_active == 3


async def test_waiting_for_a_slot_is_no_latency(farm, make_suite):
    fake = FakeProvider(lambda request: Answer(answers(request), first_delay_s=0.05))
    async with farm(fake, max_concurrency=1) as runtime:
        result = await run(make_suite(4), runtime=runtime, concurrency=4, **QUIET)
    last = max(result.samples, key=lambda sample: sample.queue_s)
    assert last.queue_s >= 0.14
    assert last.latency_s < 0.1


async def test_a_scorers_failure_is_data(farm):
    async def slow(context):
        await anyio.lowlevel.checkpoint()
        return Score(value=0.5, explanation="half", metadata={"x": 1})

    def fails(context):
        raise ValueError("no idea")

    def wrong(context):
        return True

    def too_much(context):
        return Score(value=2)

    def unkept(context):
        return Score(value=1.0, explanation=None)

    scorers = {
        "slow": slow,
        "fails": fails,
        "wrong": wrong,
        "too_much": too_much,
        "unkept": unkept,
    }
    suite = Suite(
        name="s",
        tasks=tuple(
            Task(id=name, prompt="?", scorer=scorer, metadata={"category": "c"})
            for name, scorer in scorers.items()
        ),
    )
    async with farm(FakeProvider(Answer("hi there"))) as runtime:
        result = await run(suite, runtime=runtime, **QUIET)
    by_task = {sample.task: sample for sample in result.samples}
    assert result.run.status == "completed"
    assert (by_task["slow"].status, by_task["slow"].score) == ("ok", 0.5)
    assert by_task["slow"].metadata == {"category": "c", "x": 1, "answer": ""}
    assert by_task["slow"].scorer == "slow"
    for name, kind, words in [
        ("fails", "ValueError", "no idea"),
        ("wrong", "EvalError", "returned a bool"),
        ("too_much", "EvalError", "outside 0 to 1"),
        ("unkept", "EvalError", "explanation=None"),
    ]:
        sample = by_task[name]
        assert (sample.status, sample.score) == ("error", None)
        assert sample.error_type == kind
        assert words in sample.error
        assert sample.output == "hi there"
        assert sample.latency_s is not None
    assert result.errors == 4
    assert result.score == 0.5 / 5


async def test_what_a_scorer_adds_is_made_json(farm):
    class Odd:
        def __repr__(self):
            return "odd"

    def scorer(context):
        return Score(value=1, metadata={"odd": Odd(), "nan": float("nan"), "n": 1})

    suite = Suite(name="s", tasks=(Task(id="a", prompt="?", scorer=scorer),))
    async with farm(FakeProvider("x")) as runtime:
        result = await run(suite, runtime=runtime, **QUIET)
        kept = load_run(runtime.store, result.run.run_id)
    expected = {"odd": "odd", "nan": "nan", "n": 1, "answer": ""}
    assert kept.samples[0].metadata == expected


async def test_a_models_failure_is_data(farm, make_suite):
    cut = Answer("one two three", error=broken("cut"), error_after=2)
    fake = FakeProvider(["1", broken(), cut, RateLimited("busy", status_code=429), "5"])
    async with farm(fake, max_concurrency=1) as runtime:
        result = await run(make_suite(5), runtime=runtime, **QUIET)
    assert [sample.status for sample in result.samples] == [
        "ok",
        "error",
        "error",
        "error",
        "ok",
    ]
    boom, partial, busy = result.samples[1:4]
    assert (boom.error_type, boom.error, boom.output) == ("ProviderError", "boom", "")
    assert partial.output == "one two "
    assert busy.error_type == "RateLimited"
    assert boom.latency_s is None
    assert result.run.status == "completed"
    assert result.score == 2 / 5


async def test_measurements_are_kept(farm, make_suite):
    usage = Usage(input_tokens=11, output_tokens=3)
    answer = Answer("1 2 3", first_delay_s=0.02, gap_s=0.01, usage=usage)
    answer = dataclasses.replace(answer, context_truncated=True, warnings=("careful",))
    async with farm(FakeProvider(answer)) as runtime:
        result = await run(make_suite(1), runtime=runtime, **QUIET)
    sample = result.samples[0]
    assert sample.ttft_s >= 0.02
    assert sample.latency_s >= sample.ttft_s + 0.02
    assert (sample.input_tokens, sample.output_tokens) == (11, 3)
    rate = 2 / (sample.latency_s - sample.ttft_s)
    assert sample.output_tokens_per_s == pytest.approx(rate)
    assert sample.context_truncated
    assert sample.metadata["warnings"] == ["careful"]
    assert sample.finish_reason == "stop"


async def test_events_tell_the_run(farm, make_suite, echo):
    seen = []
    async with farm(echo, max_concurrency=1) as runtime:
        kinds = EventType.RUN_STARTED, EventType.SAMPLE_COMPLETED
        runtime.bus.on(seen.append, *kinds, EventType.RUN_COMPLETED)
        result = await run(make_suite(2), runtime=runtime, **QUIET)
    assert [event.type for event in seen] == [
        EventType.RUN_STARTED,
        EventType.SAMPLE_COMPLETED,
        EventType.SAMPLE_COMPLETED,
        EventType.RUN_COMPLETED,
    ]
    assert {event.run_id for event in seen} == {result.run.run_id}
    assert seen[0].data["planned_samples"] == 2
    assert [event.data["finished_samples"] for event in seen] == [0, 1, 2, 2]
    assert seen[1].data["score"] == 1
    assert seen[-1].data["status"] == "completed"


async def test_a_sample_is_in_the_store_when_it_counts_as_finished(
    farm, make_suite, echo
):
    kept = []
    async with farm(echo, max_concurrency=1) as runtime:

        def look(event):
            kept.append(len(runtime.store.samples(event.run_id)))

        runtime.bus.on(look, EventType.SAMPLE_COMPLETED)
        await run(make_suite(3), runtime=runtime, **QUIET)
    assert kept == [1, 2, 3]


async def test_an_unknown_model_is_refused_before_anything_is_kept(
    farm, make_suite, echo
):
    async with farm(echo) as runtime:
        with pytest.raises(ModelNotFound, match="Registered: fake"):
            await run(make_suite(), model="nope", runtime=runtime, **QUIET)
        assert runtime.store.runs() == []


@pytest.mark.parametrize(
    ("error", "health"),
    [
        (ModelNotFound("no such model", status_code=404), True),
        (ConfigError("no key"), True),
        (ProviderError("refused", status_code=401), True),
        (ProviderError("connection refused"), False),
    ],
)
async def test_a_hopeless_model_ends_the_run_at_once(farm, make_suite, error, health):
    fake = FakeProvider(error, health=Health(ok=health, detail=""))
    seen = []
    async with farm(fake, max_concurrency=2) as runtime:
        runtime.bus.on(seen.append, EventType.RUN_COMPLETED)
        with pytest.raises(type(error), match=error.message):
            await run(make_suite(20), runtime=runtime, **QUIET)
        record = runtime.store.run("latest")
    assert record.status == "failed"
    assert error.message in record.error
    assert len(fake.calls) <= 4
    assert [event.data["status"] for event in seen] == ["failed"]


async def test_silence_from_the_start_ends_the_run_soon(farm, make_suite):
    fake = FakeProvider(ProviderError("nobody there"))
    async with farm(fake, max_concurrency=1) as runtime:
        with pytest.raises(ProviderError, match="nobody there"):
            await run(make_suite(20), runtime=runtime, **QUIET)
    assert len(fake.calls) == 3


async def test_silence_later_is_data(farm, make_suite):
    down = Health(ok=False, detail="gone")
    fake = FakeProvider(["1"], default=ProviderError("nobody there"), health=down)
    async with farm(fake, max_concurrency=1) as runtime:
        result = await run(make_suite(5), runtime=runtime, **QUIET)
    assert (result.run.status, result.errors) == ("completed", 4)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_outage_costs_only_what_was_asked_meanwhile(
    farm, make_suite, concurrency
):
    gone = [ProviderError("nobody there", retryable=True)] * 3
    fake = FakeProvider(["1", *gone], default=Answer("x", first_delay_s=0.05))
    policy = BreakerPolicy(failures=2, open_s=0.2, max_open_s=0.2)
    async with farm(fake, max_concurrency=concurrency, breaker=policy) as runtime:
        result = await run(make_suite(12), runtime=runtime, **QUIET)
    errors = [sample.error for sample in result.samples if sample.error]
    assert errors == ["nobody there"] * 3
    assert len(fake.calls) == 12


async def test_an_outage_is_not_waited_for_without_end(farm, make_suite, monkeypatch):
    monkeypatch.setattr("agentfarm.evals._engine._OUTAGE_S", 0.3)
    gone = ProviderError("nobody there", retryable=True)
    policy = BreakerPolicy(failures=2, open_s=0.2, max_open_s=60.0)
    fake = FakeProvider(["1"], default=gone)
    async with farm(fake, max_concurrency=2, breaker=policy) as runtime:
        with anyio.fail_after(10), pytest.raises(EvalError) as caught:
            await run(make_suite(30), runtime=runtime, **QUIET)
        kept = load_run(runtime.store)
    assert "could not be asked" in str(caught.value)
    assert f"--resume {kept.run.run_id}" in str(caught.value)
    assert kept.run.status == "failed"
    assert 1 < len(kept.samples) < 10


async def test_a_pause_that_the_server_wants_is_kept(farm, make_suite):
    limited = RateLimited("slow down", retryable=True)
    limited.retry_after_s = 0.3
    fake = FakeProvider(["1", limited], default="x")
    async with farm(fake, max_concurrency=1) as runtime:
        result = await run(make_suite(8), runtime=runtime, **QUIET)
    assert result.run.status == "completed"
    assert [s.error for s in result.samples if s.error] == ["slow down"]
    assert len(fake.calls) == 8


async def test_a_store_that_fails_fails_the_run(farm, make_suite, echo, monkeypatch):
    async with farm(echo) as runtime:

        async def full(sample):
            raise StoreError("the disk is full")

        monkeypatch.setattr(
            type(runtime.store), "put_sample_async", lambda _, s: full(s)
        )
        with pytest.raises(StoreError, match="disk is full"):
            await run(make_suite(), runtime=runtime, **QUIET)
        assert runtime.store.run("latest").status == "failed"


@pytest.mark.parametrize(
    "fields",
    [{"epochs": 0}, {"limit": 0}, {"concurrency": 0}, {"temperature": -1.0}],
)
async def test_senseless_arguments_are_refused(farm, make_suite, echo, fields):
    async with farm(echo) as runtime:
        with pytest.raises(EvalError, match=next(iter(fields))):
            await run(make_suite(), runtime=runtime, **fields, **QUIET)


async def test_runtime_and_settings_exclude_each_other(
    farm, make_suite, echo, settings
):
    async with farm(echo) as runtime:
        with pytest.raises(EvalError, match="both a runtime and settings"):
            await run(make_suite(), runtime=runtime, settings=settings, **QUIET)


async def interrupted_run(runtime, fake, suite, *, after=2):
    """Run until `after` samples are kept and the next is in flight, then cancel."""
    async with anyio.create_task_group() as group:

        async def go():
            await run(suite, runtime=runtime, **QUIET)
            raise AssertionError

        group.start_soon(go)
        await fake.wait_until(lambda fake: len(fake.calls) > after and fake.active)
        group.cancel_scope.cancel()
    return runtime.store.run("latest")


def stuck_after(count):
    """A model that answers `count` requests and then never again."""
    never = anyio.Event()
    fake = FakeProvider()
    fake.script = lambda request: Answer(
        answers(request), hold=None if len(fake.calls) <= count else never
    )
    return fake


async def test_cancelling_keeps_what_finished_and_closes_what_runs(farm, make_suite):
    fake = stuck_after(2)
    seen = []
    async with farm(fake, max_concurrency=1) as runtime:
        runtime.bus.on(seen.append, EventType.INTERRUPT, EventType.RUN_COMPLETED)
        record = await interrupted_run(runtime, fake, make_suite(5))
        samples = runtime.store.samples(record.run_id)
    assert record.status == "interrupted"
    assert record.finished_at is not None
    assert [sample.task for sample in samples] == ["t1", "t2"]
    assert fake.cancelled == 1
    assert fake.active == 0
    assert [event.type for event in seen] == [EventType.INTERRUPT]
    assert seen[0].data["finished_samples"] == 2


async def test_resuming_asks_only_what_is_left(farm, make_suite):
    fake = stuck_after(2)
    suite = make_suite(5)
    async with farm(fake, max_concurrency=1) as runtime:
        record = await interrupted_run(runtime, fake, suite)
        fake.script = answers
        before = len(fake.calls)
        result = await run(suite, runtime=runtime, resume=record.run_id, **QUIET)
        kept = load_run(runtime.store, record.run_id)
    asked = [call.request.messages[-1].content for call in fake.calls[before:]]
    assert asked == ["say 3", "say 4", "say 5"]
    assert result.run.run_id == record.run_id
    assert result.run.status == "completed"
    assert result.run.started_at == record.started_at
    assert {sample.task for sample in result.samples} == {f"t{n}" for n in range(1, 6)}
    assert kept.run.status == "completed"
    assert [s.sample_id for s in kept.samples] == [s.sample_id for s in result.samples]


async def test_resuming_asks_failed_samples_again(farm, make_suite):
    fake = FakeProvider(["1", broken(), "3"], default="2")
    suite = make_suite(3)
    async with farm(fake, max_concurrency=1) as runtime:
        first = await run(suite, runtime=runtime, temperature=0.4, **QUIET)
        again = await run(suite, runtime=runtime, resume=first.run.run_id, **QUIET)
        assert len(runtime.store.samples(first.run.run_id)) == 3
    assert first.errors == 1
    assert (again.errors, again.score, len(again.samples)) == (0, 1, 3)
    assert len(fake.calls) == 4
    assert fake.requests[-1].temperature == 0.4


async def test_resuming_something_else_is_refused(farm, make_suite):
    fake = stuck_after(2)
    suite = make_suite(5)
    async with farm(fake, max_concurrency=1) as runtime:
        run_id = (await interrupted_run(runtime, fake, suite)).run_id
        for other, fields, words in [
            (make_suite(4), {}, "which is not say"),
            (suite, {"model": "other"}, "model='fake'"),
            (suite, {"epochs": 2}, "epochs=1"),
            (suite, {"limit": 2}, "limit=None"),
            (suite, {"temperature": 1.0}, "temperature=0.0"),
            (suite, {"seed": 9}, "seed=0"),
        ]:
            with pytest.raises(EvalError, match=words):
                await run(other, runtime=runtime, resume=run_id, **fields, **QUIET)
        with pytest.raises(StoreError):
            await run(suite, runtime=runtime, resume="zzz", **QUIET)
        assert runtime.store.run(run_id).status == "interrupted"


async def test_a_run_that_is_going_on_is_not_resumed(farm, make_suite):
    fake = stuck_after(0)
    suite = make_suite(2)
    async with farm(fake) as runtime, anyio.create_task_group() as group:
        group.start_soon(lambda: run(suite, runtime=runtime, **QUIET))
        await fake.wait_until(lambda fake: fake.active == 2)
        run_id = runtime.store.run("latest").run_id
        with pytest.raises(EvalError, match="still running in process"):
            await run(suite, runtime=runtime, resume=run_id, **QUIET)
        group.cancel_scope.cancel()


async def test_a_suite_may_be_named(farm):
    async with farm(FakeProvider("5")) as runtime:
        result = await run("smoke", runtime=runtime, limit=1, **QUIET)
    assert (result.run.suite, result.score) == ("smoke", 1)


async def test_answers_are_trimmed_for_scorers_only(farm):
    task = Task(id="a", prompt="?", target="x", scorer=exact(trim=False))
    suite = Suite(name="s", tasks=(task,))
    async with farm(FakeProvider(Answer(chunks=("\n x ",)))) as runtime:
        result = await run(suite, runtime=runtime, **QUIET)
    assert (result.score, result.samples[0].output) == (1, "\n x ")
