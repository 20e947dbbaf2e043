"""What Prometheus reads: `/metrics`, under the names of OpenTelemetry.

Metrics of models are those of the GenAI semantic conventions, of GPUs those of the
hardware conventions, translated as OpenTelemetry's Prometheus exporters do: dots are
underscores, and the unit is the ending. What the conventions do not know begins with
``agentfarm_``. A value that is unknown is left out, never 0.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from agentfarm._version import __version__
from agentfarm.events import EventType, RequestRecord
from agentfarm.web._farm import Farm, OfFarm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentfarm.events import Event, EventBus
    from agentfarm.monitoring import GPUReading

__all__ = ["Metrics", "router"]

router = APIRouter(tags=["metrics"])

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = tuple(0.01 * 2**n for n in range(14))
_TOKENS = tuple(float(4**n) for n in range(14))
# Label sets beyond this share one, so that odd names cannot fill the memory.
_MOST_SERIES = 512
_OTHERS = "(others)"
_TOKEN_USAGE = "gen_ai_client_token_usage"  # noqa: S105 - not a password

Labels = tuple[tuple[str, str], ...]
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(slots=True)
class _Series:
    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class _Histogram:
    name: str
    help: str
    bounds: tuple[float, ...]
    series: dict[Labels, _Series] = field(default_factory=dict)

    def observe(self, value: float, labels: Labels) -> None:
        if labels not in self.series and len(self.series) >= _MOST_SERIES:
            labels = tuple((name, _OTHERS) for name, _ in labels)
        series = self.series.get(labels)
        if series is None:
            counts = [0] * (len(self.bounds) + 1)
            series = self.series[labels] = _Series(counts)
        series.counts[bisect_left(self.bounds, value)] += 1
        series.total += value

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.help, "histogram")
        bounds = (*(f"{bound:g}" for bound in self.bounds), "+Inf")
        for labels, series in self.series.items():
            below = 0
            for bound, count in zip(bounds, series.counts, strict=True):
                below += count
                yield _line(f"{self.name}_bucket", (*labels, ("le", bound)), below)
            yield _line(f"{self.name}_sum", labels, series.total)
            yield _line(f"{self.name}_count", labels, below)


class Metrics:
    """Histograms of requests and workflows, fed by a bus.

    Args:
        bus: Whose requests.
    """

    def __init__(self, bus: EventBus) -> None:
        self._lock = threading.Lock()
        self._tokens = _Histogram(_TOKEN_USAGE, "Tokens of a request.", _TOKENS)
        self._duration = _Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Time that a request took.",
            _SECONDS,
        )
        self._first = _Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time to the first chunk of an answer.",
            _SECONDS,
        )
        self._workflow = _Histogram(
            "gen_ai_workflow_duration_seconds",
            "Time that a workflow took.",
            tuple(16 * bound for bound in _SECONDS),
        )
        self._subscription = bus.on(
            self._see,
            EventType.LLM_RESPONSE,
            EventType.LLM_ERROR,
            EventType.WORKFLOW_COMPLETED,
            EventType.WORKFLOW_FAILED,
            name="web metrics",
        )

    def close(self) -> None:
        """Follow the bus no longer."""
        self._subscription.close()

    def observe(self, record: RequestRecord) -> None:
        """Take in one finished request; from any thread."""
        labels: Labels = (
            ("gen_ai_operation_name", "chat"),
            ("gen_ai_provider_name", record.provider),
            ("gen_ai_request_model", record.model),
            ("gen_ai_agent_name", record.agent or ""),
        )
        ended: Labels = (*labels, ("error_type", _error_type(record)))
        counts = {"input": record.input_tokens, "output": record.output_tokens}
        with self._lock:
            self._duration.observe(record.latency_s, ended)
            if record.ttft_s is not None:
                self._first.observe(record.ttft_s, labels)
            for kind, tokens in counts.items():
                if tokens is not None:
                    typed = (*labels, ("gen_ai_token_type", kind))
                    self._tokens.observe(tokens, typed)

    def text(self) -> str:
        """The histograms in Prometheus' text format."""
        found = (self._tokens, self._duration, self._first, self._workflow)
        with self._lock:
            return "".join(line for each in found for line in each.lines())

    def _see(self, event: Event) -> None:
        record = event.data.get("record")
        if isinstance(record, RequestRecord):
            self.observe(record)
        elif (duration_s := event.data.get("duration_s")) is not None:
            failed = event.type is EventType.WORKFLOW_FAILED
            with self._lock:
                ended = (("error_type", "failed" if failed else ""),)
                self._workflow.observe(duration_s, ended)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format, version 0.0.4."}},
)
async def metrics(farm: OfFarm) -> Response:
    """Requests, tokens, latency, GPUs and this server, for Prometheus."""
    gpus = (await farm.gpus.snapshot()).gpus
    text = "".join(
        [
            *_metric("target_info", "This server.", "gauge", _target()),
            farm.metrics.text(),
            *_of_router(farm),
            *_of_server(farm),
            *_of_gpus(gpus),
        ]
    )
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


