"""Rolling statistics of LLM requests, fed by the bus."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from agentfarm.errors import AgentFarmError
from agentfarm.events import EventType, RequestRecord
from agentfarm.monitoring._stats import (
    CANCELLED,
    ERROR,
    OK,
    ROW,
    LifetimeTotals,
    PerformanceSnapshot,
    RequestStats,
    summarise,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentfarm.events import Event, EventBus, Subscription

_Windows = dict[str, deque[bytes]]
_COUNTS = [f.name for f in fields(LifetimeTotals) if f.name != "requests"]
_ENDS = {
    "ok": ("succeeded", OK),
    "error": ("failed", ERROR),
    "cancelled": ("cancelled", CANCELLED),
}
_NAN = float("nan")
_pack = ROW.pack
# Models, and agents, that get a group of their own; names beyond that share one,
# so that a caller who puts an id into a name cannot fill the memory.
_MAX_GROUPS = 256
_OTHERS = "(others)"
# Requests whose end was never reported are forgotten beyond this many.
_MAX_ACTIVE = 10_000


class _Cell:
    """The lifetime counts of one (model, agent) pair, and the windows it feeds.

    Groups sum their cells in `snapshot`, so that a record counts once only.
    """

    __slots__ = ("agent", "append_agent", "append_model", "counts", "model")

    def __init__(
        self, model: str, agent: str | None, by_model: _Windows, by_agent: _Windows
    ) -> None:
        self.model = model
        self.agent = agent
        self.append_model = by_model[model].append
        self.append_agent = None if agent is None else by_agent[agent].append
        self.counts = dict.fromkeys(_COUNTS, 0)

    def count(self, end: str, inputs: int | None, outputs: int | None) -> None:
        counts = self.counts
        counts[end] += 1
        if inputs is None:
            counts["unknown_input"] += 1
        else:
            counts["input_tokens"] += inputs
        if outputs is None:
            counts["unknown_output"] += 1
        else:
            counts["output_tokens"] += outputs


class PerformanceTracker:
    """Keeps the latest requests per model, per agent and overall, and sums them up.

    Recording is a few appends, about a microsecond, and never waits for anything
    but another thread's record; all computing happens in `snapshot`. What each
    number means, and how percentiles are defined, stands at `RequestStats`.

    Args:
        window: Finished requests that each group looks back on. Totals of the
            whole lifetime are kept beside it.

    Raises:
        AgentFarmError: `window` is below 1.
    """

    def __init__(self, *, window: int = 1000) -> None:
        if window < 1:
            raise AgentFarmError(
                f"PerformanceTracker(window={window}) could hold no request.",
                remedy="Use window >= 1.",
            )
        self.window = window
        self._lock = threading.Lock()
        self._all: deque[bytes] = deque(maxlen=window)
        self._models: _Windows = {}
        self._agents: _Windows = {}
        self._cells: dict[tuple[str, str | None], _Cell] = {}
        self._active: dict[str, tuple[str | None, str | None]] = {}
        self._known: dict[tuple[str, str], RequestStats] = {}

    def attach(self, bus: EventBus) -> Subscription:
        """Follow a bus; close the subscription to stop."""
        return bus.on(
            self._handle,
            EventType.LLM_REQUEST,
            EventType.LLM_RESPONSE,
            EventType.LLM_ERROR,
            name="PerformanceTracker",
        )

    def record(self, record: RequestRecord) -> None:
        """Take in one finished request; from any thread."""
        inputs, outputs = record.input_tokens, record.output_tokens
        ttft, rate = record.ttft_s, record.output_tokens_per_s
        gap_p50, gap_p95 = record.inter_chunk_p50_s, record.inter_chunk_p95_s
        gap_max = record.inter_chunk_max_s
        end, code = _ENDS[record.status]
        row = _pack(
            code,
            record.started_at,
            _NAN if inputs is None else inputs,
            _NAN if outputs is None else outputs,
            record.tokens_estimated,
            record.latency_s,
            _NAN if ttft is None else ttft,
            _NAN if rate is None else rate,
            _NAN if gap_p50 is None else gap_p50,
            _NAN if gap_p95 is None else gap_p95,
            _NAN if gap_max is None else gap_max,
        )
        key = (record.model, record.agent)
        with self._lock:
            cell = self._cells.get(key) or self._cell(*key)
            self._all.append(row)
            cell.append_model(row)
            if cell.append_agent is not None:
                cell.append_agent(row)
            cell.count(end, inputs, outputs)
            self._active.pop(record.request_id, None)

    def snapshot(self) -> PerformanceSnapshot:
        """The statistics now; some 0.1 ms for a group whose window holds 1000."""
        with self._lock:
            overall = list(self._all)
            models = {name: list(rows) for name, rows in self._models.items()}
            agents = {name: list(rows) for name, rows in self._agents.items()}
            cells = [(c.model, c.agent, dict(c.counts)) for c in self._cells.values()]
            active = list(self._active.values())
        return PerformanceSnapshot(
            overall=self._stats(
                ("", ""),
                overall,
                active=len(active),
                lifetime=_lifetime(counts for _, _, counts in cells),
            ),
            by_model={
                name: self._stats(
                    ("model", name),
                    rows,
                    active=sum(model == name for model, _ in active),
                    lifetime=_lifetime(c for model, _, c in cells if model == name),
                )
                for name, rows in models.items()
            },
            by_agent={
                name: self._stats(
                    ("agent", name),
                    rows,
                    active=sum(agent == name for _, agent in active),
                    lifetime=_lifetime(c for _, agent, c in cells if agent == name),
                )
                for name, rows in agents.items()
            },
            window=self.window,
        )

    def _stats(
        self,
        group: tuple[str, str],
        rows: list[bytes],
        *,
        active: int,
        lifetime: LifetimeTotals,
    ) -> RequestStats:
        """The statistics of a group; summed up anew only after it got a request."""
        known = self._known.get(group)
        if known is None or known.lifetime != lifetime:
            known = summarise(rows, active=active, lifetime=lifetime)
            self._known[group] = known
        return known if known.active == active else replace(known, active=active)

    def _cell(self, model: str, agent: str | None) -> _Cell:
        """Find or make the cell of a pair that was not seen before."""
        model = self._group(self._models, model)
        if agent is not None:
            agent = self._group(self._agents, agent)
        key = (model, agent)
        if key not in self._cells:
            self._cells[key] = _Cell(model, agent, self._models, self._agents)
        return self._cells[key]

    def _group(self, windows: _Windows, name: str) -> str:
        """Make sure of a window for this name; the name it goes by."""
        if name not in windows and len(windows) >= _MAX_GROUPS:
            name = _OTHERS
        windows.setdefault(name, deque(maxlen=self.window))
        return name

    def _begin(self, event: Event) -> None:
        if event.request_id is None:
            return
        model = event.data.get("model")
        with self._lock:
            # A model or agent that has only begun shows up with its first request.
            if model is not None:
                model = self._group(self._models, model)
            agent = event.agent
            if agent is not None:
                agent = self._group(self._agents, agent)
            self._active[event.request_id] = (model, agent)
            if len(self._active) > _MAX_ACTIVE:
                del self._active[next(iter(self._active))]

    def _handle(self, event: Event) -> None:
        if event.type is EventType.LLM_REQUEST:
            self._begin(event)
            return
        record = event.data.get("record")
        if isinstance(record, RequestRecord):
            self.record(record)
        elif event.request_id is not None:
            with self._lock:
                self._active.pop(event.request_id, None)


def _lifetime(counts: Iterable[dict[str, int]]) -> LifetimeTotals:
    total = dict.fromkeys(_COUNTS, 0)
    for cell in counts:
        for name, count in cell.items():
            total[name] += count
    requests = sum(total[name] for name, _ in _ENDS.values())
    return LifetimeTotals(requests=requests, **total)
