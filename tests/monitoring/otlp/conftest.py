"""A real OTLP/HTTP receiver on a free port of this machine."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agentfarm.events import EventBus, RequestRecord
from agentfarm.monitoring._otlp import SpanExport

KINDS = {Span.SPAN_KIND_INTERNAL: "internal", Span.SPAN_KIND_CLIENT: "client"}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One span as it came over the wire."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    failed: bool
    message: str
    events: list[tuple[str, dict[str, Any]]]
    links: list[str]

    @classmethod
    def of(cls, span: Span) -> "Seen":
        return cls(
            name=span.name,
            kind=KINDS[span.kind],
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            started_ns=span.start_time_unix_nano,
            ended_ns=span.end_time_unix_nano,
            attributes=plain(span.attributes),
            failed=span.status.code == 2,
            message=span.status.message,
            events=[(event.name, plain(event.attributes)) for event in span.events],
            links=[link.span_id.hex() for link in span.links],
        )


def plain(attributes) -> dict[str, Any]:
    return {each.key: value(each.value) for each in attributes}


def value(any_value) -> Any:
    kind = any_value.WhichOneof("value")
    found = getattr(any_value, kind)
    return [value(each) for each in found.values] if kind == "array_value" else found


@dataclass
class Receiver:
    """Keeps what it gets; it can refuse, and it can never answer.

    Attributes:
        status: What it answers to the next request.
        hold: Cleared, it answers nothing until it is set.
        asked: Path and headers of each request.
        bodies: What was in those that it took.
    """

    url: str = ""
    status: int = 200
    hold: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bodies: list[ExportTraceServiceRequest] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def spans(self) -> list[Seen]:
        """All spans, in the order of their start."""
        found = [
            Seen.of(span)
            for body in self.bodies
            for resource in body.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.started_ns)

    @property
    def resource(self) -> dict[str, Any]:
        return plain(self.bodies[0].resource_spans[0].resource.attributes)

    def wait_asked(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait for so many requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= count, timeout_s)

    def one(self, name: str) -> Seen:
        """The only span of this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def tree(self) -> dict[str, list[str]]:
        """Names of the children by name of the parent; of roots under ``""``."""
        names = {span.span_id: span.name for span in self.spans}
        found: dict[str, list[str]] = {}
        for span in self.spans:
            found.setdefault(names.get(span.parent_id, ""), []).append(span.name)
        return found


def handler_for(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiver.changed:
                status = receiver.status
                receiver.asked.append((self.path, dict(self.headers)))
                receiver.changed.notify_all()
            receiver.hold.wait()
            if status == 200:
                receiver.bodies.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            if status == 307:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A client that left is no news."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.hold.set()
    server = Server(("127.0.0.1", 0), handler_for(receiver))
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield receiver
    receiver.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def bus() -> EventBus:
    return EventBus()


@pytest.fixture
def export(receiver, bus) -> Iterator[Callable[..., SpanExport]]:
    """Export what the bus carries, to the receiver if no other is named."""
    made = []

    def make(endpoint: str | None = None, **options: Any) -> SpanExport:
        exported = SpanExport(endpoint or receiver.url, **options)
        exported.attach(bus)
        made.append(exported)
        return exported

    yield make
    for each in made:
        each.close(0.1)


@pytest.fixture
def record() -> Callable[..., RequestRecord]:
    """A finished request; the fields are its."""

    def make(request_id: str = "q", **changes: Any) -> RequestRecord:
        values = {
            "model": "m",
            "provider": "openai",
            "host": "http://127.0.0.1:8080/v1",
            "started_at": 1.75e9,
            "status": "ok",
            "latency_s": 1.0,
            **changes,
        }
        return RequestRecord(request_id=request_id, **values)

    return make
