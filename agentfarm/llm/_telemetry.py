"""What a request cost, as the record that events carry and the Store keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from agentfarm.events import Event, EventType, RequestRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentfarm.events import EventBus
    from agentfarm.llm._hosts import Lane
    from agentfarm.llm._messages import ChatChunk, ChatRequest, ChatResponse

__all__ = ["Outcome", "Reporter", "percentile"]


def percentile(ordered: Sequence[float], q: float) -> float | None:
    """The q-quantile (0 to 1) of ascending values; None of none.

    Linear interpolation between the closest ranks, position ``(n - 1) * q``:
    type 7 of Hyndman and Fan (1996), the default of numpy and R.
    """
    if not ordered:
        return None
    position = (len(ordered) - 1) * q
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What is known of a request while it runs, and how it ended.

    Attributes:
        lane: Where it was last sent, or would have been.
        started_at: Unix time of the newest attempt, or of the call before one.
        latency_s: Time that attempt took.
        queue_s: Time spent waiting for a place on a host, all attempts together.
        attempts: Requests sent.
        chunks: Of the newest attempt.
        response: The answer, if one came.
        error: Why none came.
        cancelled: The consumer left.
    """

    started_at: float
    lane: Lane | None = None
    latency_s: float = 0.0
    queue_s: float = 0.0
    attempts: int = 0
    chunks: list[ChatChunk] = field(default_factory=list)
    response: ChatResponse | None = None
    error: BaseException | None = None
    cancelled: bool = False

    @property
    def text(self) -> str:
        """The content that was streamed so far."""
        return "".join([chunk.text for chunk in self.chunks])


class Reporter:
    """Emits the LLM_* events of one request; without a bus it does nothing."""

    __slots__ = ("_agent", "_bus", "_request", "_request_id", "_run_id")

    def __init__(self, bus: EventBus | None, request: ChatRequest) -> None:
        self._bus = bus
        self._request = request
        self._run_id = request.context.run_id
        self._agent = request.context.agent
        self._request_id = request.request_id

    @property
    def live(self) -> bool:
        """Whether anything is emitted at all."""
        return self._bus is not None

    def requested(self, lane: Lane | None) -> None:
        """A request begins; `lane` is the router's first choice."""
        request = self._request
        self._emit(
            EventType.LLM_REQUEST,
            {
                "model": lane.entry.name if lane else request.model,
                "provider": lane.entry.provider.kind if lane else "router",
                "host": lane.entry.provider.host if lane else "",
                "task_type": request.task_type,
                "messages": len(request.messages),
                "tools": [tool.name for tool in request.tools],
                "sample_id": request.context.sample_id,
            },
        )

    def streamed(self, chunk: ChatChunk) -> None:
        """A piece of the answer arrived."""
        if self._bus is not None:
            # Spelled out: this runs for every chunk, and each call layer shows.
            self._bus.publish(
                Event(
                    type=EventType.LLM_STREAM_CHUNK,
                    data={
                        "text": chunk.text,
                        "reasoning": chunk.reasoning,
                        "at_s": chunk.at_s,
                    },
                    run_id=self._run_id,
                    agent=self._agent,
                    request_id=self._request_id,
                )
            )

    def retrying(
        self, lane: Lane, error: BaseException, *, attempt: int, wait_s: float
    ) -> None:
        """Attempt number `attempt` comes after `wait_s`, since `lane` failed."""
        self._emit(
            EventType.LLM_RETRY,
            {
                "attempt": attempt,
                "error": str(error),
                "error_type": type(error).__name__,
                "wait_s": wait_s,
                "host": lane.entry.provider.host,
                "model": lane.entry.name,
            },
        )

    def ended(self, outcome: Outcome) -> None:
        """The one terminal event."""
        record = _record(self._request, outcome)
        if outcome.response is not None and record.status == "ok":
            data = {"record": record, "text": outcome.response.text}
            self._emit(EventType.LLM_RESPONSE, data)
        else:
            data = {"record": record, "partial_text": outcome.text}
            self._emit(EventType.LLM_ERROR, data)

    def _emit(self, type_: EventType, data: Mapping[str, Any]) -> None:
        if self._bus is not None:
            self._bus.emit(
                type_,
                data,
                run_id=self._run_id,
                agent=self._agent,
                request_id=self._request_id,
            )


def _record(request: ChatRequest, outcome: Outcome) -> RequestRecord:
    status: Literal["ok", "error", "cancelled"] = "ok"
    if outcome.cancelled:
        status = "cancelled"
    elif outcome.error is not None or outcome.response is None:
        status = "error"
    entry = outcome.lane.entry if outcome.lane else None
    error = outcome.error
    return RequestRecord(
        request_id=request.request_id,
        model=entry.name if entry else request.model or "",
        provider=entry.provider.kind if entry else "router",
        host=entry.provider.host if entry else "",
        started_at=outcome.started_at,
        status=status,
        task_type=request.task_type,
        run_id=request.context.run_id,
        sample_id=request.context.sample_id,
        agent=request.context.agent,
        error_type=type(error).__name__ if error is not None else None,
        error=str(error) if error is not None else None,
        queue_s=outcome.queue_s,
        attempts=max(1, outcome.attempts),
        chunks=len(outcome.chunks),
        **(
            _measured(outcome.response)
            if status == "ok" and outcome.response is not None
            else _partial(outcome)
        ),
    )


def _measured(response: ChatResponse) -> dict[str, Any]:
    usage, timing, server = response.usage, response.timing, response.server
    return {
        "latency_s": timing.latency_s,
        "finish_reason": response.finish_reason,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "tokens_estimated": usage.estimated,
        "ttft_s": timing.ttft_s,
        "load_s": timing.load_s,
        "output_tokens_per_s": response.output_tokens_per_s,
        "server_prompt_s": server.prompt_s,
        "server_output_s": server.output_s,
        "server_tokens_per_s": server.output_tokens_per_s,
        "context_truncated": response.context_truncated,
        **_gaps(timing.inter_chunk_s),
    }


def _partial(outcome: Outcome) -> dict[str, Any]:
    """What a request that failed or was cancelled had cost until then."""
    stamps = [chunk.at_s for chunk in outcome.chunks]
    return {
        "latency_s": outcome.latency_s,
        "ttft_s": stamps[0] if stamps else None,
        **_gaps([late - early for early, late in pairwise(stamps)]),
    }


def _gaps(gaps_s: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(gaps_s)
    return {
        "inter_chunk_p50_s": percentile(ordered, 0.5),
        "inter_chunk_p95_s": percentile(ordered, 0.95),
        "inter_chunk_max_s": ordered[-1] if ordered else None,
    }
