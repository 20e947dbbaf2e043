"""Sends spans to an OTLP/HTTP receiver, in a thread of its own.

It needs the extra ``otlp``; import it only where a receiver is set.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import requests
from anyio import to_thread
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from agentfarm.errors import ConfigError
from agentfarm.monitoring._otlp_spans import HEARD, SpanBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from agentfarm.events import EventBus, Subscription

__all__ = ["SpanExport"]

_log = logging.getLogger("agentfarm.otlp")
_PATH = "/v1/traces"
_QUEUE = 4096
_BATCH = 256
_EVERY_S = 2.0
_REQUEST_TIMEOUT_S = 10.0
# A receiver that is known to be away gets this long at closing.
_GRACE_S = 0.5
_SHOWN_CHARS = 300


class SpanExport:
    """Follows a bus and sends what happens as spans, without holding anything up.

    Spans wait in a bounded queue, which a thread sends on. While the receiver is
    away they are dropped, which is logged once and counted.

    Args:
        endpoint: Base URL of the receiver, e.g. ``http://127.0.0.1:4318``.
        headers: Sent with every request; they may hold a secret.
        content: Send also what people and models wrote.

    Raises:
        ConfigError: The endpoint is no such URL.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bool = False,
    ) -> None:
        self._sender = _Sender(_traces_url(endpoint), headers or {})
        self._queue = _Queue(self._sender)
        self._builder = SpanBuilder(self._queue, content=content)
        self._subscription: Subscription | None = None
        self._closed = False

    @property
    def sent(self) -> int:
        """Spans that the receiver took."""
        return self._sender.sent

    @property
    def dropped(self) -> int:
        """Spans that were given up; after closing, all that were not sent."""
        if self._closed:
            return self._queue.offered - self._sender.sent
        return self._queue.dropped + self._sender.dropped

    def attach(self, bus: EventBus) -> None:
        """Follow a bus, until `close`."""
        self._subscription = bus.on(self._builder.see, *HEARD, name="otlp")

    async def aclose(self) -> None:
        """Close without holding up the event loop."""
        await to_thread.run_sync(self.close)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is left, for at most so many seconds, and stop.

        Spans that are open are ended as abandoned. It blocks; closing twice is fine.
        """
        if self._closed:
            return
        if self._subscription is not None:
            self._subscription.close()
        self._builder.finish(time.time())
        before = self.dropped
        # The SDK's own closing waits for half a minute.
        closing = threading.Thread(
            target=self._queue.shutdown, name="agentfarm-otlp-close", daemon=True
        )
        patience_s = timeout_s if self._sender.is_well else min(timeout_s, _GRACE_S)
        self._sender.hurry()
        closing.start()
        closing.join(patience_s)
        if closing.is_alive():
            self._sender.shutdown()
            closing.join(_GRACE_S)
        self._closed = True
        lost = self.dropped - before
        if lost and self._sender.is_well:
            _log.warning(
                "%d spans could not be sent to %s at closing.", lost, self._sender.url
            )


class _Queue(BatchSpanProcessor):
    """The SDK's queue, which counts what it has no room for in place of logging it.

    Attributes:
        offered: Spans that came.
        dropped: Those for which there was no room.
    """

    def __init__(self, sender: _Sender) -> None:
        super().__init__(
            sender,
            # One that we never fill: the SDK logs each time it must drop.
            max_queue_size=_QUEUE + _BATCH,
            max_export_batch_size=_BATCH,
            schedule_delay_millis=_EVERY_S * 1000,
        )
        self._sender = sender
        self.offered = 0
        self.dropped = 0

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span in; the caller holds a lock."""
        self.offered += 1
        if self.offered - self.dropped - self._sender.tried > _QUEUE:
            self.dropped += 1
        else:
            super().on_end(span)


