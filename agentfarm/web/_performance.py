"""How models and agents perform, as the API says it, counted once for all who ask."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from agentfarm.events import EventType, RequestRecord
from agentfarm.web._answers import tag_of
from agentfarm.web._json import encode_model
from agentfarm.web._models import (
    GroupPerformance,
    Performance,
    RecentRequest,
    Spread,
    TokenSums,
)

if TYPE_CHECKING:
    from agentfarm.events import Event
    from agentfarm.monitoring import RequestStats
    from agentfarm.runtime import Runtime

__all__ = ["PerformanceFeed", "group", "milliseconds"]

_RECENT = 20
# Somebody may record into the tracker without the bus.
_FRESH_S = 1.0
_KINDS = (EventType.LLM_REQUEST, EventType.LLM_RESPONSE, EventType.LLM_ERROR)


class PerformanceFeed:
    """A tracker's statistics as JSON, made anew only after something happened.

    Args:
        runtime: Whose requests.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._tracker = runtime.tracker
        self._recent: deque[RecentRequest] = deque(maxlen=_RECENT)
        for event in runtime.bus.history(*_KINDS[1:], limit=_RECENT):
            self._keep(event)
        self._version = 0
        self._made: tuple[int, float, bytes, str] | None = None
        self._subscription = runtime.bus.on(self._see, *_KINDS, name="web performance")

    def close(self) -> None:
        """Follow the bus no longer."""
        self._subscription.close()

    def note(self, record: RequestRecord) -> None:
        """Show a request that the tracker was told of beside the bus."""
        self._recent.append(_recent(record))
        self._version += 1

    def read(self) -> tuple[bytes, str]:
        """The JSON of a `Performance`, and its tag."""
        now, made = time.monotonic(), self._made
        if made is not None and made[0] == self._version and now - made[1] < _FRESH_S:
            return made[2], made[3]
        version = self._version
        body = encode_model(self._performance())
        self._made = (version, now, body, tag_of(body))
        return body, self._made[3]

    def _performance(self) -> Performance:
        snapshot = self._tracker.snapshot()
        return Performance(
            window=snapshot.window,
            overall=group(snapshot.overall),
            by_model={name: group(stats) for name, stats in snapshot.by_model.items()},
            by_agent={name: group(stats) for name, stats in snapshot.by_agent.items()},
            recent=list(reversed(tuple(self._recent))),
        )

    def _see(self, event: Event) -> None:
        self._keep(event)
        self._version += 1

    def _keep(self, event: Event) -> None:
        record = event.data.get("record")
        if isinstance(record, RequestRecord):
            self._recent.append(_recent(record))


def group(stats: RequestStats) -> GroupPerformance:
    """The statistics of one group under the names of the API."""
    total = stats.lifetime
    inputs = _known(total.input_tokens, total.unknown_input, total.requests)
    outputs = _known(total.output_tokens, total.unknown_output, total.requests)
    both = None if inputs is None or outputs is None else inputs + outputs
    return GroupPerformance(
        total_requests=total.requests,
        tokens=TokenSums(input=inputs, output=outputs, total=both),
        requests=stats.requests,
        succeeded=stats.succeeded,
        failed=stats.failed,
        cancelled=stats.cancelled,
        active=stats.active,
        success_rate=stats.success_rate,
        latency_ms=Spread(
            avg=milliseconds(stats.latency_avg_s),
            p50=milliseconds(stats.latency_p50_s),
            p95=milliseconds(stats.latency_p95_s),
            p99=milliseconds(stats.latency_p99_s),
        ),
        ttft_ms=Spread(
            avg=milliseconds(stats.ttft_avg_s),
            p50=milliseconds(stats.ttft_p50_s),
            p95=milliseconds(stats.ttft_p95_s),
            p99=milliseconds(stats.ttft_p99_s),
        ),
        tokens_per_second=stats.output_tokens_per_s,
        throughput_tokens_per_second=stats.throughput_tokens_per_s,
    )


def milliseconds(seconds: float | None) -> float | None:
    """Seconds as milliseconds, to the microsecond."""
    return None if seconds is None else round(seconds * 1000, 3)


def _known(tokens: int, unknown: int, requests: int) -> int | None:
    """A sum of counts; None where requests finished and no count is known."""
    return None if requests and unknown == requests else tokens


def _recent(record: RequestRecord) -> RecentRequest:
    return RecentRequest(
        request_id=record.request_id,
        run_id=record.run_id,
        agent=record.agent,
        model=record.model,
        status=record.status,
        started_at=record.started_at,
        latency_ms=round(record.latency_s * 1000, 3),
        ttft_ms=milliseconds(record.ttft_s),
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        tokens_per_second=record.output_tokens_per_s,
        error_type=record.error_type,
    )
