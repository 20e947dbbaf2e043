"""The tracker's numbers, checked against numpy, pandas and plain arithmetic."""

import json
import random
import statistics
import subprocess
import sys
import threading
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from agentfarm.errors import AgentFarmError
from agentfarm.events import EventBus, EventType, RequestRecord
from agentfarm.monitoring import PerformanceTracker


def record(number: int = 0, **values) -> RequestRecord:
    defaults = {
        "request_id": f"r{number}",
        "model": "smol",
        "provider": "fake",
        "host": "http://127.0.0.1",
        "started_at": 1e9 + number,
        "status": "ok",
        "latency_s": 1.0,
    }
    return RequestRecord(**{**defaults, **values})


def random_records(count: int, seed: int) -> list[RequestRecord]:
    rng = random.Random(seed)  # noqa: S311 - made-up values

    def maybe(value):
        return None if rng.random() < 0.1 else value

    return [
        record(
            i,
            model=rng.choice(["a", "b"]),
            agent=rng.choice(["planner", "reviewer", None]),
            status=rng.choices(["ok", "error", "cancelled"], (8, 1, 1))[0],
            latency_s=rng.lognormvariate(0, 1),
            input_tokens=maybe(rng.randrange(5000)),
            output_tokens=maybe(rng.randrange(900)),
            tokens_estimated=rng.random() < 0.2,
            ttft_s=maybe(rng.random()),
            output_tokens_per_s=maybe(rng.uniform(1, 99)),
            inter_chunk_p50_s=maybe(rng.random()),
            inter_chunk_p95_s=maybe(rng.random()),
            inter_chunk_max_s=maybe(rng.random()),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101, 1000])
def test_percentiles_are_those_of_numpy_pandas_and_statistics(count):
    rng = random.Random(count)  # noqa: S311 - made-up values
    values = [rng.lognormvariate(0, 1) for _ in range(count)]
    tracker = PerformanceTracker()
    for i, value in enumerate(values):
        tracker.record(record(i, latency_s=value, ttft_s=value / 2))
    stats = tracker.snapshot().overall
    got = [stats.latency_p50_s, stats.latency_p95_s, stats.latency_p99_s]
    assert got == pytest.approx(np.percentile(values, [50, 95, 99]), rel=1e-12)
    assert got == pytest.approx(
        pd.Series(values).quantile([0.5, 0.95, 0.99]).tolist(), rel=1e-12
    )
    if count > 1:
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        assert got == pytest.approx([cuts[49], cuts[94], cuts[98]], rel=1e-12)
    assert stats.ttft_p95_s == pytest.approx(stats.latency_p95_s / 2, rel=1e-12)
    assert stats.latency_avg_s == pytest.approx(statistics.fmean(values))


@pytest.mark.parametrize("seed", range(3))
def test_every_number_of_every_group_agrees_with_pandas(seed):
    records = random_records(700, seed)
    tracker = PerformanceTracker(window=200)
    for item in records:
        tracker.record(item)
    shot = tracker.snapshot()
    groups = [(shot.overall, records)]
    groups += [
        (stats, [r for r in records if r.model == name])
        for name, stats in shot.by_model.items()
    ]
    groups += [
        (stats, [r for r in records if r.agent == name])
        for name, stats in shot.by_agent.items()
    ]
    assert set(shot.by_model) == {"a", "b"}
    assert set(shot.by_agent) == {"planner", "reviewer"}
    for stats, everything in groups:
        frame = pd.DataFrame(
            [{f: getattr(r, f) for f in r.__dataclass_fields__} for r in everything]
        )
        rows = frame.tail(200)
        ok = rows[rows.status == "ok"]
        assert stats.requests == 200
        assert stats.succeeded == len(ok)
        assert stats.failed == (rows.status == "error").sum()
        assert stats.cancelled == (rows.status == "cancelled").sum()
        assert stats.success_rate == pytest.approx(
            len(ok) / (rows.status != "cancelled").sum()
        )
        assert stats.input_tokens == rows.input_tokens.sum()
        assert stats.output_tokens == rows.output_tokens.sum()
        assert stats.unknown_input == rows.input_tokens.isna().sum()
        assert stats.unknown_output == rows.output_tokens.isna().sum()
        assert stats.estimated_tokens == rows.tokens_estimated.sum()
        assert stats.latency_avg_s == pytest.approx(ok.latency_s.mean())
        assert stats.latency_p99_s == pytest.approx(ok.latency_s.quantile(0.99))
        assert stats.ttft_avg_s == pytest.approx(ok.ttft_s.mean())
        assert stats.ttft_p50_s == pytest.approx(ok.ttft_s.median())
        assert stats.ttft_p95_s == pytest.approx(ok.ttft_s.quantile(0.95))
        assert stats.ttft_p99_s == pytest.approx(ok.ttft_s.quantile(0.99))
        assert stats.output_tokens_per_s == pytest.approx(
            ok.output_tokens_per_s.median()
        )
        assert stats.inter_chunk_p50_s == pytest.approx(ok.inter_chunk_p50_s.median())
        assert stats.inter_chunk_p95_s == pytest.approx(ok.inter_chunk_p95_s.median())
        assert stats.inter_chunk_max_s == ok.inter_chunk_max_s.max()
        wall_s = (rows.started_at + rows.latency_s).max() - rows.started_at.min()
        assert stats.throughput_tokens_per_s == pytest.approx(
            rows.output_tokens.sum() / wall_s
        )
        life = stats.lifetime
        assert life.requests == len(frame)
        assert life.succeeded == (frame.status == "ok").sum()
        assert life.failed == (frame.status == "error").sum()
        assert life.cancelled == (frame.status == "cancelled").sum()
        assert life.input_tokens == frame.input_tokens.sum()
        assert life.output_tokens == frame.output_tokens.sum()
        assert life.unknown_input == frame.input_tokens.isna().sum()
        assert life.unknown_output == frame.output_tokens.isna().sum()


