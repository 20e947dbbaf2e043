"""What gives way when a subscriber is slow, and what never does."""

import asyncio
import random
from collections import defaultdict

import pytest

from agentfarm.events import Event, EventBus, EventType

CHUNK = EventType.LLM_STREAM_CHUNK
DONE = EventType.LLM_RESPONSE
LATEST_ONLY = [EventType.HARDWARE, EventType.HEARTBEAT]
TRANSIENT = {CHUNK, *LATEST_ONLY}


def chunk(bus: EventBus, text: str, request_id: str | None = "r", **data) -> Event:
    return bus.emit(CHUNK, {"text": text, **data}, request_id=request_id)


def balance(bus: EventBus, name: str) -> int:
    """Events of which the counters of a subscriber tell."""
    (m,) = [m for m in bus.metrics().subscriptions if m.name == name]
    return m.delivered + m.dropped + m.coalesced + m.queued


async def test_chunks_of_one_request_are_joined_when_the_queue_is_full(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=2, name="slow")
        chunk(bus, "a", at_s=1.0, reasoning="")
        chunk(bus, "x", "other")
        chunk(bus, "b", at_s=2.0, reasoning="hm", tools=[1])
        chunk(bus, "c", at_s=3.0, reasoning="m", tools=[2])
        joined, other = await read(subscription, 2)
        assert joined.data == {
            "text": "abc",
            "reasoning": "hmm",
            "at_s": 3.0,
            "tools": [1, 2],
            "coalesced": 3,
        }
        assert (joined.seq, joined.request_id) == (1, "r")
        assert other.data == {"text": "x"}
        assert (subscription.coalesced, subscription.dropped) == (2, 0)
        assert balance(bus, "slow") == 4


async def test_a_reader_that_keeps_up_sees_every_chunk(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=10)
        for i in range(10):
            chunk(bus, str(i))
        assert [e.data["text"] for e in await read(subscription, 10)] == [*"0123456789"]


async def test_a_long_backlog_of_one_request_loses_no_text(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=3)
        for i in range(2000):
            chunk(bus, f"{i},")
        bus.emit(DONE, request_id="r")
        *chunks, done = await read(subscription, subscription.queued)
        assert done.type is DONE
        text = "".join(e.data["text"] for e in chunks)
        # DONE made room by dropping the oldest chunk, "0,".
        assert text == "".join(f"{i}," for i in range(1, 2000))
        assert subscription.dropped == 1


async def test_text_is_not_joined_across_another_event_of_the_request(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=2, name="slow")
        chunk(bus, "before")
        bus.emit(EventType.LLM_RETRY, request_id="r")
        chunk(bus, "after")
        retry, after = await read(subscription, 2)
        assert retry.type is EventType.LLM_RETRY
        assert after.data == {"text": "after"}
        assert (subscription.dropped, subscription.coalesced) == (1, 0)
        assert balance(bus, "slow") == 3


async def test_the_oldest_chunk_is_dropped_where_nothing_can_be_joined(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=2)
        for text in "abcd":
            chunk(bus, text, f"r-{text}")
        assert [e.data["text"] for e in await read(subscription, 2)] == ["c", "d"]
        assert subscription.dropped == 2


async def test_chunks_of_unknown_requests_are_never_joined(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=1)
        chunk(bus, "a", None)
        chunk(bus, "b", None)
        (event,) = await read(subscription, 1)
        assert event.data == {"text": "b"}
        assert (subscription.dropped, subscription.coalesced) == (1, 0)


async def test_what_a_reader_that_never_reads_holds_is_bounded(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=4)
        for _ in range(50_000):
            chunk(bus, "x")
        assert subscription.queued == 4
        held = sum(len(e.data["text"]) for e in await read(subscription, 4))
        assert held <= 4 * 4200
        assert subscription.dropped > 0


