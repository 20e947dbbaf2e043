"""The bus in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentfarm.events._types import EventType

Kind = Literal["function", "task", "iterator"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionMetrics:
    """What became of one subscriber's events.

    Published to it = `delivered` + `dropped` + `coalesced` + `queued`.

    Attributes:
        name: For people.
        kind: ``function`` called in publish, ``task`` of an async handler, or
            ``iterator``.
        priority: Higher is served first.
        maxsize: Events that may wait before droppable ones give way; None for
            a function, which has no queue.
        delivered: Handed over; an event joined from several counts once.
        dropped: Thrown away because the subscriber was too slow.
        coalesced: Merged into an event that waited already.
        failed: Of the delivered, those at which the handler raised.
        queued: Waiting now.
    """

    name: str
    kind: Kind
    priority: int
    maxsize: int | None
    delivered: int
    dropped: int
    coalesced: int
    failed: int
    queued: int

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class BusMetrics:
    """The bus in numbers.

    Attributes:
        published: Events by type; types never published are absent.
        total: Their sum.
        discarded: Events published after the bus was closed.
        subscriptions: One entry per open subscription, highest priority first.
    """

    published: Mapping[EventType, int]
    total: int
    discarded: int
    subscriptions: tuple[SubscriptionMetrics, ...]

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            **asdict(self),
            "published": {kind.value: n for kind, n in self.published.items()},
            "subscriptions": [s.to_dict() for s in self.subscriptions],
        }