def test_unknown_tokens_are_counted_and_never_zero():
    tracker = PerformanceTracker()
    tracker.record(record(1))
    stats = tracker.snapshot().overall
    assert stats.input_tokens is None
    assert stats.output_tokens is None
    assert stats.throughput_tokens_per_s is None
    assert stats.output_tokens_per_s is None
    assert (stats.unknown_input, stats.unknown_output) == (1, 1)
    tracker.record(record(2, input_tokens=0, output_tokens=7))
    stats = tracker.snapshot().overall
    assert (stats.input_tokens, stats.output_tokens) == (0, 7)
    assert (stats.unknown_input, stats.unknown_output) == (1, 1)


def test_cancelled_requests_are_no_failures():
    tracker = PerformanceTracker()
    tracker.record(record(1))
    tracker.record(record(2, status="cancelled", latency_s=99))
    stats = tracker.snapshot().overall
    assert (stats.success_rate, stats.cancelled, stats.failed) == (1.0, 1, 0)
    assert stats.latency_p99_s == 1.0
    tracker.record(record(3, status="error", latency_s=0.001))
    stats = tracker.snapshot().overall
    assert stats.success_rate == 0.5
    assert stats.latency_p50_s == 1.0


def test_only_cancelled_requests_give_no_rate():
    tracker = PerformanceTracker()
    tracker.record(record(status="cancelled"))
    stats = tracker.snapshot().overall
    assert stats.success_rate is None
    assert stats.latency_p50_s is None


def test_looking_between_requests_changes_nothing():
    looked, fresh = PerformanceTracker(window=5), PerformanceTracker(window=5)
    for number in range(24):
        made = record(
            model=f"m{number % 2}",
            agent=f"a{number % 3}",
            latency_s=1.0 + number,
            status="error" if number % 5 == 0 else "ok",
        )
        looked.record(made)
        fresh.record(made)
        seen = looked.snapshot()
    expected = fresh.snapshot()
    assert seen.overall == expected.overall
    assert seen.by_model == expected.by_model
    assert seen.by_agent == expected.by_agent


async def test_follows_the_bus_and_knows_what_is_active():
    tracker = PerformanceTracker(window=10)
    async with EventBus() as bus:
        subscription = tracker.attach(bus)
        ids = {"agent": "planner", "request_id": "r1"}
        bus.emit(EventType.LLM_REQUEST, {"model": "smol"}, **ids)
        bus.emit(EventType.LLM_REQUEST, {"model": "other"}, request_id="r2")
        shot = tracker.snapshot()
        assert shot.overall.active == 2
        assert shot.by_model["smol"].active == 1
        assert shot.by_agent["planner"].active == 1
        assert shot.overall.requests == 0

        done = record(1, agent="planner", output_tokens=5)
        bus.emit(EventType.LLM_RESPONSE, {"record": done, "text": "x"}, **ids)
        failed = record(2, model="other", status="error")
        bus.emit(EventType.LLM_ERROR, {"record": failed}, request_id="r2")
        bus.emit(EventType.LLM_STREAM_CHUNK, {"text": "x"}, request_id="r2")
        shot = tracker.snapshot()
        assert shot.overall.active == 0
        assert (shot.overall.succeeded, shot.overall.failed) == (1, 1)
        assert shot.by_agent["planner"].output_tokens == 5
        assert shot.by_model["other"].success_rate == 0.0
        assert subscription.failed == 0

        subscription.close()
        bus.emit(EventType.LLM_RESPONSE, {"record": done}, **ids)
        assert tracker.snapshot().overall.requests == 2


async def test_an_end_without_a_record_ends_the_request():
    tracker = PerformanceTracker()
    async with EventBus() as bus:
        tracker.attach(bus)
        bus.emit(EventType.LLM_REQUEST, {"model": "smol"}, request_id="r1")
        bus.emit(EventType.LLM_ERROR, {"error": "gone"}, request_id="r1")
        assert tracker.snapshot().overall.active == 0