@pytest.mark.parametrize("kind", LATEST_ONLY)
async def test_of_heartbeats_and_hardware_only_the_latest_waits(read, kind):
    async with EventBus() as bus:
        subscription = bus.subscribe(name="slow")
        bus.emit(kind, {"n": 1})
        bus.emit(DONE)
        bus.emit(kind, {"n": 2})
        done, latest = await read(subscription, 2)
        assert done.type is DONE
        assert latest.data == {"n": 2}
        assert subscription.coalesced == 1
        assert balance(bus, "slow") == 3


async def test_a_heartbeat_and_a_hardware_sample_both_wait(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=1)
        for n in range(3):
            bus.emit(EventType.HARDWARE, {"n": n})
            bus.emit(EventType.HEARTBEAT, {"n": n})
        assert [(e.type, e.data["n"]) for e in await read(subscription, 2)] == [
            (EventType.HARDWARE, 2),
            (EventType.HEARTBEAT, 2),
        ]


async def test_hardware_pushes_no_other_event_out_of_the_history():
    async with EventBus(history=5) as bus:
        bus.emit(DONE)
        for n in range(20):
            bus.emit(EventType.HARDWARE, {"n": n})
        done, *hardware = bus.history()
        assert done.type is DONE
        assert [event.data["n"] for event in hardware] == [15, 16, 17, 18, 19]


@pytest.mark.parametrize("seed", range(20))
async def test_terminal_events_survive_a_flood_on_a_stalled_subscriber(
    read, seed, caplog
):
    """Whatever the mix: lossless events all arrive, in order, and counters add up.

    The text of a request that arrives is what was sent, in order, with nothing
    twice and nothing from another request.
    """
    rng = random.Random(seed)  # noqa: S311 - a mix that can be repeated
    maxsize = rng.choice([1, 2, 7, 64])
    kinds = list(EventType)
    async with EventBus(history=10) as bus:
        stalled = bus.subscribe(maxsize=maxsize, name="stalled")
        lossless, sent = [], defaultdict(list)
        received = []
        for i in range(3000):
            request = f"r{rng.randrange(4)}"
            if rng.random() < 0.9:
                chunk(bus, f"<{i}>", request)
                sent[request].append(i)
            else:
                event = bus.emit(rng.choice(kinds), {"text": ""}, request_id=request)
                if event.type not in TRANSIENT:
                    lossless.append(event)
            if rng.random() < 0.002:
                received += await read(stalled, rng.randrange(stalled.queued + 1))
        transient_left = stalled.queued - sum(
            e.seq > (received[-1].seq if received else 0) for e in lossless
        )
        # The heartbeat and the hardware wait beside the rest.
        assert transient_left <= maxsize + len(LATEST_ONLY)
        received += await read(stalled, stalled.queued)

        assert [e for e in received if e.type not in TRANSIENT] == lossless
        assert [e.seq for e in received] == sorted({e.seq for e in received})
        for request, numbers in sent.items():
            text = "".join(
                e.data["text"]
                for e in received
                if e.type is CHUNK and e.request_id == request
            )
            got = [int(n) for n in text.strip("<>").split("><") if n]
            assert got == [n for n in numbers if n in set(got)]
        assert balance(bus, "stalled") == 3000
        assert stalled.dropped + stalled.coalesced > 0


async def test_a_stalled_subscriber_costs_the_publisher_no_task_and_no_wait(
    until, caplog
):
    async with EventBus() as bus:
        never = asyncio.Event()

        async def stuck(_):
            await never.wait()

        bus.on(stuck, maxsize=2, name="stuck")
        await asyncio.sleep(0)
        tasks = len(asyncio.all_tasks())
        for _ in range(5000):
            bus.emit(DONE)
        assert len(asyncio.all_tasks()) == tasks
        (warning,) = caplog.records
        assert "stuck does not keep up" in warning.getMessage()
        never.set()
        await until(lambda: bus.metrics().subscriptions[0].delivered == 5000)
