"""What people see while a run goes on, and that a display cannot harm it."""

import io
import sys

import pytest
from rich.console import Console

from agentfarm.evals import run
from agentfarm.evals._progress import (
    NotebookProgress,
    PlainProgress,
    Tally,
    TerminalProgress,
    make_progress,
)
from agentfarm.llm import Usage
from agentfarm.llm.testing import Answer, FakeProvider
from agentfarm.store import RunRecord, SampleRecord


def record(**fields):
    return RunRecord(
        **{
            "run_id": "r1",
            "suite": "say",
            "suite_hash": "h",
            "model": "fake",
            "status": "running",
            "started_at": 0.0,
            "planned_samples": 4,
            "epochs": 1,
            "concurrency": 1,
            **fields,
        }
    )


def sample(task="t1", score=1.0, **fields):
    return SampleRecord(
        **{
            "sample_id": f"r1-{task}-1",
            "run_id": "r1",
            "task": task,
            "epoch": 1,
            "status": "error" if score is None else "ok",
            "score": score,
            "input": "",
            "target": "",
            "output": "",
            "scorer": "exact",
            "started_at": 0.0,
            "finished_at": 0.0,
            **fields,
        }
    )


class Recorder:
    def __init__(self):
        self.seen = []

    def start(self, run, finished):
        self.seen.append(("start", run.status, len(finished)))

    def sample_started(self, task, epoch):
        self.seen.append(("started", task, epoch))

    def sample_finished(self, sample):
        self.seen.append(("finished", sample.task, sample.status))

    def stop(self, run):
        self.seen.append(("stop", run.status))


async def test_a_display_of_ones_own_is_told_everything(farm, make_suite, echo):
    seen = Recorder()
    async with farm(echo, max_concurrency=1) as runtime:
        await run(make_suite(2), runtime=runtime, progress=seen)
    assert seen.seen == [
        ("start", "running", 0),
        ("started", "t1", 1),
        ("finished", "t1", "ok"),
        ("started", "t2", 1),
        ("finished", "t2", "ok"),
        ("stop", "completed"),
    ]


@pytest.mark.parametrize(
    "method", ["start", "sample_started", "sample_finished", "stop"]
)
async def test_a_display_that_fails_does_not_end_the_run(
    farm, make_suite, echo, method
):
    class Broken(Recorder):
        pass

    def fail(self, *arguments):
        raise BrokenPipeError("gone")

    setattr(Broken, method, fail)
    async with farm(echo) as runtime:
        with pytest.warns(
            RuntimeWarning, match=f"its {method} raised BrokenPipe"
        ) as seen:
            result = await run(make_suite(3), runtime=runtime, progress=Broken())
    assert len(seen) == 1
    assert (result.run.status, len(result.samples)) == ("completed", 3)


async def test_plain_lines_go_to_stderr_and_are_few(farm, make_suite, echo, capsys):
    async with farm(echo) as runtime:
        await run(make_suite(100), runtime=runtime)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0].startswith("say on fake: 100 samples, run ")
    assert 10 <= len(lines) <= 12
    assert "100/100  score 1.00" in lines[-2]
    assert lines[-1].startswith("completed in ")


async def test_false_shows_nothing(farm, make_suite, echo, capsys):
    async with farm(echo) as runtime:
        await run(make_suite(3), runtime=runtime, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_resumed_run_says_what_is_kept():
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.start(record(), [sample(), sample("t2")])
    assert "4 samples, 2 kept, run r1" in stream.getvalue()
    progress.sample_started("t3", 1)
    progress.sample_finished(sample("t3", None, error_type="X"))
    assert "3/4  score 0.67  0.0 tok/s  errors 1  last t3" in stream.getvalue()


async def test_the_terminal_table_is_live_and_leaves_a_line(farm, make_suite):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    fake = FakeProvider(Answer("1 1", usage=Usage(output_tokens=4)))
    async with farm(fake) as runtime:
        await run(make_suite(3), runtime=runtime, progress=TerminalProgress(console))
    shown = text.getvalue()
    for word in ("say on fake", "done", "score", "output tok/s", "active", "left"):
        assert word in shown
    assert "say on fake: completed in 0:0" in shown.splitlines()[-1]
    assert "3/3  score 0.00" in shown


def test_the_terminal_table_shows_totals_and_last_samples():
    text = io.StringIO()
    console = Console(file=text, width=120)
    progress = TerminalProgress(console)
    progress.tally = Tally.of(record(), [])
    for one in (sample(latency_s=0.5), sample("[red]t2", None, error_type="Boom")):
        progress.sample_started(one.task, 1)
        progress.sample_finished(one)
    progress.sample_started("t3", 1)
    console.print(progress.render())
    shown = text.getvalue()
    assert "2/4" in shown
    assert "0.50" in shown
    assert "t3" in shown
    assert "1.00 t1  0.50 s" in shown
    assert "error [red]t2: Boom" in shown


def test_the_notebook_bar_counts_and_shows_the_score(capsys):
    progress = NotebookProgress()
    progress.start(record(), [sample()])
    for one in (sample("t2", 0.0), sample("t3", None)):
        progress.sample_started(one.task, 1)
        progress.sample_finished(one)
    progress.stop(record(status="interrupted"))
    shown = capsys.readouterr().err
    assert "say on fake" in shown
    assert "3/4" in shown
    assert "score=0.33" in shown
    assert "status=interrupted" in shown
    assert "Run r1 is interrupted" in shown
    assert "resume='r1'" in shown


def test_the_tally_counts_time_to_go_from_fresh_samples(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    tally = Tally.of(record(planned_samples=10), [sample()] * 4)
    tally.started = now[0]
    assert tally.remaining_s is None
    now[0] += 6
    for _ in range(3):
        tally.begin("t")
        tally.add(sample(output_tokens=8))
    assert tally.remaining_s == pytest.approx(6)
    assert tally.tokens_per_s == pytest.approx(4)
    assert tally.active == 0


def test_auto_suits_the_place(monkeypatch):
    assert make_progress(False) is None
    assert make_progress(None) is None
    assert isinstance(make_progress("auto"), PlainProgress)
    assert isinstance(make_progress(True), PlainProgress)
    own = Recorder()
    assert make_progress(own) is own
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert isinstance(make_progress("auto"), TerminalProgress)
