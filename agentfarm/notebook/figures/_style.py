"""What all figures share: colours, words and the check of their input."""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from agentfarm.errors import EvalError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

# Okabe and Ito's palette. Black and yellow are left out: each vanishes on one of
# the two backgrounds. Vermillion is kept for what went wrong.
BLUE = "#0072B2"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
ERROR = "#D55E00"
SERIES = (BLUE, GREEN, PURPLE, ORANGE, SKY)
# A second cue beside colour: no two of the first five series share either.
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star")
PATTERNS = ("", "/", "\\", ".", "+")

# Mid-grey: contrast above 4 on white and on JupyterLab's dark page (#111111).
TEXT = "#767676"
GRID = "rgba(128, 128, 128, 0.25)"
CLEAR = "rgba(0, 0, 0, 0)"

RUN_FIRST = 'Run a suite first: run = await evals.run("smoke", runtime=farm)'
_HOVER_WIDTH = 70
_HOVER_LIMIT = 280
_NOTES_WIDTH = 70
# Browsers draw no picture of any height, and nobody scrolls through one.
_TALLEST = 6000


def check_columns(frame: pd.DataFrame, columns: Iterable[str], figure: str) -> None:
    """Refuse a frame that this figure cannot be drawn from.

    A frame without rows and columns passes: it is a frame with nothing in it.

    Raises:
        EvalError: Columns are missing; the message names them.
    """
    if frame.empty and len(frame.columns) == 0:
        return
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise EvalError(
            f"{figure}() cannot draw this frame: it has no column "
            f"{', '.join(missing)}.",
            remedy="Pass the frame that agentfarm.evals.samples_frame, "
            "requests_frame or runs_frame returns.",
        )


def blank(title: str, sentence: str) -> go.Figure:
    """A figure without data, whose one sentence says what to do next."""
    figure = go.Figure()
    dress(figure, title=title)
    figure.update_layout(height=240)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(
        text="<br>".join(textwrap.wrap(html.escape(sentence, quote=False), 50)),
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        showarrow=False,
        font={"size": 15},
    )
    return figure


def dress(figure: go.Figure, *, title: str, notes: Sequence[str] = ()) -> None:
    """Give a figure its title, its notes below it, and the common look.

    The look lies in a template of its own, so `update_layout(template=…)` still
    replaces it and a person's default template does not change it.
    """
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zerolinecolor": GRID,
        "automargin": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": CLEAR,
    }
    look = go.layout.Template(
        layout={
            "font": {"color": TEXT, "size": 13},
            "colorway": SERIES,
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"align": "left"},
            "legend": {"traceorder": "normal"},
            "modebar": {"bgcolor": CLEAR, "color": TEXT, "activecolor": BLUE},
            "margin": {"l": 20, "r": 20, "t": 100, "b": 50},
        }
    )
    figure.update_layout(
        template=look,
        title={
            "text": title,
            "x": 0,
            "xanchor": "left",
            "xref": "container",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 18, "l": 16},
            "subtitle": {"text": _lines(notes), "font": {"size": 12}},
        },
    )


def _lines(notes: Sequence[str]) -> str:
    """Notes in lines that fit a narrow page, none broken in two."""
    lines: list[str] = []
    for note in notes:
        if lines and len(lines[-1]) + len(note) < _NOTES_WIDTH:
            lines[-1] += f" · {note}"
        else:
            lines.append(note)
    return "<br>".join(lines)


def numbers(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as floats, NaN where it is unknown or no finite number."""
    values = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    return values.where(np.isfinite(values))


def times(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """A column of instants as UTC without a zone.

    Plotly.js ignores the offset of a timestamp, so it gets none, and the axis
    title names the zone.
    """
    return pd.to_datetime(frame[column], utc=True).dt.tz_localize(None)


def height(base: int, rows: int, per_row: float) -> int:
    """Pixels for so many rows; beyond a limit they get thinner: zoom in."""
    return round(min(base + per_row * rows, _TALLEST))


def iso(instants: pd.Series[Any]) -> list[str]:
    """Instants as text, so that a figure does not depend on pandas' resolution."""
    return [instant.isoformat(timespec="milliseconds") for instant in instants]


def count(number: int, noun: str) -> str:
    """A number with its noun: ``1 request``, ``2 requests``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def seconds(value_s: float) -> str:
    """A duration for people, in the unit that fits it."""
    if value_s < 0.9995:
        return f"{value_s * 1000:.3g} ms"
    return f"{value_s:.3g} s" if value_s < 1000 else f"{value_s:,.0f} s"


def name(value: Any, absent: str = "unknown", *, limit: int = 40) -> str:
    """A label as Plotly shows it verbatim: it takes text for HTML."""
    text = _full(value, absent)
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return html.escape(short, quote=False)


def labels(values: Collection[Any], absent: str = "unknown") -> list[str]:
    """A label for each value, never one label for two values.

    An axis merges what is labelled alike, as long names that begin alike would be.
    """
    given: dict[str, str] = {}
    alike: Counter[str] = Counter()
    for value in values:
        key = _full(value, absent)
        if key not in given:
            short = name(key)
            alike[short] += 1
            number = alike[short]
            given[key] = short if number == 1 else f"{short} ({number})"
    return [given[_full(value, absent)] for value in values]


def _full(value: Any, absent: str) -> str:
    unknown = value is None or pd.isna(value) or value == ""
    return absent if unknown else str(value)


def prose(value: Any) -> str:
    """A longer text for a hover box: shortened, wrapped and escaped."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    text = textwrap.shorten(str(value), _HOVER_LIMIT, placeholder=" …")
    lines = textwrap.wrap(text, _HOVER_WIDTH)
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def fill(index: int) -> dict[str, Any]:
    """Colour and pattern of the bars of a series."""
    return hatched(cycle(SERIES, index), cycle(PATTERNS, index))


def hatched(colour: str, shape: str) -> dict[str, Any]:
    """A bar's marker: full colour, with a pattern over it as the second cue."""
    pattern = {"shape": shape, "fillmode": "overlay", "fgopacity": 0.35}
    return {"color": colour, "pattern": pattern}


def cycle(values: Sequence[str], index: int) -> str:
    """The value of a series, beginning again after the last."""
    return values[index % len(values)]
