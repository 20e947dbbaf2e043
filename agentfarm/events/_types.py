"""The events themselves: plain values, cheap to make and to send."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, Literal

# Most values are of these, and what they are not takes long to find out.
_PLAIN = frozenset({str, int, float, bool, type(None)})


class EventType(StrEnum):
    """Every kind of event; the value is its name on the wire."""

    WORKFLOW_STARTED = "workflow_started"
    WORKFLOW_COMPLETED = "workflow_completed"
    WORKFLOW_FAILED = "workflow_failed"
    STEP_STARTED = "step_started"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    AGENT_MESSAGE = "agent_message"
    AGENT_THINKING = "agent_thinking"
    AGENT_TOOL_CALL = "agent_tool_call"
    AGENT_TOOL_RESULT = "agent_tool_result"
    CODE_GENERATED = "code_generated"
    CODE_MODIFIED = "code_modified"
    COLLABORATION = "collaboration"
    VERIFICATION = "verification"
    RUN_STARTED = "run_started"
    SAMPLE_COMPLETED = "sample_completed"
    RUN_COMPLETED = "run_completed"
    LLM_REQUEST = "llm_request"
    LLM_STREAM_CHUNK = "llm_stream_chunk"
    LLM_RETRY = "llm_retry"
    LLM_RESPONSE = "llm_response"
    LLM_ERROR = "llm_error"
    HARDWARE = "hardware"
    INTERRUPT = "interrupt"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """What one LLM request cost: the payload of LLM_RESPONSE and LLM_ERROR.

    Tokens and durations are None where they are unknown. Durations are seconds
    on the client's clock, defined in ``agentfarm.llm.Timing``; ``server_*`` is
    the server's own report.
    """

    request_id: str
    model: str
    provider: str
    host: str
    started_at: float
    status: Literal["ok", "error", "cancelled"]
    latency_s: float
    task_type: str = "general"
    run_id: str | None = None
    sample_id: str | None = None
    agent: str | None = None
    error_type: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_estimated: bool = False
    queue_s: float = 0.0
    ttft_s: float | None = None
    load_s: float | None = None
    output_tokens_per_s: float | None = None
    inter_chunk_p50_s: float | None = None
    inter_chunk_p95_s: float | None = None
    inter_chunk_max_s: float | None = None
    chunks: int = 0
    attempts: int = 1
    server_prompt_s: float | None = None
    server_output_s: float | None = None
    server_tokens_per_s: float | None = None
    context_truncated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        type: What kind.
        data: Its content: JSON values, or a RequestRecord under ``record``.
        run_id, agent, request_id: What it belongs to.
        timestamp: Unix time, seconds.
        seq: Position on the bus, given by it; 0 before that.
    """

    type: EventType
    data: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    agent: str | None = None
    request_id: str | None = None
    timestamp: float = field(default_factory=time.time)
    seq: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON values."""
        return {
            "type": self.type.value,
            "seq": self.seq,
            "timestamp": self.timestamp,
            "run_id": self.run_id,
            "agent": self.agent,
            "request_id": self.request_id,
            "data": _json_value(self.data),
        }


def _json_value(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, Mapping):
        return {
            str(key): item if type(item) in _PLAIN else _json_value(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_json_value(item) for item in value), key=str)
    return value
