"""What a sample costs beside the model: CPU ms per sample of `evals.run`.

The model answers at once and in this process, the scorer is `exact`, and every
sample and request goes to a SQLite file as in real use. What is left is the
engine, the router, the events and the Store.

    python benchmarks/bench_evals.py [N ...]     default: 1000 5000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import tempfile
import time
from pathlib import Path

from agentfarm.config import Settings
from agentfarm.evals import EvalRun, Suite, Task, exact, load_run, run
from agentfarm.events import EventBus, EventType
from agentfarm.llm import LLMRouter, RegisteredModel
from agentfarm.llm.testing import FakeProvider
from agentfarm.monitoring import PerformanceTracker
from agentfarm.runtime import Runtime
from agentfarm.store import Store

TARGET_MS = 1.0


def make_suite(count: int) -> Suite:
    return Suite(
        name="bench",
        tasks=tuple(
            Task(id=f"t{n}", prompt=f"say {n}", target=str(n), scorer=exact())
            for n in range(count)
        ),
    )


def make_runtime(home: Path) -> Runtime:
    provider = FakeProvider(lambda request: request.messages[-1].content.split()[-1])
    store = Store.open(f"sqlite:///{home / 'bench.db'}")
    bus = EventBus()
    tracker = PerformanceTracker()
    tracker.attach(bus)
    bus.on(
        lambda event: store.add_request(event.data["record"]),
        EventType.LLM_RESPONSE,
        EventType.LLM_ERROR,
    )
    model = RegisteredModel(name="fake", provider=provider, max_concurrency=8)
    return Runtime(
        settings=Settings(home=home, default_model="fake"),
        bus=bus,
        store=store,
        tracker=tracker,
        router=LLMRouter([model], bus=bus),
    )


def folder_bytes(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).iterdir())


async def measure(count: int, concurrency: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        suite = make_suite(count)
        async with make_runtime(Path(folder)) as runtime:
            await run(make_suite(20), runtime=runtime, progress=False)
            cpu, wall = time.process_time(), time.perf_counter()
            result: EvalRun = await run(
                suite, runtime=runtime, concurrency=concurrency, progress=False
            )
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            start = time.process_time()
            kept = load_run(runtime.store, result.run.run_id)
            read = time.process_time() - start
            start = time.process_time()
            kept.samples_frame()
            frame = time.process_time() - start
        if not (len(kept.samples) == len(kept.requests) == count and kept.score == 1):
            raise SystemExit(f"Only {len(kept.samples)} of {count} samples are kept.")
        size = folder_bytes(folder)
    return {
        "samples": count,
        "concurrency": concurrency,
        "wall_s": wall,
        "cpu_ms_per_sample": cpu / count * 1000,
        "load_run_cpu_s": read,
        "frame_cpu_s": frame,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mb": size / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1000, 5000])
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [asyncio.run(measure(n, options.concurrency)) for n in options.counts]  # noqa: TID251 - a program of its own
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    worst = max(row["cpu_ms_per_sample"] for row in rows)
    verdict = "met" if worst <= TARGET_MS else "missed"
    print(f"target: at most {TARGET_MS} CPU ms per sample, {verdict} ({worst:.2f})")


if __name__ == "__main__":
    main()
