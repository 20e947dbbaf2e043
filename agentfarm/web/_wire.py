"""Events as they go over the wire: each made into JSON once, for all who want it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from agentfarm.events import Event, EventType
from agentfarm.web._json import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Batch", "Wanted", "Wire", "joined", "message"]

# An event that is larger goes without its data: it would push out all others.
_MOST_BYTES = 256 * 1024
_TEXTS = ("text", "reasoning")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which events a client wants; None for any.

    Attributes:
        types, run_id, agent: Those of the events.
    """

    types: frozenset[EventType] | None = None
    run_id: str | None = None
    agent: str | None = None

    def fits(self, event: Event) -> bool:
        """Whether it wants this one."""
        return (
            (self.types is None or event.type in self.types)
            and (self.run_id is None or event.run_id == self.run_id)
            and (self.agent is None or event.agent == self.agent)
        )


@dataclass(frozen=True, slots=True)
class Wire:
    """An event and its JSON."""

    event: Event
    json: bytes

    @classmethod
    def of(cls, event: Event) -> Wire:
        """Make the JSON."""
        made = event.to_dict()
        encoded = encode(made)
        if len(encoded) > _MOST_BYTES:
            encoded = encode({**made, "data": {"omitted_bytes": len(encoded)}})
        return cls(event, encoded)


class Batch:
    """Events that go out together, and the messages made of them.

    Args:
        wires: In the order of `Event.seq`.
    """

    def __init__(self, wires: Iterable[Wire]) -> None:
        self._wires = list(wires)
        self._together: dict[Wanted, str | None] = {}

    @classmethod
    def newest(cls, events: Sequence[Event], *, most_bytes: int) -> tuple[Batch, int]:
        """The newest events that fit, and how many are left out."""
        wires: list[Wire] = []
        size = 0
        for event in reversed(events):
            wire = Wire.of(event)
            size += len(wire.json)
            if size > most_bytes:
                break
            wires.append(wire)
        return cls(reversed(wires)), len(events) - len(wires)

    def together(self, wanted: Wanted) -> str | None:
        """One message with all that is wanted; None where nothing is."""
        if wanted not in self._together:
            fitting = [wire.json for wire in self._fitting(wanted)]
            self._together[wanted] = message("events", fitting) if fitting else None
        return self._together[wanted]

    def singly(self, wanted: Wanted) -> list[str]:
        """A message for each that is wanted: the bare event."""
        return [wire.json.decode() for wire in self._fitting(wanted)]

    def _fitting(self, wanted: Wanted) -> Iterator[Wire]:
        return (wire for wire in self._wires if wanted.fits(wire.event))


def message(kind: str, events: Sequence[bytes] = (), **fields: Any) -> str:
    """A message of the server: its type, what else it says, and events."""
    content: dict[str, Any] = {"type": kind, **fields}
    if events:
        content["events"] = [msgspec.Raw(each) for each in events]
    return encode(content).decode()


def joined(events: Iterable[Event]) -> list[Event]:
    """The events, with the chunks of each request joined into one.

    Its ``text`` and ``reasoning`` are those of all chunks, of other values the last
    stands; ``data["coalesced"]`` counts them. Its `seq` is the last one's, so that
    whoever saw it has seen all before it. Chunks before and after any other event of
    their request stay apart.
    """
    found: list[Event | None] = []
    waiting: dict[str, tuple[int, list[Event]]] = {}
    for event in events:
        if event.type is EventType.LLM_STREAM_CHUNK and event.request_id is not None:
            place, chunks = waiting.get(event.request_id, (-1, []))
            if place >= 0:
                found[place] = None
            chunks.append(event)
            waiting[event.request_id] = (len(found), chunks)
        elif event.request_id is not None:
            _settle(found, waiting, event.request_id)
        found.append(event)
    for request_id in list(waiting):
        _settle(found, waiting, request_id)
    return [event for event in found if event is not None]


def _settle(
    found: list[Event | None],
    waiting: dict[str, tuple[int, list[Event]]],
    request_id: str,
) -> None:
    """Put one chunk in the place of the last of those that wait."""
    place, chunks = waiting.pop(request_id, (-1, []))
    if len(chunks) < 2:
        return
    data: dict[str, Any] = {}
    for chunk in chunks:
        data |= chunk.data
    for name in _TEXTS:
        if name in data:
            data[name] = "".join([chunk.data.get(name) or "" for chunk in chunks])
    data["coalesced"] = sum(chunk.data.get("coalesced", 1) for chunk in chunks)
    found[place] = replace(chunks[-1], data=data)
