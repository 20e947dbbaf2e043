"""What a person sees of a workflow, put together from its events."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from agentfarm.events import EventType, RequestRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentfarm.events import Event

State = Literal["waiting", "running", "done", "failed", "skipped"]

PHASES = {
    "plan": "Plan",
    "ux": "Design",
    "step": "Execute",
    "verify": "Verify",
    "review": "Review",
}
STREAM_CHARS = 3000
ENDED_STREAMS = 2  # those that have ended and still stand there
KEPT_CALLS = 40
_BRIEF_CHARS = 100


@dataclass(slots=True)
class StageView:
    """One stage: its key says which, e.g. ``plan``, ``step:a``, ``verify:2``."""

    key: str
    title: str
    agent: str
    state: State = "running"
    resumed: bool = False
    duration_s: float | None = None
    tokens: int = 0

    @property
    def phase(self) -> str:
        """The part of the stage bar that it belongs to."""
        kind = self.key.partition(":")[0]
        return "step" if kind == "fix" else kind


@dataclass(slots=True)
class StreamView:
    """The end of what a model writes or wrote in one request."""

    agent: str
    model: str = ""
    text: str = ""
    thinking: str = ""
    ended: bool = False


@dataclass(slots=True)
class CallView:
    """One call of a tool; `ok` is None while it runs."""

    id: str
    agent: str
    tool: str
    arguments: str
    ok: bool | None = None
    answer: str = ""


@dataclass(slots=True)
class TokensView:
    """What one agent cost so far; rates are of its latest request."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    tokens_per_s: float | None = None


