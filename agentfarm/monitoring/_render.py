"""Statistics as a table: in a terminal by rich, in a notebook as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from agentfarm.monitoring._stats import RequestStats

_COLUMNS = (
    "",
    "requests",
    "ok",
    "active",
    "cancelled",
    "tokens in",
    "tokens out",
    "tokens/s",
    "chunk gap",
    "latency p50 / p95 / p99",
    "first token p50 / p95 / p99",
)
# Two lines of a row in a terminal, so that a table fits 80 characters.
_PAIRS = (
    "requests\nok",
    "active\ncancelled",
    "tokens in\nout",
    "tokens/s\nchunk gap",
    "latency p50/p95/p99\nfirst token",
)
_NONE = "-"
_EMPTY = (
    "No LLM request has finished yet. Run an evaluation, e.g. "
    '`await agentfarm.evals.run("smoke")`, or ask a model with '
    "`runtime.router.complete(...)`, and take a new snapshot."
)
_NOTE = (
    "Durations and tokens/s (median decode rate) are of requests that succeeded; "
    "ok leaves cancelled ones out."
)
_UNKNOWN = " ≥: the counts of some requests are unknown."


def rich_table(groups: Mapping[str, RequestStats], title: str) -> RenderableType:
    """The groups as rows of a rich table; a sentence where there is nothing yet."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not _any_request(groups):
        return Text(_empty(groups))
    note = _NOTE + (_UNKNOWN if any(map(_has_unknown, groups.values())) else "")
    table = Table(
        title=title,
        caption=note,
        caption_justify="left",
        box=box.HORIZONTALS,
        show_lines=True,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", overflow="fold")
    for heading in _PAIRS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, stats in groups.items():
        first, *cells = _cells(name, stats, short=True)
        pairs = (
            Text(f"{upper}\n{lower}")
            for upper, lower in zip(cells[::2], cells[1::2], strict=True)
        )
        table.add_row(Text(first), *pairs)
    return table


def html_table(groups: Mapping[str, RequestStats], title: str) -> str:
    """The groups as rows of an HTML table, in the page's own style."""
    heading = f"<p><strong>{escape(title)}</strong></p>"
    if not _any_request(groups):
        return f"{heading}<p>{escape(_empty(groups))}</p>"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in _COLUMNS)
    rows = []
    for group, stats in groups.items():
        name, *cells = (escape(cell) for cell in _cells(group, stats, short=False))
        columns = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{name}</th>{columns}</tr>')
    return (
        f"{heading}<table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table><p>{escape(_NOTE)}</p>"
    )


def _any_request(groups: Mapping[str, RequestStats]) -> bool:
    return any(stats.requests for stats in groups.values())


def _has_unknown(stats: RequestStats) -> bool:
    return bool(stats.unknown_input or stats.unknown_output)


def _empty(groups: Mapping[str, RequestStats]) -> str:
    active = max((stats.active for stats in groups.values()), default=0)
    return f"{active} under way. {_EMPTY}" if active else _EMPTY


def _cells(name: str, stats: RequestStats, *, short: bool) -> tuple[str, ...]:
    """What stands under _COLUMNS; in pairs after the first it fills _PAIRS."""
    return (
        name,
        str(stats.requests),
        _rate(stats),
        str(stats.active),
        str(stats.cancelled),
        _tokens(stats.input_tokens, stats.unknown_input, short=short),
        _tokens(stats.output_tokens, stats.unknown_output, short=short),
        _number(stats.output_tokens_per_s),
        _durations(stats.inter_chunk_p50_s),
        _durations(stats.latency_p50_s, stats.latency_p95_s, stats.latency_p99_s),
        _durations(stats.ttft_p50_s, stats.ttft_p95_s, stats.ttft_p99_s),
    )


def _rate(stats: RequestStats) -> str:
    if stats.success_rate is None:
        return _NONE
    text = f"{stats.success_rate * 100:.0f} %"
    # One failure among many successes is not 100 %.
    return "> 99 %" if stats.failed and text == "100 %" else text


def _tokens(count: int | None, unknown: int, *, short: bool) -> str:
    if count is None:
        return "unknown"
    if not unknown:
        return f"{count:,}"
    return f"≥ {count:,}" if short else f"{count:,} (unknown in {unknown} requests)"


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _durations(*values_s: float | None) -> str:
    known = [value for value in values_s if value is not None]
    if not known:
        return _NONE
    # One unit for all, so that they can be compared at a glance.
    if max(known) < 1:
        return " / ".join(_number(value * 1e3) for value in known) + " ms"
    return " / ".join(f"{value:.2f}" for value in known) + " s"
