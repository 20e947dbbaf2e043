"""What a span says of an event, in the names of OpenTelemetry's conventions.

Names and values follow the Semantic Conventions for Generative AI, whose status is
"Development" (github.com/open-telemetry/semantic-conventions-genai, October 2026);
what they do not know begins with ``agentfarm.``. An unknown value is left out. What
people and models wrote, and errors may quote, is told only where `content` is true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agentfarm.events import EventType, RequestRecord

if TYPE_CHECKING:
    from agentfarm.events import Event

__all__ = ["ENDS", "STARTS", "Ending", "Opening", "ending", "names", "opening", "retry"]

Value = str | bool | int | float | list[str]
Attributes = Mapping[str, Value]
Name = tuple[str | None, ...]

STARTS = frozenset(
    {
        EventType.WORKFLOW_STARTED,
        EventType.RUN_STARTED,
        EventType.STEP_STARTED,
        EventType.AGENT_TOOL_CALL,
        EventType.LLM_REQUEST,
    }
)
ENDS = frozenset(
    {
        EventType.WORKFLOW_COMPLETED,
        EventType.WORKFLOW_FAILED,
        EventType.RUN_COMPLETED,
        EventType.INTERRUPT,
        EventType.STEP_COMPLETED,
        EventType.STEP_FAILED,
        EventType.AGENT_TOOL_RESULT,
        EventType.LLM_RESPONSE,
        EventType.LLM_ERROR,
    }
)
_WORKFLOW = "plan-execute-verify"
# Longest text of a person or a model in one attribute.
_MOST_CHARS = 16_384
# A model may ask for a tool under any name, and names the steps of its plan.
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_OWN_STAGE = re.compile(r"[a-z]+(:[0-9]{1,4})?")
_ERROR_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_. -]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How a span begins."""

    name: str
    attributes: Attributes
    calls_server: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a span ends: well, or with the kind of an error."""

    attributes: Attributes = field(default_factory=dict)
    error_type: str | None = None
    error: str | None = None


def names(event: Event) -> tuple[Name, ...]:
    """Under which names the event's span is found; the first is its own."""
    data, run_id = event.data, event.run_id
    kind = event.type.value
    if kind.startswith("llm_"):
        return (("request", event.request_id),)
    if kind.startswith("step_"):
        return ("stage", run_id, data.get("key")), ("agent", run_id, event.agent)
    if kind.startswith("agent_tool_"):
        return (("tool", run_id, event.agent, data.get("id")),)
    return (("run", run_id),)


def opening(event: Event, *, content: bool) -> Opening:
    """How the span of a starting event begins.

    The end of a request will do too, where its start was not heard.
    """
    described = _OPENINGS[event.type](event, content)
    own: dict[str, Value | None] = {
        "agentfarm.run.id": event.run_id,
        "agentfarm.request.id": event.request_id,
        "gen_ai.agent.name": event.agent if event.agent != "workflow" else None,
    }
    return Opening(
        name=described.name,
        attributes=_known(own) | dict(described.attributes),
        calls_server=described.calls_server,
    )


def ending(event: Event, *, content: bool) -> Ending:
    """How the span of an ending event ends."""
    found = _ENDINGS[event.type](event, content)
    if content or found.error is None:
        return found
    return Ending(attributes=found.attributes, error_type=found.error_type)


def retry(event: Event) -> Attributes:
    """What is said of an attempt that failed and will be made again."""
    data = event.data
    return _known(
        {
            "error.type": data.get("error_type"),
            "agentfarm.attempt": data.get("attempt"),
            "agentfarm.wait_s": data.get("wait_s"),
        }
    )


def _known(values: Mapping[str, Value | None]) -> dict[str, Value]:
    return {
        key: value for key, value in values.items() if value is not None and value != ""
    }


def _workflow(event: Event, content: bool) -> Opening:
    data = event.data
    said = {
        "agentfarm.workflow.task": _text(data.get("task")),
        "agentfarm.workflow.workspace": _text(data.get("workspace")),
    }
    return Opening(
        name=f"invoke_workflow {_WORKFLOW}",
        attributes=_known(
            {
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": _WORKFLOW,
                "agentfarm.workflow.resumed": data.get("resumed") is not None,
                **(said if content else {}),
            }
        ),
    )


def _run(event: Event, content: bool) -> Opening:
    del content
    data = event.data
    return Opening(
        name=f"evaluate {data.get('suite', '')}".rstrip(),
        attributes=_known(
            {
                "gen_ai.request.model": data.get("model"),
                "agentfarm.run.suite": data.get("suite"),
                "agentfarm.run.planned_samples": data.get("planned_samples"),
            }
        ),
    )


def _stage(event: Event, content: bool) -> Opening:
    key, title = str(event.data.get("key", "")), event.data.get("title")
    if not content and not _OWN_STAGE.fullmatch(key):
        key = key.partition(":")[0]
    return Opening(
        name=f"invoke_agent {event.agent or ''}".rstrip(),
        attributes=_known(
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.provider.name": "agentfarm",
                "agentfarm.stage": key,
                "agentfarm.stage.title": _text(title) if content else None,
            }
        ),
    )


def _tool(event: Event, content: bool) -> Opening:
    data = event.data
    name = str(data.get("tool", ""))
    if not _TOOL_NAME.fullmatch(name):
        name = "_OTHER"
    arguments = _text(_json(data.get("arguments"))) if content else None
    return Opening(
        name=f"execute_tool {name}",
        attributes=_known(
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": name,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.id": data.get("id"),
                "gen_ai.tool.call.arguments": arguments,
            }
        ),
    )


