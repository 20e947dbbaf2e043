"""PerformanceTracker: what recording a request costs, and taking a snapshot.

The window is full (1000 requests) in every group. A snapshot sorts six columns of
a group and sums four more. Its peers in the same run do a part of that for one
group: numpy.percentile, or only sorted(), over four columns.

    python benchmarks/bench_tracker.py [--window 1000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from agentfarm.events import EventBus, EventType, RequestRecord
from agentfarm.monitoring import PerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable

GROUPS = 9  # overall, 4 models, 4 agents


def make_records(count: int, *, models: int, agents: int) -> list[RequestRecord]:
    rng = random.Random(2)  # noqa: S311 - made-up latencies, the same in every run
    records = []
    for i in range(count):
        latency = rng.lognormvariate(0, 0.5)
        records.append(
            RequestRecord(
                request_id=str(i),
                model=f"model-{i % models}",
                provider="fake",
                host="http://127.0.0.1",
                started_at=1e9 + i,
                status="ok" if i % 50 else "error",
                latency_s=latency,
                agent=f"agent-{i % agents}" if agents else None,
                input_tokens=rng.randrange(10, 4000),
                output_tokens=rng.randrange(2, 900) if i % 50 else None,
                ttft_s=latency * rng.random(),
                output_tokens_per_s=rng.uniform(10, 90),
                inter_chunk_p50_s=rng.uniform(0.01, 0.03),
                inter_chunk_p95_s=rng.uniform(0.03, 0.09),
                inter_chunk_max_s=rng.uniform(0.1, 0.5),
            )
        )
    return records


def microseconds(work: Callable[[], object], *, per: int, rounds: int) -> list[float]:
    costs = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        costs.append((time.perf_counter() - started) / per * 1e6)
    return costs


async def through_the_bus(records: list[RequestRecord], rounds: int) -> list[float]:
    async with EventBus() as bus:
        PerformanceTracker().attach(bus)

        def work() -> None:
            for record in records:
                bus.emit(EventType.LLM_RESPONSE, {"record": record})

        return microseconds(work, per=len(records), rounds=rounds)


def measure(window: int, rounds: int) -> dict[str, list[float]]:
    many = make_records(window * 20, models=4, agents=4)
    tracker = PerformanceTracker(window=window)
    ok = [r for r in many[-window:] if r.status == "ok"]
    columns = [
        [r.latency_s for r in ok],
        [r.ttft_s for r in ok],
        [r.output_tokens_per_s for r in ok],
        [r.inter_chunk_p50_s for r in ok],
    ]

    def record() -> None:
        for item in many:
            tracker.record(item)

    def snapshot() -> None:
        for _ in range(20):
            tracker.snapshot()

    def peer(work: Callable[[list[float]], object]) -> list[float]:
        def all_columns() -> None:
            for _ in range(20):
                for column in columns:
                    work(column)

        return microseconds(all_columns, per=20, rounds=rounds)

    with asyncio.Runner() as runner:
        bus = runner.run(through_the_bus(many, rounds))
    recorded = microseconds(record, per=len(many), rounds=rounds)
    snapshots = microseconds(snapshot, per=20, rounds=rounds)
    return {
        "record": recorded,
        "emit on a bus + record": bus,
        f"snapshot, {GROUPS} full groups": snapshots,
        "snapshot, of which one group": [cost / GROUPS for cost in snapshots],
        "peer: numpy.percentile, 4 columns": peer(
            lambda column: np.percentile(column, (50, 95, 99))
        ),
        "peer: sorted(), 4 columns": peer(sorted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    costs = measure(args.window, args.rounds)
    print(f"window {args.window}, median of {args.rounds} rounds (best), us")
    for name, values in costs.items():
        print(f"{name:40}{statistics.median(values):10.2f} ({min(values):8.2f})")


if __name__ == "__main__":
    main()
