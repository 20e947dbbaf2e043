"""The rows of the Store, as the rest of the package sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RunStatus = Literal["running", "completed", "interrupted", "failed"]
SampleStatus = Literal["ok", "error"]
WorkflowStatus = Literal["running", "completed", "failed", "interrupted"]
WorkflowStepStatus = Literal["ok", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One evaluation of a suite against a model.

    Attributes:
        run_id: Unique, sortable by time.
        suite: Name of the suite.
        suite_hash: Hash of its tasks, so that two runs are comparable or not.
        model: The model's registered name.
        status: A reader reports ``interrupted`` for a ``running`` row whose
            process is gone.
        started_at, finished_at: Unix time, seconds.
        planned_samples: Tasks times epochs.
        epochs, concurrency: As asked for.
        config: Sampling settings and whatever else shaped the run (JSON).
        pid, process_started_at, hostname: The process that runs it.
        version: AgentFarm's version.
        error: Why it failed, if it did.
    """

    run_id: str
    suite: str
    suite_hash: str
    model: str
    status: RunStatus
    started_at: float
    planned_samples: int
    epochs: int
    concurrency: int
    finished_at: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    pid: int | None = None
    process_started_at: float | None = None
    hostname: str | None = None
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRecord:
    """One task answered once and scored.

    Attributes:
        sample_id: Unique; ``{run_id}-{task}-{epoch}``.
        run_id, task, epoch: Where it belongs; `epoch` counts from 1.
        status: ``error`` where no answer or no score came about.
        score: 0 to 1; None with ``error``.
        input, target, output: As text, for people.
        scorer, explanation: How the score came about.
        error_type, error: Why there is none.
        started_at, finished_at: Unix time, seconds.
        latency_s, ttft_s, queue_s, load_s: Seconds, as in ``llm.Timing``.
        output_tokens_per_s: Decode rate, tokens per second.
        input_tokens, output_tokens: None where the server did not say.
        tokens_estimated: The counts are a tokenizer's.
        finish_reason: The server's.
        context_truncated: The server seems to have cut the prompt.
        attempts: Tries it took.
        metadata: Whatever a task or scorer adds (JSON).
    """

    sample_id: str
    run_id: str
    task: str
    epoch: int
    status: SampleStatus
    score: float | None
    input: str
    target: str
    output: str
    scorer: str
    started_at: float
    finished_at: float
    explanation: str = ""
    error_type: str | None = None
    error: str | None = None
    latency_s: float | None = None
    ttft_s: float | None = None
    queue_s: float | None = None
    load_s: float | None = None
    output_tokens_per_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    tokens_estimated: bool = False
    finish_reason: str | None = None
    context_truncated: bool = False
    attempts: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleTally:
    """What the samples of one run add up to.

    Attributes:
        samples, errors: How many are kept, and how many of them have no score.
        score: Mean, an error counting 0; None without samples.
    """

    samples: int = 0
    errors: int = 0
    score: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowRecord:
    """One task that agents worked on.

    Attributes:
        run_id: Unique, sortable by time.
        task: What was asked for.
        workspace: Folder that the agents work in, as an absolute path.
        model: The registered name of the model; None where each agent has its own.
        status: A reader reports ``interrupted`` for a ``running`` row whose
            process is gone.
        started_at, finished_at: Unix time, seconds.
        config: Whatever else shaped it, such as limits and seeds (JSON).
        summary: What came of it, for people.
        error: Why it failed, if it did.
        pid, process_started_at, hostname: The process that runs it.
        version: AgentFarm's version.
    """

    run_id: str
    task: str
    workspace: str
    model: str | None
    status: WorkflowStatus
    started_at: float
    finished_at: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: str | None = None
    error: str | None = None
    pid: int | None = None
    process_started_at: float | None = None
    hostname: str | None = None
    version: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowStepRecord:
    """One finished step of a workflow: what a resumed one need not do again.

    Attributes:
        run_id: The workflow's.
        key: Which step, unique within the workflow, e.g. ``plan`` or ``verify:1``.
        seq: Its place among the workflow's steps.
        agent: Who did it.
        status: How it ended.
        started_at, finished_at: Unix time, seconds.
        output: What it handed on (JSON).
        input_tokens, output_tokens: Of all its requests; None where unknown.
    """

    run_id: str
    key: str
    seq: int
    agent: str
    status: WorkflowStepStatus
    started_at: float
    finished_at: float
    output: Mapping[str, Any] = field(default_factory=dict)
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryRecord:
    """Something that agents shall find again, in one project only.

    Attributes:
        memory_id: Unique, sortable by time.
        project: Whom it belongs to.
        kind: What it is, e.g. ``note``.
        text: Its content.
        created_at: Unix time, seconds.
        metadata: Whatever belongs to it (JSON).
    """

    memory_id: str
    project: str
    kind: str
    text: str
    created_at: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
