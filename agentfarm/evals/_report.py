"""A run as a table, for terminals and for notebooks.

Task ids, outputs and errors come from files and models, so they are untrusted:
no markup, escape sequence or tag in them may take effect.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import JustifyMethod, RenderableType

    from agentfarm.evals._result import EvalRun, TaskResult
    from agentfarm.store import SampleRecord

_COLUMNS = (
    "task",
    "score",
    "latency ms",
    "TTFT ms",
    "output tok/s",
    "tokens in",
    "tokens out",
    "status",
)


def rich_report(run: EvalRun) -> RenderableType:
    """The results for a terminal: one row per task, and the totals."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    # Narrow enough for the built-in suites on a terminal of 80 columns.
    table = Table(
        title=Text(_title(run)),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for name in _COLUMNS:
        right = name not in {"task", "status"}
        justify: JustifyMethod = "right" if right else "left"
        heading = name.replace(" ", "\n")
        table.add_column(heading, justify=justify, overflow="fold", vertical="bottom")
    for task in run.tasks:
        style = "red" if task.errors else ("" if task.score >= 1 else "yellow")
        table.add_row(*(Text(cell, style=style) for cell in _cells(task)))
    lines = [Text(line) for line in (_totals(run), *_problems(run))]
    return Group(table, *lines)


def html_report(run: EvalRun) -> str:
    """The results for a notebook: as in a terminal, with the answers."""
    answers = _answers(run.samples)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (*_COLUMNS, "answer"))
    rows = []
    for task in run.tasks:
        cells = [*_cells(task), answers[task.task]]
        tags = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr>{tags}</tr>")
    lines = "".join(
        f"<p>{html.escape(line)}</p>" for line in (_totals(run), *_problems(run))
    )
    return (
        f"<div><p><b>{html.escape(_title(run))}</b></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"{lines}</div>"
    )


def _title(run: EvalRun) -> str:
    record = run.run
    return printable(f"{record.suite} on {record.model}, run {record.run_id}")


def _cells(task: TaskResult) -> tuple[str, ...]:
    return (
        printable(task.task),
        f"{task.score:.2f}",
        _milliseconds(task.latency_s),
        _milliseconds(task.ttft_s),
        "-" if task.output_tokens_per_s is None else f"{task.output_tokens_per_s:.1f}",
        "-" if task.input_tokens is None else str(task.input_tokens),
        "-" if task.output_tokens is None else str(task.output_tokens),
        task.status,
    )


def _totals(run: EvalRun) -> str:
    record, score = run.run, "-"
    if run.score is not None:
        score = f"{run.score:.3f}"
        if run.score_stderr is not None:
            score += f" ± {run.score_stderr:.3f} (standard error)"
    parts = [f"Score {score}", f"{len(run.samples)}/{record.planned_samples} samples"]
    if (most := run.epochs_done) > 1:
        parts.append(f"pass@{most} {run.pass_at(most):.3f}")
    if record.epochs > 1:
        parts.append(f"{record.epochs} epochs: latencies are medians, tokens sums")
    if record.finished_at is not None:
        parts.append(f"{record.finished_at - record.started_at:.1f} s")
    parts.append(record.status)
    return ", ".join(parts)


def _problems(run: EvalRun) -> list[str]:
    lines = []
    if run.run.error:
        lines.append(f"The run failed. {printable(run.run.error)}")
    failed = [sample for sample in run.samples if sample.status == "error"]
    if failed:
        lines.append(f"{len(failed)} samples are errors and count 0:")
    for sample in failed[:5]:
        cause = f"{sample.error_type}: {sample.error}"
        lines.append(f"  {printable(sample.task)}: {_short(cause, 200)}")
    if len(failed) > 5:
        lines.append(f"  and {len(failed) - 5} more")
    if cut := sum(sample.context_truncated for sample in run.samples):
        lines.append(f"In {cut} samples the server seems to have cut the prompt.")
    return lines


def _answers(samples: Sequence[SampleRecord]) -> dict[str, str]:
    """The last answer to each task, or its error."""
    return {
        sample.task: _short(
            sample.output
            if sample.status == "ok"
            else f"{sample.error_type}: {sample.error}"
        )
        for sample in samples
    }


def _short(text: str, length: int = 80) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"


def printable(text: str) -> str:
    """Text without control characters, which could steer a terminal."""
    return "".join(
        sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text
    )