@dataclass(slots=True)
class WorkflowView:
    """The whole picture; `take` one event after the other.

    Nothing is forgotten but the beginning of long texts and lists.
    """

    task: str = ""
    run_id: str = ""
    status: Literal["idle", "running", "completed", "failed", "interrupted"] = "idle"
    message: str = ""
    started: float = field(default_factory=time.monotonic)
    duration_s: float | None = None
    stages: dict[str, StageView] = field(default_factory=dict)
    streams: dict[str, StreamView] = field(default_factory=dict)
    calls: deque[CallView] = field(default_factory=lambda: deque(maxlen=KEPT_CALLS))
    tokens: dict[str, TokensView] = field(default_factory=dict)
    checks: tuple[Mapping[str, Any], ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    notices: deque[str] = field(default_factory=lambda: deque(maxlen=6))

    def take(self, event: Event) -> None:
        """Let one event of the workflow change the picture."""
        handler = _HANDLERS.get(event.type)
        if handler is not None:
            handler(self, event)

    def phase_state(self, phase: str) -> State:
        """How far one part of the stage bar is."""
        states = [stage.state for stage in self.stages.values() if stage.phase == phase]
        if "running" in states:
            return "running"
        if states:
            return states[-1]
        if phase == "ux" and any(s.phase == "step" for s in self.stages.values()):
            return "skipped"
        return "waiting"

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, or that it took."""
        if self.duration_s is not None:
            return self.duration_s
        return time.monotonic() - self.started

    @property
    def round(self) -> int:
        """Which round of verification this is; 0 before the first."""
        return sum(stage.phase == "verify" for stage in self.stages.values())

    def end(self, status: Literal["interrupted", "failed"], message: str) -> None:
        """It ended without saying so itself."""
        self.status, self.message = status, message
        self.duration_s = self.elapsed_s
        self._stop_running()

    def _stop_running(self) -> None:
        for stage in self.stages.values():
            if stage.state == "running":
                stage.state = "waiting"
        for stream in self.streams.values():
            stream.ended = True


def _workflow_started(view: WorkflowView, event: Event) -> None:
    view.status, view.run_id = "running", event.run_id or ""
    view.task = str(event.data.get("task") or view.task)
    view.started, view.duration_s = time.monotonic(), None


def _workflow_ended(view: WorkflowView, event: Event) -> None:
    completed = event.type is EventType.WORKFLOW_COMPLETED
    view.status = "completed" if completed else "failed"
    view.message = str(event.data.get("error") or event.data.get("summary") or "")
    view.duration_s = event.data.get("duration_s") or view.elapsed_s
    view._stop_running()


def _interrupted(view: WorkflowView, event: Event) -> None:
    view.end("interrupted", f"Every finished step of {event.run_id} is kept.")


def _stage(view: WorkflowView, event: Event) -> None:
    data, key = event.data, str(event.data["key"])
    stage = view.stages.get(key)
    if stage is None:
        stage = StageView(key=key, title=str(data["title"]), agent=event.agent or "")
        view.stages[key] = stage
    if event.type is EventType.STEP_STARTED:
        stage.state = "running"
        return
    failed = event.type is EventType.STEP_FAILED or data.get("ok") is False
    stage.state = "failed" if failed else "done"
    stage.resumed = bool(data.get("resumed"))
    stage.duration_s = data.get("duration_s")
    stage.tokens = int(data.get("tokens") or 0)


def _request(view: WorkflowView, event: Event) -> None:
    view.streams[event.request_id or ""] = StreamView(
        agent=event.agent or "", model=str(event.data.get("model") or "")
    )


def _chunk(view: WorkflowView, event: Event) -> None:
    stream = view.streams.get(event.request_id or "")
    if stream is not None:
        stream.text = (stream.text + event.data.get("text", ""))[-STREAM_CHARS:]
        thinking = stream.thinking + event.data.get("reasoning", "")
        stream.thinking = thinking[-STREAM_CHARS:]


def _response(view: WorkflowView, event: Event) -> None:
    stream = view.streams.get(event.request_id or "")
    if stream is not None:
        stream.ended = True
    ended = [name for name, stream in view.streams.items() if stream.ended]
    for name in ended[:-ENDED_STREAMS]:
        del view.streams[name]
    record = event.data.get("record")
    if isinstance(record, RequestRecord):
        _count(view.tokens.setdefault(record.agent or "no agent", TokensView()), record)


def _count(tokens: TokensView, record: RequestRecord) -> None:
    tokens.requests += 1
    tokens.input_tokens += record.input_tokens or 0
    tokens.output_tokens += record.output_tokens or 0
    unknown = record.input_tokens is None or record.output_tokens is None
    tokens.estimated = tokens.estimated or record.tokens_estimated or unknown
    tokens.tokens_per_s = record.output_tokens_per_s


def _tool_call(view: WorkflowView, event: Event) -> None:
    call = CallView(
        id=str(event.data["id"]),
        agent=event.agent or "",
        tool=str(event.data["tool"]),
        arguments=_brief(event.data.get("arguments")),
    )
    view.calls.append(call)


def _tool_result(view: WorkflowView, event: Event) -> None:
    told = (str(event.data["id"]), event.agent or "", str(event.data["tool"]))
    # Ids are unique in one run of an agent only, so the open one is meant.
    for call in view.calls:
        if call.ok is None and (call.id, call.agent, call.tool) == told:
            call.ok = bool(event.data["ok"])
            call.answer = _short(str(event.data.get("text") or ""))
            return


def _file(view: WorkflowView, event: Event) -> None:
    word = "new" if event.type is EventType.CODE_GENERATED else "changed"
    view.files.setdefault(str(event.data["path"]), word)


def _verification(view: WorkflowView, event: Event) -> None:
    view.checks = tuple(event.data.get("checks") or ())


def _message(view: WorkflowView, event: Event) -> None:
    if event.data.get("notice"):
        view.notices.append(f"{event.agent}: {_short(str(event.data['text']))}")


def _retry(view: WorkflowView, event: Event) -> None:
    wait_s = event.data.get("wait_s") or 0.0
    view.notices.append(
        f"{event.agent}: asked again after {wait_s:.1f} s: {event.data.get('error')}"
    )


def _brief(arguments: Mapping[str, Any] | None) -> str:
    """Arguments in one line; a long value by its beginning."""
    parts = [f"{name}={value!r:.60}" for name, value in (arguments or {}).items()]
    return _short(", ".join(parts))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _BRIEF_CHARS else f"{line[: _BRIEF_CHARS - 1]}…"


_HANDLERS = {
    EventType.WORKFLOW_STARTED: _workflow_started,
    EventType.WORKFLOW_COMPLETED: _workflow_ended,
    EventType.WORKFLOW_FAILED: _workflow_ended,
    EventType.INTERRUPT: _interrupted,
    EventType.STEP_STARTED: _stage,
    EventType.STEP_COMPLETED: _stage,
    EventType.STEP_FAILED: _stage,
    EventType.LLM_REQUEST: _request,
    EventType.LLM_STREAM_CHUNK: _chunk,
    EventType.LLM_RESPONSE: _response,
    EventType.LLM_ERROR: _response,
    EventType.LLM_RETRY: _retry,
    EventType.AGENT_TOOL_CALL: _tool_call,
    EventType.AGENT_TOOL_RESULT: _tool_result,
    EventType.AGENT_MESSAGE: _message,
    EventType.CODE_GENERATED: _file,
    EventType.CODE_MODIFIED: _file,
    EventType.VERIFICATION: _verification,
}
