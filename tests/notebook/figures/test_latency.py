import numpy as np
import pytest

from agentfarm.errors import EvalError
from agentfarm.notebook import figures


def names(figure):
    return [trace.name for trace in figure.data]


def notes(figure):
    return figure.layout.title.subtitle.text


def test_percentiles_interpolate_linearly_over_what_succeeded(requests):
    frame = requests(
        *({"latency_s": float(value)} for value in range(1, 11)),
        {"latency_s": 500.0, "status": "error"},
        {"latency_s": 600.0, "status": "cancelled"},
    )
    figure = figures.latency_histogram(frame)
    lines = {trace.name: trace.x[0] for trace in figure.data if trace.type == "scatter"}
    # Ranks 0.50, 0.95 and 0.99 of the way from the 1st to the 10th of 1, 2, … 10.
    assert lines == {
        "p50 5.5 s": pytest.approx(5.5),
        "p95 9.55 s": pytest.approx(9.55),
        "p99 9.91 s": pytest.approx(9.91),
    }
    assert "1 failed, not in the percentiles" in notes(figure)
    assert "1 cancelled, not in the percentiles" in notes(figure)


def test_every_known_latency_stands_in_one_bar_of_its_outcome(requests):
    frame = requests(
        *({"latency_s": 0.1 + 0.01 * index} for index in range(30)),
        {"latency_s": 0.2, "status": "error"},
        {"latency_s": float("nan")},
    )
    figure = figures.latency_histogram(frame)
    bars = {bar.name: bar for bar in figure.data if bar.type == "bar"}
    assert sum(bars["ok (30)"].y) == 30
    assert sum(bars["failed (1)"].y) == 1
    assert bars["failed (1)"].marker.color != bars["ok (30)"].marker.color
    assert bars["failed (1)"].marker.pattern.shape
    assert "1 of unknown latency, not shown" in notes(figure)
    assert figure.layout.xaxis.title.text.endswith("(s)")


@pytest.mark.parametrize("latency_s", [0.0, 0.25, 1200.0])
def test_requests_of_one_latency_make_one_bar(requests, latency_s):
    figure = figures.latency_histogram(requests(*[{"latency_s": latency_s}] * 3))
    assert figure.data[0].y == (3,)
    assert figure.data[0].x[0] == pytest.approx(latency_s)
    assert figure.data[0].width > 0


def test_only_failures_draw_without_percentiles(requests):
    figure = figures.latency_histogram(requests({"status": "error"}))
    assert names(figure) == ["failed (1)"]


def test_first_token_leaves_out_what_is_unknown_and_takes_loading_off(requests):
    frame = requests(
        {"ttft_s": 2.0, "load_s": 1.5},
        {"ttft_s": 0.1},
        {"ttft_s": 0.3},
        {"ttft_s": 0.2, "model": "big"},
        {"ttft_s": None, "status": "error"},
    )
    figure = figures.ttft(frame)
    assert names(figure) == ["big", "tiny"]
    tiny = figure.data[1]
    assert sorted(tiny.x[0]) == pytest.approx([0.1, 0.3, 0.5])
    assert tiny.median[0] == pytest.approx(0.3)
    assert tiny.q1[0] == pytest.approx(np.percentile([0.1, 0.3, 0.5], 25))
    assert "1 without a first token, not shown" in notes(figure)
    assert "model load of up to 1.5 s taken off 1" in notes(figure)
    assert figure.layout.xaxis.title.text.endswith("(s)")


def test_first_token_by_task_and_by_a_column_with_gaps(samples, requests):
    by_task = figures.ttft(samples({"task": "b"}, {"task": "a"}), by="task")
    assert names(by_task) == ["a", "b"]
    by_agent = figures.ttft(requests({"agent": "planner"}, {}), by="agent")
    assert names(by_agent) == ["no agent", "planner"]


def test_a_column_that_is_not_there_is_named(requests):
    with pytest.raises(EvalError, match=r"ttft\(\).*no column task.*samples_frame"):
        figures.ttft(requests({}), by="task")
    with pytest.raises(EvalError, match="latency_s"):
        figures.latency_histogram(requests({}).drop(columns="latency_s"))
