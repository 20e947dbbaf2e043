"""Figures of how long requests took."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from agentfarm.notebook.figures import _style as style

_OUTCOMES = (
    ("ok", "ok", style.BLUE, ""),
    ("error", "failed", style.ERROR, "x"),
    ("cancelled", "cancelled", style.ORANGE, "/"),
)
_PERCENTILES = ((50, "solid"), (95, "dash"), (99, "dot"))
_MAX_BINS = 50


def latency_histogram(requests: pd.DataFrame) -> go.Figure:
    """How long requests took end to end, with p50, p95 and p99.

    The percentiles are those of the requests that succeeded, interpolated
    linearly between ranks (numpy's default, Hyndman and Fan's type 7). Failed and
    cancelled requests stack on top in their own colour and pattern.

    Args:
        requests: The requests frame; needs ``status`` and ``latency_s``.

    Raises:
        EvalError: A column is missing.
    """
    title = "Request latency"
    style.check_columns(requests, ("status", "latency_s"), "latency_histogram")
    if requests.empty:
        return style.blank(title, f"No requests yet. {style.RUN_FIRST}")
    rows = requests.assign(latency_s=style.numbers(requests, "latency_s"))
    if rows["latency_s"].isna().all():
        sentence = f"None of the {style.count(len(rows), 'request')} has a known"
        return style.blank(title, f"{sentence} latency. {style.RUN_FIRST}")
    figure = _draw_latencies(rows)
    style.dress(figure, title=title, notes=_latency_notes(rows))
    figure.update_layout(barmode="stack", bargap=0.04, height=400, showlegend=True)
    figure.update_xaxes(title="Latency, to the last token (s)", rangemode="tozero")
    figure.update_yaxes(title="Requests", rangemode="tozero")
    return figure


def ttft(frame: pd.DataFrame, *, by: str = "model") -> go.Figure:
    """Time to first token: every request a point, quartiles as a box per group.

    The time a server spent on loading the model is taken off and reported in the
    note, since it says nothing about the model. Quartiles interpolate linearly;
    whiskers reach from the least to the greatest value.

    Args:
        frame: The requests frame, or the samples frame with ``by="task"``; needs
            ``ttft_s``, ``load_s`` and the column named by `by`.
        by: What to compare: ``model``, ``agent``, ``host``, ``task``, ….

    Raises:
        EvalError: A column is missing.
    """
    title = "Time to first token"
    style.check_columns(frame, ("ttft_s", "load_s", by), "ttft")
    if frame.empty:
        return style.blank(title, f"No requests yet. {style.RUN_FIRST}")
    rows = _waits(frame, by)
    known = rows.dropna(subset="wait_s")
    if known.empty:
        sentence = f"None of the {style.count(len(rows), 'request')} got a first"
        remedy = "Look at the column error, or ask for more than 0 tokens."
        return style.blank(title, f"{sentence} token. {remedy}")
    groups = list(known.groupby("group", sort=True)["wait_s"])
    figure = go.Figure()
    for index, (label, values) in enumerate(groups):
        # Many groups are one kind of thing, say tasks: they share a colour.
        colour = style.cycle(style.SERIES, index if len(groups) <= 5 else 0)
        _add_box(figure, str(label), values, colour)
    style.dress(figure, title=f"{title} by {by}", notes=_wait_notes(rows))
    figure.update_layout(
        height=style.height(140, max(4, len(groups)), 30), showlegend=False
    )
    figure.update_xaxes(title="Time to first token (s)", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", dtick=1)
    return figure


def _waits(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Per request its group, its load time and its wait without it, seconds."""
    load_s = style.numbers(frame, "load_s").fillna(0.0)
    wait_s = (style.numbers(frame, "ttft_s") - load_s).clip(lower=0.0)
    group = style.labels(frame[by].tolist(), f"no {by}")
    return pd.DataFrame({"wait_s": wait_s, "load_s": load_s, "group": group})


