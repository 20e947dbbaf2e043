"""Scores, tables, JSON and frames of a run."""

import io
import json
import math

import pandas as pd
import pytest
from rich.console import Console

from agentfarm.errors import EvalError, StoreError
from agentfarm.evals import (
    EvalRun,
    Score,
    Suite,
    Task,
    load_run,
    requests_frame,
    run,
    run_summaries,
    runs_frame,
    samples_frame,
)
from agentfarm.events import RequestRecord
from agentfarm.llm.testing import FakeProvider
from agentfarm.store import RunRecord, SampleRecord

RUN = RunRecord(
    run_id="r1",
    suite="say",
    suite_hash="h",
    model="fake",
    status="completed",
    started_at=1_700_000_000.25,
    finished_at=1_700_000_003.5,
    planned_samples=4,
    epochs=2,
    concurrency=1,
    config={"temperature": 0.0},
)


def sample(task, epoch, score, **fields):
    values = {
        "sample_id": f"r1-{task}-{epoch}",
        "run_id": "r1",
        "task": task,
        "epoch": epoch,
        "status": "error" if score is None else "ok",
        "score": score,
        "input": "?",
        "target": "x",
        "output": "x",
        "scorer": "exact",
        "started_at": 1_700_000_000.0 + epoch,
        "finished_at": 1_700_000_001.0 + epoch,
    }
    return SampleRecord(**{**values, **fields})


def result(*samples, **fields):
    return EvalRun(run=RUN, samples=samples, **fields)


def printed(renderable):
    console = Console(file=io.StringIO(), width=110)
    console.print(renderable)
    return console.file.getvalue()


def test_errors_count_0_and_are_counted():
    four = [sample("a", 1, 1.0), sample("a", 2, None), sample("b", 1, 0.5)]
    one = result(*four, sample("b", 2, 0.5))
    assert one.score == 0.5
    assert one.errors == 1
    assert [task.score for task in one.tasks] == [0.5, 0.5]
    assert [task.status for task in one.tasks] == ["1 errors", "ok"]


def test_the_standard_error_is_over_tasks_and_not_epochs():
    rows = [sample(t, e, s) for t, s in (("a", 1.0), ("b", 0.0)) for e in (1, 2)]
    # Means 1 and 0: s = sqrt(0.5), and sqrt(0.5) / sqrt(2) = 0.5.
    assert result(*rows).score_stderr == pytest.approx(0.5)
    assert result(*rows[:2]).score_stderr is None
    assert result().score is None
    assert result().score_stderr is None


def test_a_tasks_epochs_are_put_together():
    rows = [
        sample("a", 1, 1.0, latency_s=1.0, ttft_s=0.1, output_tokens=3),
        sample("a", 2, 0.0, latency_s=2.0, ttft_s=None, output_tokens=5),
        sample("a", 3, None),
    ]
    task = result(*rows).tasks[0]
    assert (task.samples, task.errors) == (3, 1)
    assert task.score == pytest.approx(1 / 3)
    assert (task.latency_s, task.ttft_s) == (1.5, 0.1)
    assert (task.output_tokens, task.input_tokens) == (8, None)


def test_the_dictionary_is_json():
    row = sample("a", 1, 1.0, latency_s=0.5, output_tokens=3, metadata={"k": [1]})
    data = json.loads(json.dumps(result(row).to_dict(), allow_nan=False))
    assert (data["run_id"], data["suite"], data["score"]) == ("r1", "say", 1.0)
    assert data["config"] == {"temperature": 0.0}
    first = data["samples"][0]
    assert (first["task"], first["score"], first["latency_s"]) == ("a", 1.0, 0.5)
    assert (first["output_tokens"], first["input_tokens"]) == (3, None)
    assert first["metadata"] == {"k": [1]}


def test_the_table_has_every_measure():
    row = sample(
        "addition",
        1,
        1.0,
        latency_s=1.234,
        ttft_s=0.056,
        output_tokens_per_s=48.26,
        input_tokens=21,
        output_tokens=7,
    )
    text = printed(result(row, sample("b", 1, None, error_type="Boom", error="bang")))
    for part in ("addition", "1.00", "1234", "56", "48.3", "21", "7", "ok"):
        assert part in text
    assert "1 samples are errors and count 0" in text
    assert "b: Boom: bang" in text
    assert "Score 0.500 ± 0.500 (standard error), 2/4 samples" in text
    for head in ("score", "latency", "TTFT", "output", "tok/s", "tokens", "ms"):
        assert head in text


NASTY = "<script>alert(1)</script>[bold]x[/bold]\x1b[31mred\u202e"


