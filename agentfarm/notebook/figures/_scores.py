"""Figures of how well a model did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from agentfarm.notebook.figures import _style as style

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

# Right of the scores, so that an error is never read as a score.
_ERROR_X = 1.16


def score_by_task(samples: pd.DataFrame) -> go.Figure:
    """Mean score of every task, the best on top, with the tasks that failed.

    A sample without a score is no zero: it is left out of the mean and marked at
    the right. Several epochs show as points on their mean's bar, several runs as
    bars side by side.

    Args:
        samples: The samples frame of one or more runs; needs ``run_id``,
            ``task``, ``epoch``, ``status``, ``score``, ``output``, ``target``,
            ``explanation``, ``error_type`` and ``error``.

    Raises:
        EvalError: A column is missing.
    """
    needed = ("run_id", "task", "epoch", "status", "score", "output", "target")
    told = ("explanation", "error_type", "error")
    style.check_columns(samples, (*needed, *told), "score_by_task")
    if samples.empty:
        return style.blank("Score by task", f"No samples yet. {style.RUN_FIRST}")
    rows = samples.assign(
        score=style.numbers(samples, "score"),
        task=style.labels(samples["task"].tolist()),
    )
    figure = _draw_scores(rows)
    style.dress(figure, title="Score by task", notes=_score_notes(rows))
    return figure


def score_by_run(runs: pd.DataFrame) -> go.Figure:
    """Mean score of every run over time, one colour and symbol per model.

    Args:
        runs: The runs frame; needs ``run_id``, ``suite``, ``suite_hash``,
            ``model``, ``status``, ``started_at``, ``score`` and ``samples``
            (the number of samples). Scores compare within one suite only: the
            note says so where there are several, or where a suite has changed.

    Raises:
        EvalError: A column is missing.
    """
    needed = ("run_id", "suite", "suite_hash", "model", "status", "started_at")
    style.check_columns(runs, (*needed, "score", "samples"), "score_by_run")
    if runs.empty:
        return style.blank("Score by run", f"No runs yet. {style.RUN_FIRST}")
    rows = runs.assign(
        score=style.numbers(runs, "score"), at=style.times(runs, "started_at")
    ).sort_values("at", kind="stable")
    known = rows.dropna(subset="score")
    if known.empty:
        sentence = f"None of the {len(rows)} runs has a score yet. {style.RUN_FIRST}"
        return style.blank("Score by run", sentence)
    figure = go.Figure()
    for index, (model, group) in enumerate(known.groupby("model", sort=True)):
        _add_runs(figure, style.name(model), group, index)
    style.dress(figure, title="Score by run", notes=_run_notes(rows))
    figure.update_layout(height=360, showlegend=True)
    figure.update_xaxes(title="Started (UTC)", type="date")
    figure.update_yaxes(title="Mean score (0 to 1)", range=[-0.03, 1.05])
    return figure


def _draw_scores(rows: pd.DataFrame) -> go.Figure:
    """Bars per run, the epochs behind them, and what has no score."""
    tasks = _ranked(rows)
    runs = list(rows["run_id"].drop_duplicates())
    figure = go.Figure()
    for index, run_id in enumerate(runs):
        _add_bars(figure, rows[rows["run_id"] == run_id], run_id, tasks, index)
    if len(runs) == 1 and bool(rows.groupby("task")["score"].count().gt(1).any()):
        _add_epochs(figure, rows.dropna(subset="score"))
    _add_errors(figure, rows[rows["score"].isna()])
    figure.update_layout(
        barmode="group",
        height=style.height(140, len(tasks), 24 * max(1.0, 0.6 * len(runs))),
        showlegend=len(runs) > 1,
    )
    end = 1.3 if rows["score"].isna().any() else 1.08
    figure.update_xaxes(
        title="Score (0 to 1)", range=[0, end], tickvals=[0, 0.25, 0.5, 0.75, 1]
    )
    order = list(reversed(tasks))
    figure.update_yaxes(categoryorder="array", categoryarray=order, dtick=1)
    return figure


def _ranked(rows: pd.DataFrame) -> list[Any]:
    """Tasks from the best to the worst, those without a score last."""
    means = rows.groupby("task")["score"].mean()
    return sorted(means.index, key=lambda task: (-means.fillna(-1)[task], task))


def _add_bars(
    figure: go.Figure,
    rows: pd.DataFrame,
    run_id: Any,
    tasks: Sequence[Any],
    index: int,
) -> None:
    """One run's mean per task; a task without a score gets no bar."""
    groups = dict(list(rows.groupby("task")))
    shown = [task for task in tasks if task in groups and groups[task].score.count()]
    means = [float(groups[task]["score"].mean()) for task in shown]
    figure.add_bar(
        orientation="h",
        name=style.name(run_id),
        y=shown,
        x=means,
        text=[f"{mean:.2f}" for mean in means],
        textposition="outside",
        cliponaxis=False,
        marker=style.fill(index),
        hovertext=[_task_hover(task, groups[task]) for task in shown],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _add_runs(figure: go.Figure, label: str, rows: pd.DataFrame, index: int) -> None:
    """One model's runs; a run that did not complete is an open symbol."""
    symbol = style.cycle(style.SYMBOLS, index)
    complete = rows["status"] == "completed"
    figure.add_scatter(
        x=style.iso(rows["at"]),
        y=rows["score"].tolist(),
        name=label,
        mode="lines+markers",
        line={"color": style.cycle(style.SERIES, index), "width": 1},
        marker={
            "size": 11,
            "symbol": [symbol if done else f"{symbol}-open" for done in complete],
        },
        hovertext=[_run_hover(row) for row in rows.to_dict("records")],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _add_epochs(figure: go.Figure, rows: pd.DataFrame) -> None:
    """The single samples behind the mean."""
    figure.add_scatter(
        x=rows["score"].tolist(),
        y=rows["task"].tolist(),
        mode="markers",
        name="one epoch",
        marker={
            "symbol": "circle-open",
            "size": 9,
            "color": style.TEXT,
            "line": {"width": 2},
        },
        hovertext=[_sample_hover(row) for row in rows.to_dict("records")],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _add_errors(figure: go.Figure, rows: pd.DataFrame) -> None:
    """A cross per task with samples that have no score."""
    if rows.empty:
        return
    groups = list(rows.groupby("task"))
    figure.add_scatter(
        x=[_ERROR_X] * len(groups),
        y=[task for task, _ in groups],
        mode="markers+text",
        name="no score",
        text=[style.count(len(group), "error") for _, group in groups],
        textposition="middle right",
        textfont={"color": style.ERROR},
        cliponaxis=False,
        marker={"symbol": "x", "size": 9, "color": style.ERROR},
        hovertext=[_error_hover(task, group) for task, group in groups],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _score_notes(rows: pd.DataFrame) -> list[str]:
    known = rows["score"].dropna()
    notes = [style.count(len(rows), "sample")]
    if len(known) == len(rows):
        return [*notes, f"mean score {known.mean():.2f}"]
    missing = style.count(len(rows) - len(known), "error")
    if len(known):
        # A run's score counts an error as 0, so both means are told.
        notes.append(f"mean score {known.mean():.2f} without {missing}")
        notes.append(f"{known.sum() / len(rows):.2f} with them as 0")
        return notes
    return [*notes, f"{missing}, none has a score"]


def _run_notes(rows: pd.DataFrame) -> list[str]:
    notes = [style.count(len(rows), "run")]
    unknown = int(rows["score"].isna().sum())
    if unknown:
        notes.append(f"{unknown} without a score, not shown")
    if (rows["status"] != "completed").any():
        notes.append("open symbols: run not completed")
    if rows["suite"].nunique() > 1:
        notes.append("several suites: their scores do not compare")
    elif rows["suite_hash"].nunique() > 1:
        notes.append("the suite changed between runs: scores may not compare")
    return notes


def _task_hover(task: Any, rows: pd.DataFrame) -> str:
    if len(rows) == 1:
        return _sample_hover(rows.to_dict("records")[0])
    scored = int(rows["score"].count())
    return (
        f"<b>{task}</b><br>mean score {rows['score'].mean():.2f} "
        f"over {style.count(scored, 'sample')}, {len(rows) - scored} without a score"
    )


def _sample_hover(row: dict[Any, Any]) -> str:
    lines = [
        f"<b>{row['task']}</b>, epoch {row['epoch']}",
        f"score {row['score']:.2f}",
        f"expected: {style.prose(row['target'])}",
        f"answered: {style.prose(row['output'])}",
        style.prose(row["explanation"]),
    ]
    return "<br>".join(line for line in lines if line)


def _error_hover(task: Any, rows: pd.DataFrame) -> str:
    lines = [f"<b>{task}</b>: no score"]
    for row in rows.head(3).to_dict("records"):
        kind = style.name(row["error_type"], "no reason given")
        lines.append(f"epoch {row['epoch']}: {kind} {style.prose(row['error'])}")
    return "<br>".join(lines)


def _run_hover(row: dict[Any, Any]) -> str:
    return (
        f"<b>{style.name(row['run_id'])}</b>"
        f"<br>{style.name(row['suite'])} on {style.name(row['model'])}"
        f"<br>score {row['score']:.3f}, "
        f"{style.count(int(row['samples']), 'sample')}, {style.name(row['status'])}"
    )
