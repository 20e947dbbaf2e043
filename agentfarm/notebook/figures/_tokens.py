"""Figures of the tokens that requests made and spent."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from agentfarm.notebook.figures import _style as style

_ROLLING = 10


def tokens_per_second_over_time(requests: pd.DataFrame) -> go.Figure:
    """Decode rate of every request at the time it began, by model.

    The rate is (n - 1) / (t_last - t_first) at the client, so neither the wait for
    the first token nor that in the queue slows it. The line is the median of the
    last 10 requests. Requests that failed stand as crosses in a strip below.

    Args:
        requests: The requests frame; needs ``started_at``, ``status``, ``model``,
            ``output_tokens``, ``output_tokens_per_s``, ``server_tokens_per_s``,
            ``tokens_estimated`` and ``error_type``.

    Raises:
        EvalError: A column is missing.
    """
    title = "Output tokens per second"
    columns = ("started_at", "status", "model", "output_tokens", "error_type")
    rates = ("output_tokens_per_s", "server_tokens_per_s", "tokens_estimated")
    figure_name = "tokens_per_second_over_time"
    style.check_columns(requests, (*columns, *rates), figure_name)
    if requests.empty:
        return style.blank(title, f"No requests yet. {style.RUN_FIRST}")
    rows = requests.assign(
        rate=style.numbers(requests, "output_tokens_per_s"),
        at=style.times(requests, "started_at"),
    ).sort_values("at", kind="stable")
    if rows["rate"].isna().all():
        sentence = f"None of the {style.count(len(rows), 'request')} has a known rate"
        return style.blank(
            title,
            f"{sentence}: it takes a streamed answer of two tokens or more, and a "
            "server that reports its token counts.",
        )
    figure = _draw_rates(rows)
    style.dress(figure, title=title, notes=_rate_notes(rows))
    return figure


def tokens_per_agent(requests: pd.DataFrame) -> go.Figure:
    """Input and output tokens that each agent spent.

    A request whose server did not report a count adds nothing to that sum and is
    counted in the note, so that a bar reads as "at least". Failed requests count
    with what they spent.

    Args:
        requests: The requests frame; needs ``agent``, ``status``,
            ``input_tokens``, ``output_tokens`` and ``tokens_estimated``.

    Raises:
        EvalError: A column is missing.
    """
    title = "Tokens per agent"
    columns = ("agent", "status", "input_tokens", "output_tokens", "tokens_estimated")
    style.check_columns(requests, columns, "tokens_per_agent")
    if requests.empty:
        return style.blank(title, f"No requests yet. {style.RUN_FIRST}")
    rows = requests.assign(
        agent=style.labels(requests["agent"].tolist(), "no agent"),
        input_tokens=style.numbers(requests, "input_tokens"),
        output_tokens=style.numbers(requests, "output_tokens"),
    )
    counts = rows[["input_tokens", "output_tokens"]]
    if not bool(counts.notna().to_numpy().any()):
        sentence = f"None of the {style.count(len(rows), 'request')} has a known"
        return style.blank(
            title,
            f"{sentence} token count. Use a server that reports its usage: "
            "Ollama, llama.cpp and vLLM do.",
        )
    figure = _draw_tokens(rows)
    style.dress(figure, title=title, notes=_token_notes(rows))
    return figure


def _draw_rates(rows: pd.DataFrame) -> go.Figure:
    """Rates by model above, failures in a strip below them."""
    figure = go.Figure()
    known = rows.dropna(subset="rate")
    for index, (model, group) in enumerate(known.groupby("model", sort=True)):
        _add_rates(figure, style.name(model), group, index)
    figure.update_layout(height=400, showlegend=True)
    figure.update_xaxes(title="Started (UTC)", type="date")
    figure.update_yaxes(title="Output rate (tokens/s)", rangemode="tozero")
    failed = rows[rows["status"] == "error"]
    if len(failed):
        _add_failures(figure, failed)
        strip = {"domain": [0, 0.08], "visible": False, "range": [0, 1]}
        figure.update_layout(yaxis={"domain": [0.12, 1]}, yaxis2=strip)
        figure.update_xaxes(anchor="y2")
    return figure


def _draw_tokens(rows: pd.DataFrame) -> go.Figure:
    """One stack per agent, the one that spent most on top."""
    groups = rows.groupby("agent")
    totals = groups[["input_tokens", "output_tokens"]].sum(min_count=1)
    order = totals.sum(axis=1).sort_values(kind="stable").index
    figure = go.Figure()
    _add_tokens(figure, totals["input_tokens"][order], groups, "input", 0)
    _add_tokens(figure, totals["output_tokens"][order], groups, "output", 1)
    figure.update_layout(barmode="stack", height=style.height(190, len(order), 34))
    figure.update_xaxes(title="Tokens", rangemode="tozero")
    figure.update_yaxes(categoryorder="array", categoryarray=list(order), dtick=1)
    return figure


def _add_rates(figure: go.Figure, label: str, rows: pd.DataFrame, index: int) -> None:
    colour = style.cycle(style.SERIES, index)
    moments = style.iso(rows["at"])
    figure.add_scatter(
        x=moments,
        y=rows["rate"].tolist(),
        mode="markers",
        name=label,
        marker={
            "color": colour,
            "symbol": style.cycle(style.SYMBOLS, index),
            "size": 8,
        },
        hovertext=[_rate_hover(row) for row in rows.to_dict("records")],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    if len(rows) >= _ROLLING:
        median = rows["rate"].rolling(_ROLLING, min_periods=1).median()
        figure.add_scatter(
            x=moments,
            y=median.tolist(),
            mode="lines",
            name=f"{label}, median of {_ROLLING}",
            line={"color": colour, "width": 1.5},
            hovertemplate="median %{y:.4~g} tokens/s<extra></extra>",
        )


def _add_failures(figure: go.Figure, rows: pd.DataFrame) -> None:
    figure.add_scatter(
        x=style.iso(rows["at"]),
        y=[0.5] * len(rows),
        yaxis="y2",
        mode="markers",
        name=f"failed ({len(rows)})",
        marker={"symbol": "x", "size": 9, "color": style.ERROR},
        hovertext=[
            f"<b>{style.name(row['model'])}</b><br>"
            f"{style.name(row['error_type'], 'failed for an unknown reason')}"
            for row in rows.to_dict("records")
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _add_tokens(
    figure: go.Figure,
    totals: pd.Series[float],
    groups: Any,
    kind: str,
    index: int,
) -> None:
    """One stack layer; an agent whose counts are all unknown gets no bar."""
    known = totals.dropna()
    hovers = [
        f"<b>{agent}</b><br>{int(total):,} {kind} tokens in "
        f"{style.count(len(groups.get_group(agent)), 'request')}"
        for agent, total in known.items()
    ]
    figure.add_bar(
        orientation="h",
        name=f"{kind} tokens",
        y=list(known.index),
        x=known.tolist(),
        marker=style.fill(index),
        text=[f"{int(total):,}" for total in known],
        textposition="auto",
        hovertext=hovers,
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _rate_hover(row: dict[Any, Any]) -> str:
    lines = [f"<b>{style.name(row['model'])}</b>", f"{row['rate']:.4g} tokens/s"]
    if pd.notna(row["server_tokens_per_s"]):
        lines.append(f"{row['server_tokens_per_s']:.4g} tokens/s by the server")
    if pd.notna(row["output_tokens"]):
        guess = " (estimated)" if row["tokens_estimated"] else ""
        lines.append(f"{int(row['output_tokens']):,} output tokens{guess}")
    return "<br>".join(lines)


def _rate_notes(rows: pd.DataFrame) -> list[str]:
    known = rows.dropna(subset="rate")
    notes = [
        style.count(len(rows), "request"),
        f"median {known['rate'].median():.4g} tokens/s",
    ]
    unknown = len(rows) - len(known)
    if unknown:
        notes.append(f"{unknown} of unknown rate, not shown")
    guessed = int(known["tokens_estimated"].astype(bool).sum())
    if guessed:
        notes.append(f"{guessed} from estimated token counts")
    return notes


def _token_notes(rows: pd.DataFrame) -> list[str]:
    notes = [style.count(len(rows), "request")]
    unknown = rows[["input_tokens", "output_tokens"]].isna().any(axis=1)
    if unknown.any():
        notes.append(f"{int(unknown.sum())} of unknown count, not in the sums")
    guessed = int(rows["tokens_estimated"].astype(bool).sum())
    if guessed:
        notes.append(f"{guessed} estimated by a tokenizer")
    failed = int((rows["status"] == "error").sum())
    if failed:
        notes.append(f"{failed} failed")
    return notes
