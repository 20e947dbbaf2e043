"""A workflow's result as HTML: verdict, checks, tokens of each agent, the change."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentfarm.agents._workflow_result import WorkflowResult

_COLOURS = {"+": "#009E73", "-": "#D55E00", "@": "#0072B2"}
_RIGHT = ' style="text-align: right"'
_LEFT = ' style="text-align: left"'


def page(result: WorkflowResult) -> str:
    """The result; whatever a model wrote is text in it, never markup."""
    parts = [
        f"<p><b>{escape(result.headline)}</b></p>",
        f'<pre style="white-space: pre-wrap">{escape(result.summary)}</pre>',
    ]
    if result.verification:
        rows = [
            (check.name, check.status, check.detail)
            for check in result.verification.checks
        ]
        parts.append(_table(("check", "status", "what it found"), rows, numbers=0))
    if result.tokens:
        counts = [
            (
                agent,
                f"{count.requests:,}",
                f"{'≈' if count.estimated else ''}{count.input_tokens:,}",
                f"{'≈' if count.estimated else ''}{count.output_tokens:,}",
            )
            for agent, count in result.tokens.items()
        ]
        heads = ("agent", "requests", "tokens in", "tokens out")
        parts.append(_table(heads, counts, numbers=3))
    if result.diff:
        parts.append(
            f"<details open><summary>Diff</summary>{_diff(result.diff)}</details>"
        )
    return "".join(parts)


def _diff(text: str) -> str:
    lines = []
    for line in text.splitlines():
        colour = _COLOURS.get(line[:1])
        shown = escape(line)
        lines.append(
            f'<span style="color: {colour}">{shown}</span>' if colour else shown
        )
    return "<pre>" + "\n".join(lines) + "</pre>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> str:
    """A table whose last `numbers` columns are numbers."""
    first_number = len(heads) - numbers

    def cells(values: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{_RIGHT if place >= first_number else _LEFT}>{escape(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{cells(heads, 'th')}</tr></thead><tbody>{body}</tbody></table>"
