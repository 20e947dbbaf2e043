"""What an agent and a whole workflow cost beside the model, and pydantic-ai's.

One run, instant models in this process (`FakeProvider`, `FunctionModel`) that play
one script. Every run must come to the same number of requests and of tool calls, and
to the same files. The contenders take turns; the tables show medians, CPU time of
all threads, and the peak of Python's memory (tracemalloc) from runs of their own.

*Tool loop*: one agent calls a trivial async tool N times. AgentFarm always streams;
pydantic-ai is measured without streaming, its cheapest way and the 1.00 of the
ratios, and with.

*Workflow*: a plan of five steps, each of which writes a file, and a review. The peer
is seven agent runs in a plain loop, its agents made once beforehand, its tool a bare
`Path.write_text`. AgentFarm makes its agents and tools anew and does more: its file
tool follows no link and writes a file whole or not at all, in a thread; every stage
goes over the bus; the result is compared with the workspace's first state, checked,
and shown to the reviewer as a diff. That is the first row. The second keeps each
stage in SQLite before the next begins. The third is how a runtime opens it: the
telemetry, the project's memory, a copy of the workspace and a log of events, too.
The sandbox is a stand-in in this process that says at once that all is well: what a
real one costs is bench_sandbox's to show. The peer has none, and checks nothing.

    python benchmarks/bench_workflow.py [--rounds N] [--calls N] [--json] [--check]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

from workflow_contenders import (
    FILES,
    REQUESTS,
    STEPS,
    OurLoop,
    OurWorkflow,
    PeerLoop,
    PeerWorkflow,
)

from agentfarm.store import Store


def contents(folder):
    return {path.name: path.read_text() for path in folder.glob("*")}


async def once(case, expected, measured):
    """What `measured` says of one run in a folder of its own."""
    requests, calls, files = expected
    with tempfile.TemporaryDirectory() as folder:
        case.prepare(Path(folder))
        gc.collect()
        did, found = await measured(case.run)
        written = contents(Path(folder, "work"))
    if did != (requests, calls) or written != files:
        raise SystemExit(f"{case.name} took {did} and wrote {sorted(written)}.")
    return found


async def timed_ms(run):
    cpu, wall = time.process_time(), time.perf_counter()
    did = await run()
    return did, (
        (time.process_time() - cpu) * 1e3,
        (time.perf_counter() - wall) * 1e3,
    )


async def peak_kib(run):
    tracemalloc.start()
    try:
        did = await run()
        return did, tracemalloc.get_traced_memory()[1] / 1024
    finally:
        tracemalloc.stop()


async def measure(cases, expected, rounds, *, per=1):
    """Medians by case: CPU and wall milliseconds, peak KiB; each over `per`."""
    times = {case.name: [] for case in cases}
    peaks = {case.name: [] for case in cases}
    for case in cases:
        await once(case, expected, timed_ms)
    for turn in range(rounds):
        for case in cases if turn % 2 == 0 else cases[::-1]:
            times[case.name].append(await once(case, expected, timed_ms))
    for _ in range(3):
        for case in cases:
            peaks[case.name].append(await once(case, expected, peak_kib))
    return {
        name: [
            statistics.median(values) / per
            for values in (*zip(*times[name], strict=True), peaks[name])
        ]
        for name in times
    }


async def measure_all(rounds, calls):
    """The tables by title."""
    loops = [
        OurLoop(calls, bus=False),
        OurLoop(calls, bus=True),
        PeerLoop(calls, stream=False),
        PeerLoop(calls, stream=True),
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Store.open(f"sqlite:///{folder}/bench.db")) as store,
    ):
        workflows = [
            OurWorkflow(),
            OurWorkflow(", Store", store),
            OurWorkflow(", as a runtime's", store, whole=True),
            PeerWorkflow(stream=False),
            PeerWorkflow(stream=True),
        ]
        return {
            f"tool call ({calls} in one run)": await measure(
                loops, (calls + 1, calls, {}), rounds, per=calls
            ),
            f"workflow ({STEPS} steps)": await measure(
                workflows, (REQUESTS, STEPS, FILES), rounds
            ),
        }


def show(title, medians):
    """Print a table; return what misses the bars."""
    base = next(row for name, row in medians.items() if not name.startswith("agent"))
    print(f"{title:33}", *(f"{head:>10}{'ratio':>7}" for head in COLUMNS))
    missed = []
    for name, row in medians.items():
        ratios = [value / peer for value, peer in zip(row, base, strict=True)]
        pairs = zip(row, ratios, strict=True)
        print(f"{name:33}", *(f"{value:>10.3g}{ratio:>7.2f}" for value, ratio in pairs))
        if name.startswith("agent"):
            missed += [
                f"{name}: {ratio:.2f} times the peer's {head}"
                for head, ratio in zip(COLUMNS[:2], ratios, strict=False)
                if ratio > 1
            ]
    print()
    return missed


COLUMNS = ("CPU ms", "wall ms", "peak KiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="fail if a bar is missed")
    options = parser.parse_args()
    tables = asyncio.run(measure_all(options.rounds, options.calls))  # noqa: TID251 - a program of its own
    if options.json:
        print(json.dumps(tables))
        return
    missed = [line for title, table in tables.items() for line in show(title, table)]
    print("\n".join(f"missed: {line}" for line in missed) or "All bars are met.")
    if options.check and missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
