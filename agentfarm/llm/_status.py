"""The state of a router, as a table for people."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from agentfarm.llm._breaker import BreakerState
    from agentfarm.llm._hosts import Lane
    from agentfarm.llm._messages import Health

__all__ = ["ModelStatus", "RouterStatus"]

_HEADINGS = (
    "model",
    "provider",
    "host",
    "active",
    "waiting",
    "circuit",
    "latency",
    "ok",
    "failed",
    "health",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatus:
    """One registered model and how it does.

    Attributes:
        name, model: What people and what the server call it.
        provider, host: Where it is.
        capabilities, task_types: As registered, sorted.
        active, waiting, limit: Requests on the host now, in its queue, and at once.
        circuit: ``closed``, ``open`` or ``half-open``.
        probe_in_s: Seconds until an open circuit lets a probe through.
        blocked_s: Seconds until it may be asked, for its circuit or because it
            said so (``Retry-After``); 0 if it may.
        latency_s: Moving average of end-to-end latency; None before an answer.
        completed, failed: Attempts that ended so.
        last_error: Of the newest failed attempt.
        health: The server's own word; None where it was not asked.
    """

    name: str
    model: str
    provider: str
    host: str
    capabilities: tuple[str, ...]
    task_types: tuple[str, ...]
    active: int
    waiting: int
    limit: int
    circuit: BreakerState
    probe_in_s: float
    blocked_s: float
    latency_s: float | None
    completed: int
    failed: int
    last_error: str | None
    health: Health | None

    @classmethod
    def of(cls, lane: Lane, health: Health | None, now: float) -> ModelStatus:
        """Read a lane at `now`, on the router's clock."""
        entry = lane.entry
        return cls(
            name=entry.name,
            model=entry.model,
            provider=entry.provider.kind,
            host=entry.provider.host,
            capabilities=tuple(sorted(entry.capabilities)),
            task_types=tuple(sorted(entry.task_types)),
            active=lane.gate.active,
            waiting=lane.gate.waiting,
            limit=lane.gate.limit,
            circuit=lane.breaker.state,
            probe_in_s=lane.breaker.probe_in_s,
            blocked_s=lane.blocked_s(now),
            latency_s=lane.latency_s,
            completed=lane.completed,
            failed=lane.failed,
            last_error=lane.last_error,
            health=health,
        )

    def cells(self) -> tuple[str, ...]:
        """The row of the table, as text."""
        circuit: str = self.circuit
        if self.circuit == "open":
            circuit = f"open, probe in {self.probe_in_s:.0f} s"
        health = "not asked" if self.health is None else self.health.detail
        if self.health is None and self.last_error:
            health = f"last error: {self.last_error}"
        return (
            self.name if self.name == self.model else f"{self.name} ({self.model})",
            self.provider,
            self.host,
            f"{self.active}/{self.limit}",
            str(self.waiting),
            circuit,
            "-" if self.latency_s is None else f"{self.latency_s:.2f} s",
            str(self.completed),
            str(self.failed),
            health,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterStatus:
    """Every model of a router; shows itself as a table in a terminal or notebook.

    Attributes:
        models: In the order of registration.
    """

    models: tuple[ModelStatus, ...]

    @property
    def ok(self) -> bool:
        """Whether no server that was asked is ill and no circuit is open."""
        return all(
            model.circuit == "closed" and (model.health is None or model.health.ok)
            for model in self.models
        )

    def to_dict(self) -> dict[str, Any]:
        """The status as JSON values."""
        return {"ok": self.ok, "models": [asdict(model) for model in self.models]}

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(*_HEADINGS, title="LLM router")
        for model in self.models:
            # Text, since a host or an error may hold what rich takes for markup.
            table.add_row(*(Text(cell) for cell in model.cells()))
        return table

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in model.cells())
            + "</tr>"
            for model in self.models
        )
        return (
            "<table><caption>LLM router</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )
