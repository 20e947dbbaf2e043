"""From events to spans: what is open, whose child it is, and when it ends."""

from __future__ import annotations

import hashlib
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanKind, StatusCode, set_span_in_context

from agentfarm._version import __version__
from agentfarm.events import EventType
from agentfarm.monitoring._otlp_terms import (
    ENDS,
    STARTS,
    Ending,
    Name,
    ending,
    names,
    opening,
    retry,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

    from agentfarm.events import Event

__all__ = ["HEARD", "SpanBuilder"]

HEARD = STARTS | ENDS | {EventType.LLM_RETRY}
# Spans whose end never came are ended by us beyond this many.
_MOST_OPEN = 10_000
_ROOT = "run"
_LEAF = "request"
_ABANDONED = Ending(error_type="abandoned")

# The id of the newest span that was begun by this task or one that started it. An
# agent has no other name for which of its stages it is in, where two run at once.
_current: ContextVar[int] = ContextVar("agentfarm_otlp_span", default=0)


class _Ids(RandomIdGenerator):
    """Trace ids that follow from a run's id, so that a resumed one joins its trace."""

    def __init__(self) -> None:
        self.run_id: str | None = None

    def generate_trace_id(self) -> int:
        if self.run_id is None:
            return super().generate_trace_id()
        digest = hashlib.sha256(f"agentfarm:{self.run_id}".encode()).digest()
        return int.from_bytes(digest[:16], "big")

    def is_trace_id_random(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Open:
    span: Span
    names: tuple[Name, ...]
    run_id: str | None
    parent: int
    started_ns: int


class SpanBuilder:
    """Makes a span of each workflow, run, stage, request and use of a tool.

    Its parent is the span in which its event was published, which the task knows;
    else the stage of its agent, else its run.

    Args:
        processor: Gets the spans that ended.
        content: Tell also what people and models wrote.
    """

    def __init__(self, processor: SpanProcessor, *, content: bool = False) -> None:
        # Re-entrant like the bus: a finalizer may publish while a span is made.
        self._lock = threading.RLock()
        self._content = content
        self._ids = _Ids()
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(
                {"service.name": "agentfarm", "service.version": __version__}
            ),
            id_generator=self._ids,
            span_limits=SpanLimits(),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("agentfarm", __version__)
        self._open: dict[int, _Open] = {}
        self._index: dict[Name, int] = {}

    @property
    def open(self) -> int:
        """Spans that have not ended."""
        return len(self._open)

    def see(self, event: Event) -> None:
        """Take in one event of the kinds in `HEARD`; from any thread."""
        with self._lock:
            if event.type in STARTS:
                self._start(event, _ns(event.timestamp))
            elif event.type is EventType.LLM_RETRY:
                self._note_retry(event)
            else:
                self._end(event)

    def finish(self, timestamp: float) -> None:
        """End what is still open, as abandoned, at this Unix time."""
        with self._lock:
            for span_id in [*reversed(self._open)]:
                self._close(span_id, _ABANDONED, _ns(timestamp))

    def _start(self, event: Event, started_ns: int) -> int:
        found = names(event)
        if found[0][0] == _ROOT and (before := self._index.get(found[0])) is not None:
            self._close(before, _ABANDONED, started_ns)
        parent = self._parent(event)
        words = opening(event, content=self._content)
        self._ids.run_id = event.run_id
        span = self._tracer.start_span(
            words.name,
            context=Context() if parent is None else set_span_in_context(parent.span),
            kind=SpanKind.CLIENT if words.calls_server else SpanKind.INTERNAL,
            attributes=words.attributes,
            links=self._links(found[0]),
            start_time=started_ns,
        )
        span_id = span.get_span_context().span_id
        self._open[span_id] = _Open(
            span=span,
            names=found,
            run_id=event.run_id,
            parent=parent.span.get_span_context().span_id if parent else 0,
            started_ns=started_ns,
        )
        self._index.update(dict.fromkeys(found, span_id))
        if found[0][0] != _LEAF:
            _current.set(span_id)
        if len(self._open) > _MOST_OPEN:
            self._close(self._oldest(), _ABANDONED, started_ns)
        return span_id

    def _parent(self, event: Event) -> _Open | None:
        if names(event)[0][0] == _ROOT:
            return None
        here = self._open.get(_current.get())
        if here is not None and event.run_id in (None, here.run_id):
            return here
        for name in (("agent", event.run_id, event.agent), (_ROOT, event.run_id)):
            if event.run_id is not None and name in self._index:
                return self._open[self._index[name]]
        return None

    def _links(self, name: Name) -> list[Link]:
        """To the evaluation in which a workflow began, whose trace is another."""
        here = self._open.get(_current.get())
        if name[0] != _ROOT or here is None:
            return []
        return [Link(here.span.get_span_context())]

    def _note_retry(self, event: Event) -> None:
        span_id = self._find(names(event)[0])
        if span_id is not None:
            self._open[span_id].span.add_event(
                "agentfarm.retry", retry(event), _ns(event.timestamp)
            )

    def _end(self, event: Event) -> None:
        name = names(event)[0]
        span_id = self._find(name)
        record = event.data.get("record")
        if span_id is None and record is not None:
            span_id = self._start(event, _ns(record.started_at))
        if span_id is None:
            return
        ended_ns = _ns(event.timestamp)
        words = ending(event, content=self._content)
        if name[0] == _ROOT:
            self._close_stages(event.run_id, words, ended_ns)
        self._close(span_id, words, ended_ns)

    def _find(self, name: Name) -> int | None:
        """The open span of this name, the one of this task before any other."""
        here = _current.get()
        if here in self._open and self._open[here].names[0] == name:
            return here
        return self._index.get(name)

    def _close_stages(self, run_id: str | None, words: Ending, ended_ns: int) -> None:
        """End what a run left open: an interrupted stage says nothing of its end."""
        left = [
            span_id
            for span_id, each in reversed(self._open.items())
            if each.run_id == run_id and each.names[0][0] in ("stage", "tool")
        ]
        for span_id in left:
            kind = words.error_type or "abandoned"
            self._close(span_id, Ending(error_type=kind), ended_ns)

    def _close(self, span_id: int, words: Ending, ended_ns: int) -> None:
        found = self._open.pop(span_id)
        for name in found.names:
            if self._index.get(name) == span_id:
                del self._index[name]
        if _current.get() == span_id:
            _current.set(found.parent)
        found.span.set_attributes(dict(words.attributes))
        if words.error_type is not None:
            found.span.set_attribute("error.type", words.error_type)
            found.span.set_status(StatusCode.ERROR, words.error)
        # A clock that was set back must not make a span end before it began.
        found.span.end(max(ended_ns, found.started_ns))

    def _oldest(self) -> int:
        """The longest open of those that have no children, if there are such."""
        leaves = (_LEAF, "tool")
        for span_id, each in self._open.items():
            if each.names[0][0] in leaves:
                return span_id
        return next(iter(self._open))


def _ns(timestamp: float) -> int:
    return round(timestamp * 1e9)