def test_untrusted_text_takes_no_effect():
    rows = [
        sample("a<b>", 1, 1.0, output=NASTY),
        sample("[red]c", 1, None, error_type="E", error=NASTY),
    ]
    page = result(*rows)._repr_html_()
    assert "<script" not in page
    assert "<b>x" not in page
    assert "a&lt;b&gt;" in page
    assert "&lt;script&gt;" in page
    text = printed(result(*rows))
    assert "[red]c" in text
    assert "[bold]x[/bold]" in text
    for sign in ("\x1b", "\u202e"):
        assert sign not in text
        assert sign not in page


def test_a_failed_run_says_why():
    failed = RunRecord(
        **{
            **{name: getattr(RUN, name) for name in RunRecord.__slots__},
            "status": "failed",
            "error": "ModelNotFound: no <model>",
        }
    )
    one = EvalRun(run=failed, samples=())
    assert "The run failed. ModelNotFound: no <model>" in printed(one)
    assert "no &lt;model&gt;" in one._repr_html_()
    assert "failed, 0 samples, score -" in repr(one)


async def test_a_run_is_read_back_and_summed_up(farm, make_suite, echo):
    async with farm(echo) as runtime:
        first = await run(make_suite(2), runtime=runtime, progress=False)
        echo.script = "1"
        await run(make_suite(4, name="more"), runtime=runtime, progress=False)
        store = runtime.store
        assert load_run(store, first.run.run_id).score == 1
        assert load_run(store).run.suite == "more"
        rows = run_summaries(store)
        assert [(row.run.suite, row.score, row.samples) for row in rows] == [
            ("more", 0.25, 4),
            ("say", 1.0, 2),
        ]
        assert [row.run.suite for row in run_summaries(store, suite="say")] == ["say"]
        data = json.loads(json.dumps(rows[0].to_dict()))
        assert (data["suite"], data["score"], data["errors"]) == ("more", 0.25, 0)
        with pytest.raises(StoreError):
            load_run(store, "zzz")


ENERGY = ["energy_j", "energy_above_idle_j", "throttled", "max_gpu_temperature_c"]


def names(kind):
    return list(kind.__dataclass_fields__)


async def test_frames_have_every_field_with_its_type(farm):
    def scorer(context):
        if context.task.id == "bad":
            raise ValueError("bad")
        return Score(value=1)

    tasks = tuple(Task(id=name, prompt="?", scorer=scorer) for name in ("good", "bad"))
    async with farm(FakeProvider("x"), max_concurrency=1) as runtime:
        done = await run(Suite(name="s", tasks=tasks), runtime=runtime, progress=False)
        runs = runs_frame(runtime.store)
        samples = samples_frame(runtime.store, done.run.run_id)
        requests = requests_frame(runtime.store, "latest")
        with pytest.raises(EvalError, match="no run_id"):
            samples_frame(runtime.store)
    assert list(runs) == [*names(RunRecord), "score", "samples"]
    assert list(samples) == [*names(SampleRecord), *ENERGY]
    assert list(requests) == names(RequestRecord)
    assert (runs.score[0], runs.samples[0]) == (0.5, 2)
    assert list(samples.task) == ["good", "bad"]
    assert samples.score.dtype == "float64"
    assert math.isnan(samples.score[1])
    assert samples.input_tokens.dtype == "Int64"
    assert samples.epoch.dtype == "int64"
    assert samples.tokens_estimated.dtype == "bool"
    assert samples.error[0] is None
    assert samples[["energy_j", "energy_above_idle_j"]].dtypes.eq("float64").all()
    assert samples[ENERGY].isna().all(axis=None), "nobody sampled the hardware"
    for frame in (runs, samples):
        for column in ("started_at", "finished_at"):
            assert str(frame[column].dtype) == "datetime64[ns, UTC]"
    start = pd.Timestamp(done.run.started_at, unit="s", tz="UTC")
    assert abs(runs.started_at[0] - start) < pd.Timedelta("1us")
    assert str(requests.started_at.dtype) == "datetime64[ns, UTC]"
    assert list(requests.sample_id) == list(samples.sample_id)
    pd.testing.assert_frame_equal(done.samples_frame(), samples)
    pd.testing.assert_frame_equal(done.requests_frame(), requests)


async def test_empty_frames_keep_columns_and_types(farm, echo):
    async with farm(echo) as runtime:
        runs = runs_frame(runtime.store)
    full = result(sample("a", 1, 1.0)).samples_frame()
    empty = result().samples_frame()
    assert list(runs) == [*names(RunRecord), "score", "samples"]
    assert len(runs) == len(empty) == 0
    assert list(empty.dtypes) == list(full.dtypes)
    assert list(result().requests_frame()) == names(RequestRecord)
