"""What reaches whom, and that failures stay with the subscriber."""

import asyncio
import gc
import json
import logging

import pytest

from agentfarm.errors import AgentFarmError
from agentfarm.events import Event, EventBus, EventType, RequestRecord

CHUNK = EventType.LLM_STREAM_CHUNK
DONE = EventType.LLM_RESPONSE


def chunk(bus: EventBus, text: str, request_id: str | None = "r", **data) -> Event:
    return bus.emit(CHUNK, {"text": text, **data}, request_id=request_id)


def test_publish_numbers_the_event_and_returns_it():
    bus = EventBus()
    first = Event(type=DONE)
    assert bus.publish(first) is first
    assert first.seq == 1
    again = bus.publish(first)
    assert (first.seq, again.seq) == (1, 2)
    assert again.timestamp == first.timestamp
    assert (
        bus.emit(CHUNK, {"text": "x"}, run_id="u", agent="a", request_id="r")
        == (bus.history()[-1])
    )


async def test_an_iterator_gets_its_types_in_order_and_no_others(read):
    async with EventBus() as bus:
        some = bus.subscribe(EventType.RUN_STARTED, EventType.RUN_COMPLETED)
        everything = bus.subscribe()
        for kind in (EventType.RUN_STARTED, DONE, EventType.RUN_COMPLETED):
            bus.emit(kind)
        assert [e.type for e in await read(some, 2)] == ["run_started", "run_completed"]
        assert [e.seq for e in await read(everything, 3)] == [1, 2, 3]
        assert some.queued == 0


async def test_functions_are_called_inside_publish_by_priority_then_age():
    bus = EventBus()
    calls = []
    for name, priority in (("low", -1), ("first", 0), ("second", 0), ("high", 5)):
        bus.on(lambda _, name=name: calls.append(name), DONE, priority=priority)
    bus.emit(DONE)
    assert calls == ["high", "first", "second", "low"]
    bus.emit(CHUNK)
    assert len(calls) == 4


async def test_async_handlers_are_served_by_priority(until):
    async with EventBus() as bus:
        calls = []

        def handler(name):
            async def handle(_):
                calls.append(name)

            return handle

        for name, priority in (("low", -1), ("middle", 0), ("high", 5)):
            bus.on(handler(name), priority=priority)
        await asyncio.sleep(0)  # the three wait now
        bus.emit(DONE)
        await until(lambda: len(calls) == 3)
        assert calls == ["high", "middle", "low"]


async def test_an_async_handler_gets_one_event_at_a_time(until):
    gate = asyncio.Event()
    seen = []

    class Handler:
        async def __call__(self, event):
            seen.append(event.seq)
            await gate.wait()

    async with EventBus() as bus:
        subscription = bus.on(Handler(), DONE)
        bus.emit(DONE)
        bus.emit(DONE)
        await until(lambda: seen)
        await asyncio.sleep(0)
        assert seen == [1]
        gate.set()
        await until(lambda: seen == [1, 2])
        assert subscription.delivered == 2


async def test_a_handler_may_publish():
    bus = EventBus()
    bus.on(lambda e: bus.emit(EventType.VERIFICATION, {"of": e.seq}), DONE)
    bus.emit(DONE)
    assert [e.type for e in bus.history()] == [DONE, EventType.VERIFICATION]


async def test_closing_a_subscription_stops_it_at_once():
    async with EventBus() as bus:
        calls = []
        handler = bus.on(calls.append)
        with bus.subscribe() as one, bus.subscribe() as two:
            async with bus.subscribe() as three:
                bus.emit(DONE)
                assert one.queued == two.queued == three.queued == 1
        handler.close()
        handler.close()
        bus.emit(DONE)
        assert len(calls) == 1
        assert [e async for e in one] == []
        assert bus.metrics().subscriptions == ()


async def test_closing_ends_a_reader_that_waits(until):
    async with EventBus() as bus, asyncio.TaskGroup() as group:
        subscription = bus.subscribe()

        async def consume():
            return [event.seq async for event in subscription]

        task = group.create_task(consume())
        await asyncio.sleep(0)
        bus.emit(DONE)
        await until(lambda: subscription.delivered == 1)
        subscription.close()
        assert await asyncio.wait_for(task, 5) == [1]


async def test_a_cancelled_reader_loses_nothing(read):
    async with EventBus() as bus:
        subscription = bus.subscribe()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(subscription)
        bus.emit(DONE)
        assert [e.seq for e in await read(subscription, 1)] == [1]


async def test_an_abandoned_iterator_is_unsubscribed_but_a_handler_is_not():
    async with EventBus() as bus:
        bus.on(lambda _: None, name="kept")
        bus.emit(DONE)
        lost = bus.subscribe()
        bus.emit(DONE)
        async for _ in lost:
            break
        del lost
        gc.collect()
        assert [m.name for m in bus.metrics().subscriptions] == ["kept"]