def _draw_latencies(rows: pd.DataFrame) -> go.Figure:
    """Bars per outcome and the percentiles of what succeeded."""
    known = rows.dropna(subset="latency_s")
    figure = go.Figure()
    edges = _bin_edges(known["latency_s"].to_numpy())
    tallest = _add_histogram(figure, known, edges)
    succeeded = known.loc[known["status"] == "ok", "latency_s"]
    if len(succeeded):
        _add_percentiles(figure, succeeded, tallest)
    return figure


def _bin_edges(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Edges of equal bins, about as many as the root of the number of values."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        half = max(low * 0.05, 0.0005)
        return np.array([low - half, low + half])
    bins = int(min(_MAX_BINS, max(5, np.ceil(np.sqrt(len(values)) * 1.5))))
    return np.linspace(low, high, bins + 1)


def _add_histogram(
    figure: go.Figure, rows: pd.DataFrame, edges: np.ndarray[Any, Any]
) -> int:
    """Stack the outcomes over common bins; returns the tallest stack."""
    stack = np.zeros(len(edges) - 1, dtype=int)
    spans = [
        f"{style.seconds(low)} to {style.seconds(high)}"
        for low, high in pairwise(edges)
    ]
    for status, label, colour, pattern in _OUTCOMES:
        values = rows.loc[rows["status"] == status, "latency_s"]
        if values.empty:
            continue
        heights, _ = np.histogram(values, edges)
        stack += heights
        figure.add_bar(
            name=f"{label} ({len(values)})",
            x=((edges[:-1] + edges[1:]) / 2).tolist(),
            y=heights.tolist(),
            width=float(edges[1] - edges[0]) * 0.96,
            marker=style.hatched(colour, pattern),
            hovertext=spans,
            hovertemplate=f"%{{hovertext}}<br>%{{y}} {label}<extra></extra>",
        )
    return int(stack.max())


def _add_percentiles(figure: go.Figure, values: pd.Series[float], tallest: int) -> None:
    """Upright lines; their values stand in the legend, where they never overlap."""
    for percentile, dash in _PERCENTILES:
        at_s = float(np.percentile(values, percentile))
        label = f"p{percentile} {style.seconds(at_s)}"
        figure.add_scatter(
            x=[at_s, at_s],
            y=[0, tallest * 1.08],
            mode="lines",
            name=label,
            line={"color": style.PURPLE, "dash": dash, "width": 2},
            hovertemplate=f"{label}<extra></extra>",
        )


def _add_box(
    figure: go.Figure, label: str, values: pd.Series[float], colour: str
) -> None:
    """Quartiles computed here: Plotly.js knows no interpolation like numpy's."""
    points = values.tolist()
    low, median, high = np.percentile(points, (25, 50, 75)).tolist()
    figure.add_box(
        orientation="h",
        name=label,
        y=[label],
        x=[points],
        q1=[low],
        median=[median],
        q3=[high],
        lowerfence=[min(points)],
        upperfence=[max(points)],
        boxpoints="all",
        jitter=0.6,
        pointpos=0,
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "size": 5},
        fillcolor=style.CLEAR,
        hovertemplate=f"{label}<br>%{{x:.4~g}} s<extra></extra>",
    )


def _latency_notes(rows: pd.DataFrame) -> list[str]:
    notes = [style.count(len(rows), "request")]
    for status, word in (("error", "failed"), ("cancelled", "cancelled")):
        number = int((rows["status"] == status).sum())
        if number:
            notes.append(f"{number} {word}, not in the percentiles")
    unknown = int(rows["latency_s"].isna().sum())
    if unknown:
        notes.append(f"{unknown} of unknown latency, not shown")
    return notes


def _wait_notes(rows: pd.DataFrame) -> list[str]:
    notes = [style.count(len(rows), "request")]
    unknown = int(rows["wait_s"].isna().sum())
    if unknown:
        notes.append(f"{unknown} without a first token, not shown")
    loaded = rows.loc[rows["load_s"] > 0, "load_s"]
    if len(loaded):
        worst = style.seconds(float(loaded.max()))
        notes.append(f"model load of up to {worst} taken off {len(loaded)}")
    return notes
