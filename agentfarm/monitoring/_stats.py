"""What requests cost, summed up: the numbers of the tracker and their definitions."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import RenderableType

# A request as doubles, NaN where unknown: status, started_at, input and output
# tokens, tokens_estimated; then what is sorted: latency_s, ttft_s,
# output_tokens_per_s, inter_chunk_p50_s, _p95_s and _max_s. Packed, a window is one
# buffer for NumPy, which sorts it ten times as fast as lists of Python floats.
ROW = Struct("11d")
OK, ERROR, CANCELLED = 0.0, 1.0, 2.0
_FIRST_SORTED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class LifetimeTotals:
    """Everything since the tracker was made, beyond its window.

    Attributes:
        requests: Finished requests: succeeded + failed + cancelled.
        succeeded, failed, cancelled: By how they ended.
        input_tokens, output_tokens: Sums of the known counts.
        unknown_input, unknown_output: Requests whose count is not in the sum.
    """

    requests: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unknown_input: int = 0
    unknown_output: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestStats:
    """The latest finished requests of one model, one agent, or all of them.

    Latency, time to first token, rate and gaps are those of requests that
    succeeded; None where none had them. Percentiles are exact over the window:
    with the n values sorted as x[0]..x[n-1], the p-quantile lies at position
    (n - 1) p, interpolated linearly between its neighbours. That is Hyndman and
    Fan's type 7, the default of NumPy and pandas.

    Attributes:
        requests: Finished requests in the window.
        succeeded, failed, cancelled: By how they ended.
        success_rate: succeeded / (succeeded + failed): a cancelled request says
            nothing about the server. None where neither happened.
        active: Requests under way now; not in the window.
        input_tokens, output_tokens: Sums of the known counts; None where requests
            finished and no count is known.
        unknown_input, unknown_output: Requests whose count is unknown, mostly
            failed ones, and so is not in the sum.
        estimated_tokens: Requests whose counts come from a tokenizer and not from
            the server.
        output_tokens_per_s: Median over requests of the decode rate
            (n - 1) / (t_last - t_first).
        throughput_tokens_per_s: Known output tokens of all requests over the wall
            time from the first start to the last end in the window, idle time
            included.
        latency_avg_s, latency_p50_s, latency_p95_s, latency_p99_s: End to end.
        ttft_avg_s, ttft_p50_s, ttft_p95_s, ttft_p99_s: Time to first token.
        inter_chunk_p50_s, inter_chunk_p95_s: Median over requests of each one's
            own median and 95th percentile of the gaps between chunks.
        inter_chunk_max_s: The longest gap in any request.
        lifetime: Totals beyond the window.
    """

    requests: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    success_rate: float | None = None
    active: int = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    unknown_input: int = 0
    unknown_output: int = 0
    estimated_tokens: int = 0
    output_tokens_per_s: float | None = None
    throughput_tokens_per_s: float | None = None
    latency_avg_s: float | None = None
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    latency_p99_s: float | None = None
    ttft_avg_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    ttft_p99_s: float | None = None
    inter_chunk_p50_s: float | None = None
    inter_chunk_p95_s: float | None = None
    inter_chunk_max_s: float | None = None
    lifetime: LifetimeTotals = LifetimeTotals()

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON values, under their names here."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        from agentfarm.monitoring._render import rich_table

        return rich_table({"requests": self}, "LLM requests")

    def _repr_html_(self) -> str:
        from agentfarm.monitoring._render import html_table

        return html_table({"requests": self}, "LLM requests")


@dataclass(frozen=True, kw_only=True, slots=True)
class PerformanceSnapshot:
    """The tracker's statistics at one moment; shows itself as a table.

    Attributes:
        overall: All requests.
        by_model: By the model's registered name.
        by_agent: By agent; requests that no agent made are in `overall` only.
        window: Finished requests that each group looks back on, at most.
        taken_at: Unix time, seconds.
    """

    overall: RequestStats = RequestStats()
    by_model: Mapping[str, RequestStats] = field(default_factory=dict)
    by_agent: Mapping[str, RequestStats] = field(default_factory=dict)
    window: int = 1000
    taken_at: float = field(default_factory=time.time)

    def to_dict(self) -> dict[str, Any]:
        """The statistics as JSON values."""
        return {
            "taken_at": self.taken_at,
            "window": self.window,
            "overall": self.overall.to_dict(),
            "by_model": {k: s.to_dict() for k, s in self.by_model.items()},
            "by_agent": {k: s.to_dict() for k, s in self.by_agent.items()},
        }

    def __rich__(self) -> RenderableType:
        from agentfarm.monitoring._render import rich_table

        return rich_table(self._groups(), self._title())

    def _repr_html_(self) -> str:
        from agentfarm.monitoring._render import html_table

        return html_table(self._groups(), self._title())

    def _groups(self) -> dict[str, RequestStats]:
        return {
            "all": self.overall,
            **{f"model {name}": stats for name, stats in self.by_model.items()},
            **{f"agent {name}": stats for name, stats in self.by_agent.items()},
        }

    def _title(self) -> str:
        total = self.overall.lifetime.requests
        if total > self.window:
            return (
                f"LLM requests: the latest {self.window} of each group, {total} in all"
            )
        return "LLM requests"


def summarise(
    rows: Sequence[bytes], *, active: int, lifetime: LifetimeTotals
) -> RequestStats:
    """The statistics of a window of requests, each packed as a ROW."""
    if not rows:
        return RequestStats(active=active, lifetime=lifetime)
    # Here, so that importing and recording need no NumPy.
    import numpy as np

    table = np.frombuffer(b"".join(rows)).reshape(len(rows), -1)
    columns = np.array(table.T, order="C")
    status, started, inputs, outputs, estimated, latency = columns[:6]
    good = status == OK
    succeeded = int(np.count_nonzero(good))
    failed = int(np.count_nonzero(status == ERROR))
    known_in, known_out = inputs[~np.isnan(inputs)], outputs[~np.isnan(outputs)]
    input_tokens, output_tokens = int(known_in.sum()), int(known_out.sum())
    wall_s = float((started + latency).max() - started.min())
    counted = succeeded + failed
    if succeeded < len(rows):
        columns = columns[:, good]
    return RequestStats(
        requests=len(rows),
        succeeded=succeeded,
        failed=failed,
        cancelled=len(rows) - counted,
        success_rate=succeeded / counted if counted else None,
        active=active,
        input_tokens=input_tokens if len(known_in) else None,
        output_tokens=output_tokens if len(known_out) else None,
        unknown_input=len(rows) - len(known_in),
        unknown_output=len(rows) - len(known_out),
        estimated_tokens=int(estimated.sum()),
        throughput_tokens_per_s=output_tokens / wall_s
        if len(known_out) and wall_s > 0
        else None,
        lifetime=lifetime,
        **_durations(columns[_FIRST_SORTED:]),
    )


def _durations(columns: NDArray[np.float64]) -> dict[str, float | None]:
    """Averages and percentiles of columns, which it sorts in place."""
    columns.sort(axis=1)
    # NaN sorts to the end, so what is known is the beginning.
    known = columns.shape[1] - (columns != columns).sum(axis=1)
    latency, ttft, rate, gap_p50, gap_p95, gap_max = (
        column[:count] for column, count in zip(columns, known.tolist(), strict=True)
    )
    return {
        **_spread("latency", latency),
        **_spread("ttft", ttft),
        "output_tokens_per_s": quantile(rate, 0.5),
        "inter_chunk_p50_s": quantile(gap_p50, 0.5),
        "inter_chunk_p95_s": quantile(gap_p95, 0.5),
        "inter_chunk_max_s": quantile(gap_max, 1.0),
    }


def _spread(name: str, ordered: NDArray[np.float64]) -> dict[str, float | None]:
    return {
        f"{name}_avg_s": float(ordered.mean()) if len(ordered) else None,
        f"{name}_p50_s": quantile(ordered, 0.50),
        f"{name}_p95_s": quantile(ordered, 0.95),
        f"{name}_p99_s": quantile(ordered, 0.99),
    }


def quantile(ordered: NDArray[np.float64], p: float) -> float | None:
    """The p-quantile of sorted values, 0 <= p <= 1; None of no values.

    Linear interpolation at position (n - 1) p: type 7 of Hyndman and Fan, "Sample
    Quantiles in Statistical Packages", The American Statistician 50 (1996).
    """
    if not len(ordered):
        return None
    position = (len(ordered) - 1) * p
    below = int(position)
    low = float(ordered[below])
    high = float(ordered[min(below + 1, len(ordered) - 1)])
    return low + (high - low) * (position - below)