def test_the_number_of_groups_is_bounded():
    tracker = PerformanceTracker(window=5)
    for i in range(600):
        tracker.record(record(i, model=f"m{i}", agent=f"a{i}"))
    shot = tracker.snapshot()
    assert len(shot.by_model) == len(shot.by_agent) == 257
    assert shot.by_model["(others)"].lifetime.requests == 600 - 256
    assert shot.overall.lifetime.requests == 600
    assert sum(s.lifetime.requests for s in shot.by_agent.values()) == 600


@pytest.fixture
def often():
    """Switch between threads so often that a race shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("often")
def test_threads_lose_no_record():
    tracker = PerformanceTracker(window=100)

    together = threading.Barrier(4)

    def work() -> None:
        together.wait(5)
        for i in range(2000):
            # New pairs all the time, since a group is made at its first record.
            pair = {"model": f"m{i % 40}", "agent": f"a{i % 50}"}
            tracker.record(record(i, **pair, input_tokens=1, output_tokens=2))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tracker.snapshot()
        threads[0].join(0.01)
    for thread in threads:
        thread.join()
    life = tracker.snapshot().overall.lifetime
    assert (life.requests, life.input_tokens, life.output_tokens) == (8000, 8000, 16000)


def test_a_window_of_nothing_is_refused():
    with pytest.raises(AgentFarmError, match="window >= 1"):
        PerformanceTracker(window=0)


def shown(value, width=200) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(value)
    return " ".join(capture.get().split())


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def test_the_empty_snapshot_says_what_to_do():
    shot = PerformanceTracker().snapshot()
    assert "Run an evaluation" in shown(shot)
    assert "Run an evaluation" in shot._repr_html_()
    assert "<table" not in shot._repr_html_()
    assert "Run an evaluation" in shown(shot.overall)


async def test_the_empty_snapshot_mentions_what_runs():
    tracker = PerformanceTracker()
    async with EventBus() as bus:
        tracker.attach(bus)
        bus.emit(EventType.LLM_REQUEST, {"model": "smol"}, request_id="r1")
        assert "1 under way" in shown(tracker.snapshot())


def test_tables_show_groups_units_and_what_is_unknown():
    tracker = PerformanceTracker()
    for i in range(200):
        tracker.record(
            record(
                i,
                model="<b>smol</b>",
                agent="[red]planner",
                latency_s=2.0,
                ttft_s=0.25,
                output_tokens=10 if i else None,
                output_tokens_per_s=42.0,
                status="error" if i == 7 else "ok",
            )
        )
    shot = tracker.snapshot()
    text, html = shown(shot), shot._repr_html_()
    assert "model <b>smol</b>" in text
    assert "agent [red]planner" in text
    parser = Cells()
    parser.feed(html)
    assert "b" not in parser.tags
    assert "model <b>smol</b>" in parser.cells
    for wanted in ("2.00 / 2.00 / 2.00 s", "250 / 250 / 250 ms", "42.0", "> 99 %"):
        assert wanted in text
        assert wanted in parser.cells
    assert "1,990 (unknown in 1 requests)" in parser.cells
    assert "unknown" in parser.cells
    assert "≥ 1,990" in text
    assert "some requests are unknown" in text


def test_the_terminal_table_fits_80_characters():
    tracker = PerformanceTracker()
    for i in range(50):
        tracker.record(
            record(
                i,
                latency_s=12.5,
                ttft_s=10.5,
                input_tokens=999_999,
                output_tokens_per_s=123.4,
                inter_chunk_p50_s=0.0123,
                agent="planner",
            )
        )
    text = shown(tracker.snapshot(), width=80)
    assert "12.50 / 12.50 / 12.50 s" in text
    assert "10.50 / 10.50 / 10.50 s" in text
    assert "49,999,950" in text
    assert "12.3 ms" in text
    assert "…" not in text


def test_a_full_window_says_so():
    tracker = PerformanceTracker(window=2)
    for i in range(3):
        tracker.record(record(i))
    assert "latest 2 of each group, 3 in all" in tracker.snapshot()._repr_html_()


def test_to_dict_is_json_and_complete():
    tracker = PerformanceTracker()
    for item in random_records(50, 1):
        tracker.record(item)
    shot = tracker.snapshot()
    data = json.loads(json.dumps(shot.to_dict()))
    assert data["overall"]["requests"] == 50
    assert data["overall"]["lifetime"]["requests"] == 50
    assert data["by_model"]["a"]["latency_p99_s"] == shot.by_model["a"].latency_p99_s
    assert set(data) == {"taken_at", "window", "overall", "by_model", "by_agent"}


def test_importing_and_recording_load_neither_numpy_nor_rich():
    code = (
        "import sys, agentfarm.monitoring as m; m.PerformanceTracker();"
        "print([n for n in ('numpy', 'pandas', 'rich') if n in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
