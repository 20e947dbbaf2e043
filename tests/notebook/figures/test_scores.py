import pandas as pd
import pytest

from agentfarm.errors import EvalError
from agentfarm.notebook import figures


def named(figure, name):
    [trace] = [trace for trace in figure.data if trace.name == name]
    return trace


def notes(figure):
    return figure.layout.title.subtitle.text


def test_tasks_stand_from_the_best_on_top_to_the_worst(samples):
    frame = samples(
        {"task": "b", "score": 0.0},
        {"task": "a", "score": 0.5},
        {"task": "c", "score": 1.0},
    )
    figure = figures.score_by_task(frame)
    assert dict(zip(figure.data[0].y, figure.data[0].x, strict=True)) == {
        "c": 1.0,
        "a": 0.5,
        "b": 0.0,
    }
    assert figure.layout.yaxis.categoryarray == ("b", "a", "c")  # drawn upwards
    assert figure.data[0].text == ("1.00", "0.50", "0.00")
    assert "Score" in figure.layout.xaxis.title.text
    assert notes(figure) == "3 samples · mean score 0.50"


def test_a_task_that_failed_has_a_cross_and_no_bar(samples):
    frame = samples(
        {"task": "good", "score": 1.0},
        {
            "task": "bad",
            "score": None,
            "error_type": "ProviderTimeout",
            "error": "No token within 300 s.",
        },
    )
    figure = figures.score_by_task(frame)
    assert figure.data[0].y == ("good",)
    cross = named(figure, "no score")
    assert cross.y == ("bad",)
    assert cross.x[0] > 1.0  # outside of the scores
    assert cross.marker.symbol == "x"
    assert "ProviderTimeout No token within 300 s." in cross.hovertext[0]
    assert "mean score 1.00 without 1 error · 0.50 with them as 0" in notes(figure)


def test_epochs_show_behind_their_mean(samples):
    frame = samples(
        {"task": "a", "epoch": 1, "score": 1.0}, {"task": "a", "epoch": 2, "score": 0.0}
    )
    figure = figures.score_by_task(frame)
    assert figure.data[0].x == (0.5,)
    assert named(figure, "one epoch").x == (1.0, 0.0)


def test_runs_stand_side_by_side(samples):
    frame = samples(
        {"task": "a", "score": 1.0},
        {"task": "a", "score": 0.25, "run_id": "run-b"},
        {"task": "only-b", "score": 0.5, "run_id": "run-b"},
    )
    figure = figures.score_by_task(frame)
    assert named(figure, "run-a").y == ("a",)
    assert named(figure, "run-b").x == (0.25, 0.5)
    assert figure.layout.barmode == "group"
    assert figure.layout.showlegend
    first, second = figure.data[:2]
    assert first.marker.color != second.marker.color
    assert first.marker.pattern.shape != second.marker.pattern.shape


def test_text_of_a_model_is_shown_and_not_obeyed(samples):
    frame = samples({"task": "<b>x</b>", "output": "<a href='x'>" + "y " * 400})
    figure = figures.score_by_task(frame)
    assert figure.data[0].y == ("&lt;b&gt;x&lt;/b&gt;",)
    hover = figure.data[0].hovertext[0]
    assert "&lt;a href" in hover
    assert "<a" not in hover
    assert len(hover) < 600


def test_runs_over_time_by_model_with_what_does_not_compare():
    frame = pd.DataFrame(
        {
            "run_id": ["c", "b", "a", "none"],
            "suite": "smoke",
            "suite_hash": ["2", "1", "1", "1"],
            "model": ["tiny", "big", "tiny", "tiny"],
            "status": ["interrupted", "completed", "completed", "failed"],
            "started_at": pd.to_datetime(
                ["2026-03-03", "2026-03-02", "2026-03-01", "2026-03-01"], utc=True
            ),
            "score": [0.25, 0.75, 0.5, None],
            "samples": [3, 20, 20, 0],
        }
    )
    figure = figures.score_by_run(frame)
    tiny = named(figure, "tiny")
    assert tiny.y == (0.5, 0.25)  # oldest first
    assert tiny.x[0] == "2026-03-01T00:00:00.000"
    closed, opened = tiny.marker.symbol
    assert opened == f"{closed}-open"
    assert named(figure, "big").marker.symbol != (closed,)
    assert "1 without a score, not shown" in notes(figure)
    assert "suite changed" in notes(figure)
    assert figures.score_by_run(frame.iloc[3:]).data == ()


def test_a_frame_without_a_column_is_named_with_it(samples):
    frame = samples({}).drop(columns=["score", "task"])
    with pytest.raises(EvalError, match=r"score_by_task.*no column task, score"):
        figures.score_by_task(frame)