async def test_a_second_reader_of_one_subscription_is_told_so():
    async with EventBus() as bus, asyncio.TaskGroup() as group:
        subscription = bus.subscribe()
        first = group.create_task(anext(subscription))
        await asyncio.sleep(0)
        with pytest.raises(AgentFarmError, match="Give each reader its own"):
            await anext(subscription)
        bus.emit(DONE)
        assert (await first).seq == 1


async def test_a_handler_cannot_be_iterated():
    async with EventBus() as bus:
        with pytest.raises(AgentFarmError, match="has a handler"):
            await anext(bus.on(lambda _: None))


def test_an_async_handler_needs_a_loop():
    async def handler(_):
        pass

    with pytest.raises(AgentFarmError, match="running event loop"):
        EventBus().on(handler)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EventBus(history=-1),
        lambda: EventBus(heartbeat_s=0),
        lambda: EventBus().subscribe(maxsize=0),
    ],
)
def test_senseless_limits_are_refused(make):
    with pytest.raises(AgentFarmError, match=">"):
        make()


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()])
async def test_a_failing_function_is_counted_and_logged_once(caplog, error):
    bus = EventBus()
    calls = []

    def broken(_):
        raise error

    bad = bus.on(broken, priority=1, name="broken")
    bus.on(calls.append)
    for _ in range(3):
        bus.emit(DONE)
    assert len(calls) == 3
    assert (bad.failed, bad.delivered) == (3, 3)
    (entry,) = caplog.records
    assert entry.levelno == logging.ERROR
    assert "broken failed on llm_response" in entry.getMessage()


async def test_a_failing_async_handler_goes_on_with_the_next_event(until, caplog):
    seen = []

    async def flaky(event):
        await asyncio.sleep(0)
        if event.seq == 1:
            raise ValueError
        if event.seq == 2:
            inner = asyncio.get_running_loop().create_future()
            inner.cancel()
            await inner
        seen.append(event.seq)

    async with EventBus() as bus:
        subscription = bus.on(flaky)
        for _ in range(3):
            bus.emit(DONE)
        await until(lambda: seen)
        assert seen == [3]
        assert (subscription.failed, subscription.delivered) == (2, 3)
    assert len(caplog.records) == 1


def test_history_is_bounded_and_chunks_do_not_push_out_the_rest():
    bus = EventBus(history=3)
    for i in range(5):
        bus.emit(DONE, {"i": i})
    for i in range(100):
        chunk(bus, str(i))
    assert [e.data["i"] for e in bus.history(DONE)] == [2, 3, 4]
    assert [e.seq for e in bus.history()] == [3, 4, 5, 103, 104, 105]
    assert [e.seq for e in bus.history(limit=2)] == [104, 105]
    assert bus.history(limit=0) == []
    assert [e.seq for e in bus.history(since_seq=5, limit=9)] == [103, 104, 105]
    assert [e.seq for e in bus.history(CHUNK, DONE, since_seq=4)][:2] == [5, 103]
    assert EventBus(history=0).history() == []
    bus.emit(DONE)
    assert [e.seq for e in bus.history(limit=3)] == [104, 105, 106]
    chunk(bus, "x")
    assert [e.type for e in bus.history(limit=3)] == [CHUNK, DONE, CHUNK]


async def test_metrics_are_json_and_say_what_happened():
    async with EventBus() as bus:
        bus.on(lambda _: None, DONE, name="function", priority=2)
        slow = bus.subscribe(name="slow", maxsize=1)
        bus.emit(DONE)
        chunk(bus, "x")
        metrics = json.loads(json.dumps(bus.metrics().to_dict()))
        assert metrics["published"] == {"llm_response": 1, "llm_stream_chunk": 1}
        assert (metrics["total"], metrics["discarded"]) == (2, 0)
        function, iterator = metrics["subscriptions"]
        assert function == {
            "name": "function",
            "kind": "function",
            "priority": 2,
            "maxsize": None,
            "delivered": 1,
            "dropped": 0,
            "coalesced": 0,
            "failed": 0,
            "queued": 0,
        }
        assert (iterator["queued"], iterator["dropped"]) == (1, 1)
        assert "1 queued" in repr(slow)
        assert "2 events published" in repr(bus)


def test_an_event_is_json_whatever_its_payload():
    record = RequestRecord(
        request_id="r",
        model="m",
        provider="fake",
        host="h",
        started_at=0.0,
        status="ok",
        latency_s=1.0,
    )
    event = Event(type=DONE, data={"record": record, "tags": {"b", "a"}, "n": (1, [2])})
    data = json.loads(json.dumps(event.to_dict()))
    assert data["type"] == "llm_response"
    assert data["data"]["record"]["latency_s"] == 1.0
    assert data["data"]["tags"] == ["a", "b"]
    assert data["data"]["n"] == [1, [2]]