def _target() -> list[tuple[Labels, float]]:
    return [((("service_name", "agentfarm"), ("service_version", __version__)), 1)]


def _of_router(farm: Farm) -> Iterator[str]:
    models = farm.runtime.router.status().models
    labels: list[Labels] = [
        (("gen_ai_request_model", model.name), ("host", model.host)) for model in models
    ]
    for name, help_, values in (
        ("active", "Requests on the host now.", [m.active for m in models]),
        ("waiting", "Requests in the host's queue.", [m.waiting for m in models]),
        ("circuit_open", "1 where it is not asked for now, since it kept failing.",
         [int(m.circuit == "open") for m in models]),
    ):  # fmt: skip
        pairs = list(dict(zip(labels, values, strict=True)).items())
        yield from _metric(f"agentfarm_router_{name}", help_, "gauge", pairs)


def _of_server(farm: Farm) -> Iterator[str]:
    published = farm.runtime.bus.metrics().published
    events: list[tuple[Labels, float]] = [
        ((("type", kind.value),), count) for kind, count in published.items()
    ]
    yield from _metric("agentfarm_events_total", "Events by type.", "counter", events)
    dropped = farm.runtime.store.dropped_requests
    for name, help_, kind, value in (
        ("web_clients", "WebSockets open now.", "gauge", len(farm.hub.clients)),
        ("web_clients_dropped_total", "WebSockets closed since they were too slow.",
         "counter", farm.hub.dropped),
        ("workflows_running", "Workflows in this server.", "gauge",
         farm.workflows.running),
        ("store_dropped_requests_total", "Records of telemetry given up.", "counter",
         dropped),
    ):  # fmt: skip
        yield from _metric(f"agentfarm_{name}", help_, kind, [((), value)])  # type: ignore[arg-type]


def _of_gpus(gpus: Iterable[GPUReading]) -> Iterator[str]:
    found: dict[str, list[tuple[Labels, float]]] = {name: [] for name in _GPU}
    for gpu in gpus:
        owner: Labels = (
            ("hw_id", gpu.uuid),
            ("hw_name", gpu.name or ""),
            ("hw_parent", gpu.parent or ""),
            ("hw_type", "gpu"),
        )
        for name, labels, value in _readings(gpu):
            if value is not None:
                found[name].append(((*owner, *labels), value))
    for name, pairs in found.items():
        yield from _metric(name, _GPU[name], "gauge", pairs)


_GPU = {
    "hw_temperature_celsius": "Temperature.",
    "hw_power_watts": "Power drawn.",
    "hw_gpu_utilization_ratio": "Share of time in which it computed.",
    "hw_gpu_memory_usage_bytes": "Memory used.",
    "hw_gpu_memory_limit_bytes": "Memory on the card.",
    "agentfarm_gpu_power_limit_watts": "Power that it may draw.",
    "agentfarm_gpu_clock_hertz": "Clock now.",
    "agentfarm_gpu_fan_ratio": "Fan, of the fastest.",
    "agentfarm_gpu_throttled": "1 where something slows it down.",
}


def _readings(gpu: GPUReading) -> Iterator[tuple[str, Labels, float | None]]:
    for location, value in (
        ("gpu", gpu.temperature_c),
        ("junction", gpu.junction_temperature_c),
        ("memory", gpu.memory_temperature_c),
    ):
        yield "hw_temperature_celsius", (("hw_sensor_location", location),), value
    for domain, mhz in (("core", gpu.core_clock_mhz), ("memory", gpu.memory_clock_mhz)):
        hertz = None if mhz is None else mhz * 1e6
        yield "agentfarm_gpu_clock_hertz", (("domain", domain),), hertz
    throttled = (
        None if gpu.throttle_reasons is None else float(bool(gpu.throttle_reasons))
    )
    yield "hw_power_watts", (), gpu.power_w
    yield "hw_gpu_utilization_ratio", (), _ratio(gpu.utilization_percent)
    yield "hw_gpu_memory_usage_bytes", (), gpu.vram_used_bytes
    yield "hw_gpu_memory_limit_bytes", (), gpu.vram_total_bytes
    yield "agentfarm_gpu_power_limit_watts", (), gpu.power_limit_w
    yield "agentfarm_gpu_fan_ratio", (), _ratio(gpu.fan_percent)
    yield "agentfarm_gpu_throttled", (), throttled


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _error_type(record: RequestRecord) -> str:
    if record.status == "ok":
        return ""
    return record.error_type or record.status


def _metric(
    name: str, help_: str, kind: Kind, pairs: Iterable[tuple[Labels, float]]
) -> Iterator[str]:
    pairs = list(pairs)
    if pairs:
        yield from _head(name, help_, kind)
        for labels, value in pairs:
            yield _line(name, labels, value)


def _head(name: str, help_: str, kind: Kind) -> Iterator[str]:
    yield f"# HELP {name} {help_}\n# TYPE {name} {kind}\n"


def _line(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    text = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels)
    return f"{name}{{{text}}} {value!r}\n" if text else f"{name} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