class _Sender(SpanExporter):
    """The OTLP exporter, which says once in place of always that it cannot send.

    Attributes:
        url: Where spans are posted.
        tried: Spans that were to be sent.
        sent: Those that the receiver took.
        dropped: Those that it did not take.
        is_well: Whether the newest batch was taken, if there was any.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self.tried = 0
        self.sent = 0
        self.dropped = 0
        self.is_well = True
        self._hurries = False
        self._closed = False
        self._session = _Session(self._stumbled)
        self._thread = 0
        self._exporter = OTLPSpanExporter(
            endpoint=url,
            headers=dict(headers),
            timeout=_REQUEST_TIMEOUT_S,
            session=self._session,
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, with the exporter's own retries."""
        self.tried += len(spans)
        if not self._closed and self._send(spans):
            self.sent += len(spans)
            return SpanExportResult.SUCCESS
        self.dropped += len(spans)
        return SpanExportResult.FAILURE

    def hurry(self) -> None:
        """Make no second try any more: the program is waiting for its end."""
        self._hurries = True
        if self._session.failure is not None:
            self.shutdown()

    def shutdown(self) -> None:
        """Send nothing more, and wait for no further try."""
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        del timeout_millis
        return True

    def _send(self, spans: Sequence[ReadableSpan]) -> bool:
        self._thread = threading.get_ident()
        log = logging.getLogger(OTLPSpanExporter.__module__)
        log.addFilter(self._is_foreign)
        try:
            result = self._exporter.export(spans)
        finally:
            log.removeFilter(self._is_foreign)
        # The exporter takes a redirect for a success.
        failure = self._session.failure
        if failure is None and result is not SpanExportResult.SUCCESS:
            failure = "they could not be encoded"
        self._tell(failure)
        return failure is None

    def _stumbled(self) -> None:
        """A request failed; the exporter would wait and try again."""
        if self._hurries:
            self.shutdown()

    def _tell(self, failure: str | None) -> None:
        was_well, self.is_well = self.is_well, failure is None
        if was_well and failure is not None:
            _log.warning(
                "Spans could not be sent to %s (%s). They are dropped and counted "
                "until it takes them again.",
                self.url,
                failure,
            )
        elif self.is_well and not was_well:
            _log.info("%s takes spans again; %d are lost.", self.url, self.dropped)

    def _is_foreign(self, record: logging.LogRecord) -> bool:
        """Whether a line of the exporter's log is about another than ours."""
        return record.thread != self._thread


class _Session(requests.Session):
    """The exporter's way to the network: straight to the receiver, no other way.

    Attributes:
        failure: Why the newest request failed; None where it did not.
    """

    def __init__(self, stumbled: Callable[[], None]) -> None:
        super().__init__()
        # A proxy, and a password in .netrc, are for other places than this one.
        self.trust_env = False
        self.failure: str | None = None
        self._stumbled = stumbled

    def send(
        self, request: requests.PreparedRequest, **kwargs: Any
    ) -> requests.Response:
        """Send one request, and note how it went."""
        kwargs["allow_redirects"] = False
        try:
            response = super().send(request, **kwargs)
        except requests.RequestException as error:
            self._fail(f"{type(error).__name__}: {error}"[:_SHOWN_CHARS])
            raise
        if 200 <= response.status_code < 300:
            self.failure = None
        else:
            self._fail(f"HTTP {response.status_code}")
        return response

    def _fail(self, why: str) -> None:
        self.failure = why
        self._stumbled()


def _traces_url(endpoint: str) -> str:
    """The URL to which traces are posted.

    Raises:
        ConfigError: The endpoint is no plain http or https URL.
    """
    parts = urlsplit(endpoint.strip())
    try:
        port = parts.port
    except ValueError:
        port = -1
    is_plain = parts.username is None and not parts.query and not parts.fragment
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == -1
        or not is_plain
    ):
        raise ConfigError(
            f"{endpoint.rpartition('@')[2].partition('?')[0]!r} is not the address of "
            "an OTLP receiver.",
            remedy="Write it like http://127.0.0.1:4318; a secret belongs into "
            "AGENTFARM_OTLP_HEADERS.",
        )
    path = parts.path.rstrip("/").removesuffix(_PATH)
    return urlunsplit((parts.scheme, parts.netloc, path + _PATH, "", ""))
