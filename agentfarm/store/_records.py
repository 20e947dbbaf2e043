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


@dataclass(frozen=True, kw_only=True, slots=True)
class GPUSampleRecord:
    """A card, or a MIG instance of one, at one moment or over a span of time.

    A value is a mean where `step_s` is not 0; what is unknown is None. The `…_min_…`
    and `…_max_…` fields are None where it is 0.

    Attributes:
        step_s: 0 for a moment, else the span's length, seconds.
        timestamp: Unix time, seconds; where the span begins.
        hostname: The machine's.
        uuid, gpu_index, vendor, source, name, driver, parent: As in
            ``monitoring.GPUReading``; of a span, one of those that it saw.
        samples: Moments that went into it.
        covered_s: Seconds of the span that samples tell about: each one about the
            time since the one before, unless that was longer ago than 5 s.
        temperature_c, temperature_min_c, temperature_max_c: Edge (AMD) or GPU
            (NVIDIA), °C.
        junction_temperature_c, junction_temperature_min_c,
            junction_temperature_max_c: Hottest spot, °C.
        memory_temperature_c, memory_temperature_min_c, memory_temperature_max_c: °C.
        temperature_limit_c: Where the card slows itself down, °C.
        vram_used_bytes, vram_used_max_bytes, vram_total_bytes: Memory on the card.
        power_w, power_min_w, power_max_w, power_limit_w: Drawn, and the cap, watts.
        utilization_percent, utilization_min_percent, utilization_max_percent: Share
            of time in which it computed.
        memory_utilization_percent: Share of time in which its memory was accessed.
        core_clock_mhz, memory_clock_mhz, fan_percent, fan_rpm: As in GPUReading.
        throttled_share: Share of the moments, 0 to 1, in which it was throttled.
        thermal_share: The same, where heat was the reason.
        throttle_reasons: Why, joined by commas; only of a moment.
        error: Why it could not be read; of a span, one of the reasons.
    """

    step_s: int
    timestamp: float
    hostname: str
    uuid: str
    gpu_index: int
    vendor: str
    source: str
    name: str | None = None
    driver: str | None = None
    parent: str | None = None
    samples: int = 1
    covered_s: float = 0.0
    temperature_c: float | None = None
    temperature_min_c: float | None = None
    temperature_max_c: float | None = None
    junction_temperature_c: float | None = None
    junction_temperature_min_c: float | None = None
    junction_temperature_max_c: float | None = None
    memory_temperature_c: float | None = None
    memory_temperature_min_c: float | None = None
    memory_temperature_max_c: float | None = None
    temperature_limit_c: float | None = None
    vram_used_bytes: int | None = None
    vram_used_max_bytes: int | None = None
    vram_total_bytes: int | None = None
    power_w: float | None = None
    power_min_w: float | None = None
    power_max_w: float | None = None
    power_limit_w: float | None = None
    utilization_percent: float | None = None
    utilization_min_percent: float | None = None
    utilization_max_percent: float | None = None
    memory_utilization_percent: float | None = None
    core_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    fan_percent: float | None = None
    fan_rpm: float | None = None
    throttled_share: float | None = None
    thermal_share: float | None = None
    throttle_reasons: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSampleRecord:
    """A machine without its GPUs, at one moment or over a span of time.

    `step_s`, `timestamp`, `hostname`, `samples`, `covered_s` and the spans' means,
    minima and maxima are as in `GPUSampleRecord`.

    Attributes:
        cpu_percent, cpu_min_percent, cpu_max_percent: Busy share of all processors,
            0 to 100, since the sample before.
        load_1m: Load average over a minute.
        memory_used_bytes, memory_used_max_bytes, memory_total_bytes: Main memory;
            used is what is not available to a new program.
        disk_used_bytes, disk_total_bytes: Of the file system of AgentFarm's home.
        disk_read_bytes_per_s, disk_write_bytes_per_s: Of all disks together.
        network_received_bytes_per_s, network_sent_bytes_per_s: Of all interfaces
            together but the loopback.
        error: Why it could not be read.
    """

    step_s: int
    timestamp: float
    hostname: str
    samples: int = 1
    covered_s: float = 0.0
    cpu_percent: float | None = None
    cpu_min_percent: float | None = None
    cpu_max_percent: float | None = None
    load_1m: float | None = None
    memory_used_bytes: int | None = None
    memory_used_max_bytes: int | None = None
    memory_total_bytes: int | None = None
    disk_used_bytes: int | None = None
    disk_total_bytes: int | None = None
    disk_read_bytes_per_s: float | None = None
    disk_write_bytes_per_s: float | None = None
    network_received_bytes_per_s: float | None = None
    network_sent_bytes_per_s: float | None = None
    error: str | None = None
