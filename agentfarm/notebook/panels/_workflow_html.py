"""The picture of a workflow as HTML; whatever a model wrote is text in it, never markup."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from agentfarm.notebook.panels._workflow_view import PHASES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentfarm.notebook.panels._workflow_view import (
        CallView,
        State,
        StreamView,
        WorkflowView,
    )

# A mark beside each colour, for those who do not tell colours apart.
MARKS: dict[State, str] = {
    "waiting": "○",
    "running": "◐",
    "done": "✓",
    "failed": "✗",
    "skipped": "·",
}
SHOWN_CALLS = 8

# JupyterLab's own colours where there are some, so that it fits light and dark.
STYLE = """<style>
.af { font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif);
  color: var(--jp-ui-font-color1, CanvasText); }
.af .bar { display: flex; flex-wrap: wrap; gap: 4px; margin: 4px 0; padding: 0;
  list-style: none; }
.af .bar li { flex: 1 1 90px; padding: 3px 8px; border-radius: 4px; margin: 0;
  border: 1px solid var(--jp-border-color1, #bdbdbd); white-space: nowrap; }
.af .running { border-color: #0072B2 !important; box-shadow: inset 0 0 0 1px #0072B2;
  font-weight: 600; }
.af .done { border-color: #009E73 !important; }
.af .failed { border-color: #D55E00 !important; }
.af .waiting, .af .skipped { opacity: .6; }
.af table { border-collapse: collapse; width: auto; margin: 2px 0 6px; }
.af th, .af td { text-align: left; padding: 1px 14px 1px 0; border: 0;
  vertical-align: top; background: none; }
.af td.n, .af th.n { text-align: right; font-variant-numeric: tabular-nums; }
.af th { font-weight: 600; opacity: .75; }
.af pre { margin: 2px 0 6px; padding: 6px 8px; max-height: 15em; overflow: auto;
  display: flex; flex-direction: column-reverse; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 12px/1.45 var(--jp-code-font-family, monospace);
  background: var(--jp-layout-color2, #8881); border-radius: 4px; }
.af .think { opacity: .65; font-style: italic; }
.af .cursor { animation: af-blink 1s steps(2) infinite; }
.af .quiet { opacity: .75; } .af .bad { color: #D55E00; } .af .good { color: #009E73; }
@keyframes af-blink { 50% { opacity: 0; } }
@media (prefers-reduced-motion: reduce) { .af .cursor { animation: none; } }
</style>"""


def head(view: WorkflowView) -> str:
    """The stage bar, and a line that says how it stands."""
    items = []
    for phase, name in PHASES.items():
        state = view.phase_state(phase)
        more = f" · round {view.round}" if phase == "verify" and view.round > 1 else ""
        items.append(
            f'<li class="{state}" title="{name}: {state}">'
            f"{MARKS[state]} {name}{more}</li>"
        )
    tokens = sum(t.input_tokens + t.output_tokens for t in view.tokens.values())
    words = {
        "idle": "Not started. Write a task and press Start, or "
        "<code>await panel.run(task)</code>.",
        "running": "Running",
        "completed": "Completed",
        "failed": '<b class="bad">Failed</b>',
        "interrupted": "<b>Interrupted</b>",
    }
    line = words[view.status]
    if view.status != "idle":
        line += f" · {view.elapsed_s:.0f} s · {tokens:,} tokens"
        line += f" · {escape(view.run_id)}" if view.run_id else ""
    return (
        f'<div class="af"><ol class="bar" aria-label="Stages">{"".join(items)}</ol>'
        f'<div role="status">{line}</div></div>'
    )


def steps(view: WorkflowView) -> str:
    """Every stage with its time and tokens."""
    if not view.stages:
        return ""
    rows = []
    for stage in view.stages.values():
        took = "" if stage.duration_s is None else f"{stage.duration_s:.1f}"
        note = " (finished before)" if stage.resumed else ""
        rows.append(
            f"<tr><td>{MARKS[stage.state]}</td><td>{escape(stage.agent)}</td>"
            f"<td>{escape(stage.title)}{note}</td>"
            f'<td class="n">{took}</td><td class="n">{stage.tokens or ""}</td></tr>'
        )
    return _table(("", "agent", "step", "s#", "tokens#"), rows)


def streams(view: WorkflowView) -> str:
    """What is being written now, with a cursor, above what was written last."""
    shown = sorted(view.streams.values(), key=lambda stream: stream.ended)
    if not shown:
        return ""
    return f'<div class="af">{"".join(_stream(stream) for stream in shown)}</div>'


def _stream(stream: StreamView) -> str:
    cursor = "" if stream.ended else '<span class="cursor">▌</span>'
    thinking = (
        stream.thinking and f'<span class="think">{escape(stream.thinking)}\n</span>'
    )
    empty = "(only calls of tools)" if stream.ended else ""
    text = escape(stream.text) or f'<span class="think">{empty}</span>'
    model = f' <span class="quiet">{escape(stream.model)}</span>'
    return (
        f"<div><b>{escape(stream.agent or 'model')}</b>{model}"
        f"<pre><span>{thinking}{text}{cursor}</span></pre></div>"
    )


def calls(view: WorkflowView) -> str:
    """The latest calls of tools, and the files that they left."""
    parts = []
    if view.calls:
        latest = list(view.calls)[-SHOWN_CALLS:]
        rows = [_call(call) for call in reversed(latest)]
        parts.append(_table(("", "agent", "tool", "arguments", "answer"), rows))
    if view.files:
        names = ", ".join(
            f"{escape(name)} <span class='quiet'>({word})</span>"
            for name, word in view.files.items()
        )
        parts.append(f'<div class="af">Files: {names}</div>')
    return "".join(parts)


def _call(call: CallView) -> str:
    state: State = "running" if call.ok is None else "done" if call.ok else "failed"
    return (
        f"<tr><td>{MARKS[state]}</td><td>{escape(call.agent)}</td>"
        f"<td>{escape(call.tool)}</td><td><code>{escape(call.arguments)}</code></td>"
        f"<td>{escape(call.answer)}</td></tr>"
    )


def tokens(view: WorkflowView) -> str:
    """What each agent cost."""
    rows = [
        f"<tr><td>{escape(agent)}</td>"
        + "".join(
            f'<td class="n">{cell}</td>'
            for cell in (
                f"{count.requests:,}",
                _counted(count.input_tokens, count.estimated),
                _counted(count.output_tokens, count.estimated),
                "-" if count.tokens_per_s is None else f"{count.tokens_per_s:.1f}",
            )
        )
        + "</tr>"
        for agent, count in view.tokens.items()
    ]
    if not rows:
        return ""
    heads = ("agent", "requests#", "tokens in#", "tokens out#", "tokens/s#")
    return _table(heads, rows)


def outcome(view: WorkflowView) -> str:
    """What the checks said, what the loop noticed, and how it ended."""
    parts = [_check(check) for check in view.checks]
    line = f"<div>Checks: {' · '.join(parts)}</div>" if parts else ""
    notices = "".join(f'<div class="quiet">{escape(n)}</div>' for n in view.notices)
    kind = "bad" if view.status == "failed" else ""
    message = "".join(
        f'<div class="{kind}">{escape(text)}</div>'
        for text in view.message.splitlines()
    )
    return f'<div class="af">{line}{notices}{message}</div>'


def _check(check: object) -> str:
    values = check if isinstance(check, dict) else {}
    status = str(values.get("status"))
    kind = {"passed": "good", "failed": "bad"}.get(status, "quiet")
    mark = {"passed": "✓", "failed": "✗"}.get(status, "·")
    detail = escape(str(values.get("detail") or ""), quote=True)
    name = escape(str(values.get("name")))
    return (
        f'<span class="{kind}" title="{detail}">{mark} {name} {escape(status)}</span>'
    )


def _counted(number: int, estimated: bool) -> str:
    return f"{'≈' if estimated else ''}{number:,}"


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    """A table; a head that ends with ``#`` stands over numbers."""
    cells = "".join(
        f'<th class="n">{head[:-1]}</th>' if head.endswith("#") else f"<th>{head}</th>"
        for head in heads
    )
    return (
        f'<div class="af"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
