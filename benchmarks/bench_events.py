"""EventBus against a fan-out over asyncio.Queue: what one publish costs.

Both get the same events in the same run, in turns: bursts of 100, three
subscribers, every event received by each of them. "publish" is the time spent in
the publishing calls alone, "delivered" the time until all subscribers have all
events. A publish on the bus also numbers the event, keeps it in the history and
counts it; the queues do none of this.

    python benchmarks/bench_events.py [--events 20000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from agentfarm.events import Event, EventBus, EventType

SUBSCRIBERS = 3
BURST = 100
Cost = tuple[float, float]


def make_events(kind: EventType, count: int) -> list[Event]:
    data = {"text": "token"}
    return [Event(type=kind, data=data, request_id="r") for _ in range(count)]


async def drive(events: list[Event], publish, received: Callable[[], int]) -> Cost:
    """Seconds in publish and seconds until all is delivered."""
    goal = SUBSCRIBERS * len(events)
    publishing = 0.0
    started = time.perf_counter()
    for begin in range(0, len(events), BURST):
        t0 = time.perf_counter()
        for event in events[begin : begin + BURST]:
            publish(event)
        publishing += time.perf_counter() - t0
        await asyncio.sleep(0)
    # Passes of the loop and not an asyncio.Event, which readers would have to set.
    while received() < goal:  # noqa: ASYNC110 - see above
        await asyncio.sleep(0)
    return publishing, time.perf_counter() - started


async def queue_fan_out(events: list[Event]) -> Cost:
    queues: list[asyncio.Queue[Event]] = [
        asyncio.Queue(maxsize=1024) for _ in range(SUBSCRIBERS)
    ]
    counts = [0] * SUBSCRIBERS

    async def read(index: int) -> None:
        get = queues[index].get
        while True:
            await get()
            counts[index] += 1

    def publish(event: Event) -> None:
        for queue in queues:
            queue.put_nowait(event)

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read(i)) for i in range(SUBSCRIBERS)]
        await asyncio.sleep(0)
        cost = await drive(events, publish, lambda: sum(counts))
        for reader in readers:
            reader.cancel()
    return cost


async def bus_iterators(events: list[Event]) -> Cost:
    bus = EventBus()
    subscriptions = [bus.subscribe() for _ in range(SUBSCRIBERS)]
    counts = [0] * SUBSCRIBERS

    async def read(index: int) -> None:
        async for _ in subscriptions[index]:
            counts[index] += 1

    async with asyncio.TaskGroup() as group:
        for i in range(SUBSCRIBERS):
            group.create_task(read(i))
        await asyncio.sleep(0)
        cost = await drive(events, bus.publish, lambda: sum(counts))
        await bus.aclose()
    if any(s.dropped or s.coalesced for s in subscriptions):
        raise RuntimeError("The bus dropped events, so its cost says nothing.")
    return cost


async def bus_async_handlers(events: list[Event]) -> Cost:
    counts = [0] * SUBSCRIBERS

    def handler(index: int):
        async def handle(_: Event) -> None:
            counts[index] += 1

        return handle

    async with EventBus() as bus:
        for i in range(SUBSCRIBERS):
            bus.on(handler(i))
        await asyncio.sleep(0)
        return await drive(events, bus.publish, lambda: sum(counts))


async def bus_functions(events: list[Event]) -> Cost:
    counts = [0] * SUBSCRIBERS

    def handler(index: int):
        def handle(_: Event) -> None:
            counts[index] += 1

        return handle

    async with EventBus() as bus:
        for i in range(SUBSCRIBERS):
            bus.on(handler(i))
        return await drive(events, bus.publish, lambda: sum(counts))


async def bus_stalled(events: list[Event]) -> Cost:
    """Three full queues that nobody reads: chunks are joined or dropped."""
    async with EventBus() as bus:
        stalled = [bus.subscribe(maxsize=64) for _ in range(SUBSCRIBERS)]
        cost = await drive(events, bus.publish, lambda: SUBSCRIBERS * len(events))
        for subscription in stalled:
            subscription.close()
        return cost


Case = tuple[str, Callable[[list[Event]], Awaitable[Cost]], EventType]
CASES: list[Case] = [
    ("asyncio.Queue fan-out (peer)", queue_fan_out, EventType.LLM_RESPONSE),
    ("EventBus, 3 iterators", bus_iterators, EventType.LLM_RESPONSE),
    ("EventBus, 3 iterators, chunks", bus_iterators, EventType.LLM_STREAM_CHUNK),
    ("EventBus, 3 async handlers", bus_async_handlers, EventType.LLM_RESPONSE),
    ("EventBus, 3 functions", bus_functions, EventType.LLM_RESPONSE),
    ("EventBus, 3 stalled, chunks", bus_stalled, EventType.LLM_STREAM_CHUNK),
]


async def measure(count: int, rounds: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {name: [] for name, _, _ in CASES}
    for _ in range(rounds):
        for name, run, kind in CASES:
            costs[name].append(await run(make_events(kind, count)))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with asyncio.Runner() as runner:
        costs = runner.run(measure(args.events, args.rounds))
    print(
        f"{args.events} events, median of {args.rounds} rounds (best), us per publish"
    )
    print(f"{'':32}{'publish':>16}{'delivered':>18}{'ratio to peer':>15}")
    peer = statistics.median(total for _, total in costs[CASES[0][0]])
    for name, _, _ in CASES:
        calls = [c / args.events * 1e6 for c, _ in costs[name]]
        totals = [t / args.events * 1e6 for _, t in costs[name]]
        ratio = statistics.median(totals) / (peer / args.events * 1e6)
        print(
            f"{name:32}{statistics.median(calls):8.2f} ({min(calls):5.2f})"
            f"{statistics.median(totals):10.2f} ({min(totals):5.2f}){ratio:15.2f}"
        )


if __name__ == "__main__":
    main()
