"""What the API gives and takes, as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agentfarm.monitoring import GPUReading
from agentfarm.store import GPUSampleRecord, HostSampleRecord

__all__ = [
    "EventItem",
    "EventPage",
    "GPUState",
    "GroupPerformance",
    "Hardware",
    "HardwareHistory",
    "Liveness",
    "NewWorkflow",
    "Performance",
    "Problem",
    "ProviderState",
    "Providers",
    "RecentRequest",
    "RouterModel",
    "RouterState",
    "RunDetail",
    "RunItem",
    "RunList",
    "SampleItem",
    "Spread",
    "StepItem",
    "TokenSums",
    "TriedSource",
    "WorkflowState",
    "WorkflowTokens",
]

Status = Literal["running", "completed", "failed", "interrupted"]
Task = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)
]
# The name of a folder: no path, nothing hidden.
FolderName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
]


class Problem(BaseModel):
    """Why a request was not answered, for people."""

    detail: str
    remedy: str | None = None


class Liveness(BaseModel):
    """The server runs."""

    status: Literal["ok"] = "ok"


class TokenSums(BaseModel):
    """Tokens; null where no server told its count."""

    input: int | None
    output: int | None
    total: int | None


class Spread(BaseModel):
    """Milliseconds of the requests that succeeded; null where none did."""

    avg: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class GroupPerformance(BaseModel):
    """Requests of one model, one agent, or all of them.

    `total_requests` and `tokens` count everything since the server began to count;
    all else is of the latest requests, as many as `window` says.
    """

    total_requests: int
    tokens: TokenSums
    requests: int
    succeeded: int
    failed: int
    cancelled: int
    active: int
    success_rate: float | None
    latency_ms: Spread
    ttft_ms: Spread
    tokens_per_second: float | None = Field(
        description="Median over requests of the rate at which the answer came."
    )
    throughput_tokens_per_second: float | None = Field(
        description="Output tokens of all requests over the time they took together."
    )


class RecentRequest(BaseModel):
    """One finished request."""

    request_id: str
    run_id: str | None
    agent: str | None
    model: str
    status: Literal["ok", "error", "cancelled"]
    started_at: float
    latency_ms: float
    ttft_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    tokens_per_second: float | None
    error_type: str | None


class Performance(BaseModel):
    """How models and agents perform."""

    window: int
    overall: GroupPerformance
    by_model: dict[str, GroupPerformance]
    by_agent: dict[str, GroupPerformance]
    recent: list[RecentRequest]


class TriedSource(BaseModel):
    """A source of readings that gave none, and why."""

    source: str
    reason: str


class GPUState(BaseModel):
    """All GPUs at one moment; what is unknown is null, never 0."""

    timestamp: float
    duration_s: float
    power_w: float | None
    reason: str
    gpus: list[GPUReading]
    tried: list[TriedSource]


class Hardware(BaseModel):
    """GPUs and host at one moment; `host` is null where nobody samples it."""

    gpu: GPUState
    host: HostSampleRecord | None


class HardwareHistory(BaseModel):
    """Samples of the past, oldest first; averages of `step_s` seconds if not 0."""

    since: float
    until: float
    step_s: int
    gpus: list[GPUSampleRecord]
    host: list[HostSampleRecord]


class ProviderState(BaseModel):
    """One LLM server and its own word on whether it is ready."""

    provider: str
    host: str
    models: list[str]
    ok: bool
    detail: str
    latency_ms: float | None


class Providers(BaseModel):
    """The LLM servers, asked a few seconds ago at most."""

    providers: list[ProviderState]


class RouterModel(BaseModel):
    """One registered model and how it does."""

    name: str
    model: str
    provider: str
    host: str
    capabilities: list[str]
    task_types: list[str]
    active: int
    waiting: int
    limit: int
    circuit: Literal["closed", "open", "half-open"]
    probe_in_s: float
    blocked_s: float
    latency_ms: float | None
    completed: int
    failed: int
    last_error: str | None


class RouterState(BaseModel):
    """The models that requests may go to."""

    ok: bool
    models: list[RouterModel]


class RunItem(BaseModel):
    """One evaluation."""

    run_id: str
    suite: str
    model: str
    status: Status
    started_at: float
    finished_at: float | None
    planned_samples: int
    samples: int
    errors: int
    score: float | None
    error: str | None


class RunList(BaseModel):
    """Evaluations, newest first."""

    runs: list[RunItem]


class SampleItem(BaseModel):
    """One task answered once; the texts are null unless they were asked for."""

    sample_id: str
    task: str
    epoch: int
    status: Literal["ok", "error"]
    score: float | None
    started_at: float
    finished_at: float
    latency_ms: float | None
    ttft_ms: float | None
    tokens_per_second: float | None
    input_tokens: int | None
    output_tokens: int | None
    error_type: str | None
    error: str | None
    input: str | None = None
    target: str | None = None
    output: str | None = None
    explanation: str | None = None


class RunDetail(RunItem):
    """One evaluation with its finished samples."""

    config: dict[str, Any]
    sample_list: list[SampleItem]


class NewWorkflow(BaseModel):
    """A task for the agents."""

    model_config = ConfigDict(extra="forbid")

    task: Task = Field(description="What to do, in your words.")
    model: str | None = Field(
        default=None, max_length=200, description="A registered model, or the default."
    )
    workspace: FolderName | None = Field(
        default=None,
        description="Name of a new folder to work in, made among the server's "
        "workspaces; named after the workflow if null.",
    )
    rounds: int = Field(
        default=2, ge=0, le=10, description="Times that failed work goes back."
    )


class StepItem(BaseModel):
    """One finished step of a workflow."""

    key: str
    agent: str
    status: Literal["ok", "failed"]
    started_at: float
    finished_at: float
    input_tokens: int | None
    output_tokens: int | None


class WorkflowTokens(TokenSums):
    """What a workflow's finished steps cost."""

    by_agent: dict[str, TokenSums]


class WorkflowState(BaseModel):
    """A workflow as far as it is."""

    run_id: str
    task: str
    status: Status
    model: str | None
    workspace: str
    started_at: float
    finished_at: float | None
    summary: str | None
    error: str | None
    tokens: WorkflowTokens
    steps: list[StepItem]
    interruptible: bool = Field(description="Whether it runs in this server.")


class EventItem(BaseModel):
    """One event, as `WS /ws` sends it too."""

    type: str
    seq: int
    timestamp: float
    run_id: str | None
    agent: str | None
    request_id: str | None
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events of the recent past, oldest first.

    Ask for more with ``since`` set to `seq`. `missing` events after the asked
    ``since`` are gone; nothing after `oldest` is. A `server_id` other than before
    means that the numbers began anew.
    """

    server_id: str
    seq: int
    oldest: int
    missing: int
    events: list[EventItem]