def _request(event: Event, content: bool) -> Opening:
    del content
    data = event.data
    record = data.get("record")
    if isinstance(record, RequestRecord):
        data = {
            "model": record.model,
            "provider": record.provider,
            "host": record.host,
            "sample_id": record.sample_id,
            "task_type": record.task_type,
        }
    model = data.get("model")
    return Opening(
        name=f"chat {model or ''}".rstrip(),
        attributes=_known(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": data.get("provider"),
                "gen_ai.request.model": model,
                "gen_ai.request.stream": True,  # the router streams every answer
                "agentfarm.task_type": data.get("task_type"),
                "agentfarm.sample.id": data.get("sample_id"),
                **_server(data.get("host")),
            }
        ),
        calls_server=True,
    )


def _server(host: str | None) -> dict[str, Value | None]:
    """Where a request goes; nothing for what is no URL, such as ``embedded``."""
    try:
        parts = urlsplit(host or "")
        port = parts.port
    except ValueError:
        return {}
    if not parts.hostname:
        return {}
    default = 443 if parts.scheme == "https" else 80
    return {"server.address": parts.hostname, "server.port": port or default}


def _answered(event: Event, content: bool) -> Ending:
    record = event.data.get("record")
    if not isinstance(record, RequestRecord):
        return Ending(error_type=None if _is_fine(event) else "_OTHER")
    is_ok = record.status == "ok"
    attributes = {
        "gen_ai.provider.name": record.provider,
        "gen_ai.response.model": record.model if is_ok else None,
        "gen_ai.response.finish_reasons": _one(record.finish_reason),
        "gen_ai.response.time_to_first_chunk": record.ttft_s,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "agentfarm.usage.estimated": record.tokens_estimated or None,
        "agentfarm.attempts": record.attempts,
        "agentfarm.queue_s": record.queue_s,
        "agentfarm.latency_s": record.latency_s,
        "agentfarm.output_tokens_per_s": record.output_tokens_per_s,
        "agentfarm.context_truncated": record.context_truncated or None,
        **_server(record.host),
    }
    if content:
        attributes["gen_ai.output.messages"] = _answer(event, record)
    return Ending(
        attributes=_known(attributes),
        error_type=None if is_ok else record.error_type or record.status,
        error=record.error,
    )


def _one(reason: str | None) -> list[str] | None:
    return None if reason is None else [reason]


def _answer(event: Event, record: RequestRecord) -> str | None:
    """The answer, in the form of the conventions' JSON schema of output messages."""
    text = event.data.get("text") or event.data.get("partial_text")
    if not text:
        return None
    part = {"type": "text", "content": _text(text)}
    reason = record.finish_reason or "error"
    return _json([{"role": "assistant", "parts": [part], "finish_reason": reason}])


def _used(event: Event, content: bool) -> Ending:
    data = event.data
    said = {"gen_ai.tool.call.result": _text(data.get("text"))} if content else {}
    if data.get("ok"):
        return Ending(attributes=_known(said))
    more = data.get("data")
    code = more.get("error") if isinstance(more, Mapping) else None
    return Ending(attributes=_known(said), error_type=_code(code))


def _ended(event: Event, content: bool) -> Ending:
    """Of a workflow, a run or a stage, which share the words."""
    data = event.data
    summary = _text(data.get("summary")) if content else None
    attributes = _known(
        {
            "agentfarm.ok": data.get("ok"),
            "agentfarm.run.finished_samples": data.get("finished_samples"),
            "agentfarm.workflow.summary": summary,
        }
    )
    if event.type is EventType.INTERRUPT:
        return Ending(attributes=attributes, error_type="interrupted")
    if _is_fine(event):
        return Ending(attributes=attributes)
    error = data.get("error") or ""
    # An evaluation puts the error's type before its message.
    is_run = event.type is EventType.RUN_COMPLETED
    kind = _code(error.partition(":")[0]) if is_run else "failed"
    return Ending(attributes=attributes, error_type=kind, error=_text(error))


def _is_fine(event: Event) -> bool:
    if event.type is EventType.RUN_COMPLETED:
        return event.data.get("status") != "failed"
    return not event.type.value.endswith(("_failed", "_error"))


def _code(value: object) -> str:
    is_code = isinstance(value, str) and _ERROR_CODE.fullmatch(value)
    return str(value) if is_code else "_OTHER"


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:_MOST_CHARS]


def _json(value: object) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, default=str)


_OPENINGS: Mapping[EventType, Callable[[Event, bool], Opening]] = {
    EventType.WORKFLOW_STARTED: _workflow,
    EventType.RUN_STARTED: _run,
    EventType.STEP_STARTED: _stage,
    EventType.AGENT_TOOL_CALL: _tool,
    EventType.LLM_REQUEST: _request,
    EventType.LLM_RESPONSE: _request,
    EventType.LLM_ERROR: _request,
}
_ENDINGS: Mapping[EventType, Callable[[Event, bool], Ending]] = {
    EventType.WORKFLOW_COMPLETED: _ended,
    EventType.WORKFLOW_FAILED: _ended,
    EventType.RUN_COMPLETED: _ended,
    EventType.INTERRUPT: _ended,
    EventType.STEP_COMPLETED: _ended,
    EventType.STEP_FAILED: _ended,
    EventType.AGENT_TOOL_RESULT: _used,
    EventType.LLM_RESPONSE: _answered,
    EventType.LLM_ERROR: _answered,
}
