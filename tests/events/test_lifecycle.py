"""Threads, loops and the end: what a bus leaves behind."""

import asyncio
import threading

import pytest

from agentfarm.errors import AgentFarmError
from agentfarm.events import Event, EventBus, EventType
from agentfarm.events._mailbox import Mailbox

CHUNK = EventType.LLM_STREAM_CHUNK
DONE = EventType.LLM_RESPONSE


@pytest.mark.usefixtures("often")
async def test_events_from_threads_wake_readers_and_keep_their_order(read):
    async with EventBus() as bus:
        subscription = bus.subscribe(maxsize=100_000)
        inline = []
        bus.on(inline.append)

        together = threading.Barrier(4)

        def work(agent: str) -> None:
            together.wait(5)
            for i in range(500):
                bus.emit(DONE if i % 2 else CHUNK, {"i": i}, agent=agent)

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
        reading = asyncio.get_running_loop().create_task(read(subscription, 2000))
        await asyncio.sleep(0)
        for thread in threads:
            thread.start()
        events = await reading
        for thread in threads:
            thread.join()
        assert [e.seq for e in events] == list(range(1, 2001))
        for n in range(4):
            assert [e.data["i"] for e in events if e.agent == f"t{n}"] == [*range(500)]
        assert len(inline) == 2000
        assert {e.seq for e in bus.history()} == {*range(1, 2001)}


def test_a_publisher_may_be_interrupted_by_one_on_its_own_thread():
    """As a signal handler or a finalizer is, in the middle of publish."""
    bus = EventBus()

    def publish() -> None:
        with bus._lock:
            bus.emit(EventType.INTERRUPT)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    thread.join(5)
    assert [e.type for e in bus.history()] == [EventType.INTERRUPT]


async def test_one_event_from_a_thread_wakes_an_idle_loop_at_once(read):
    async with EventBus() as bus:
        loop = asyncio.get_running_loop()
        subscription = bus.subscribe()
        reading = loop.create_task(read(subscription, 1))
        await asyncio.sleep(0)
        started = loop.time()
        threading.Timer(0.02, bus.emit, [DONE]).start()
        await reading
        assert loop.time() - started < 4  # and not when read() gives up, at 5


async def test_what_comes_between_looking_and_waiting_is_not_slept_through():
    box = Mailbox(1, threading.RLock())
    assert box.take() is None
    box.offer_for(DONE)(Event(type=DONE, seq=1))  # as another thread would, just now
    async with asyncio.timeout(5):
        await box.wait()


def test_a_loop_that_is_gone_does_not_stop_the_publisher(read):
    bus = EventBus()
    subscription = bus.subscribe()

    async def start_waiting():
        task = asyncio.get_running_loop().create_task(read(subscription, 1))
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    waiting = loop.run_until_complete(start_waiting())
    loop.close()
    bus.emit(DONE)
    assert subscription.queued == 1
    waiting._log_destroy_pending = False  # it can never end


async def test_closing_lets_handlers_finish_what_is_queued():
    bus = EventBus()
    seen = []

    async def slow(event):
        await asyncio.sleep(0.001)
        seen.append(event.seq)

    bus.on(slow)
    for _ in range(20):
        bus.emit(DONE)
    await bus.aclose()
    assert seen == list(range(1, 21))
    await bus.aclose()


async def test_closing_waits_for_a_reader_at_work():
    bus = EventBus()
    seen = []

    async def consume():
        async for event in subscription:
            await asyncio.sleep(0.001)
            seen.append(event.seq)

    async with asyncio.TaskGroup() as group:
        subscription = bus.subscribe()
        group.create_task(consume())
        await asyncio.sleep(0)  # it waits now
        for _ in range(10):
            bus.emit(DONE)
        await bus.aclose()
        assert subscription.queued == 0
    assert seen == list(range(1, 11))


async def test_closing_does_not_wait_for_what_nobody_ever_read():
    bus = EventBus()
    unread = bus.subscribe()
    bus.emit(DONE)
    async with asyncio.timeout(1):
        await bus.aclose(timeout_s=60)
    assert [e.seq async for e in unread] == [1]


async def test_closing_ends_a_reader_that_has_read_all(until):
    bus = EventBus()
    subscription = bus.subscribe()
    bus.emit(DONE)

    async def consume():
        return [event.seq async for event in subscription]

    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        task = group.create_task(consume())
        await until(lambda: subscription.delivered == 1)
        await bus.aclose(timeout_s=60)
    assert task.result() == [1]


async def test_closing_gives_up_after_the_timeout_and_says_so(caplog):
    bus = EventBus()
    cancelled = asyncio.Event()

    async def stuck(_):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bus.on(stuck, name="stuck")
    bus.emit(DONE)
    bus.emit(DONE)
    await asyncio.sleep(0)
    async with asyncio.timeout(3):
        await bus.aclose(timeout_s=0.05)
    assert cancelled.is_set()
    assert "stuck left 1 events unread" in caplog.text


async def test_a_handler_may_close_the_bus():
    bus = EventBus()
    closed = asyncio.Event()

    async def shut(_):
        await bus.aclose()
        closed.set()

    bus.on(shut, EventType.INTERRUPT)
    bus.emit(EventType.INTERRUPT)
    async with asyncio.timeout(2):
        await closed.wait()


async def test_after_closing_nothing_is_taken_and_nothing_breaks():
    async with EventBus() as bus:
        calls = []
        bus.on(calls.append)
    event = bus.emit(DONE)
    assert event.seq == 0
    assert bus.closed
    assert calls == []
    assert bus.history() == []
    assert bus.metrics().discarded == 1
    with pytest.raises(AgentFarmError, match="EventBus is closed"):
        bus.subscribe(name="late")


async def test_closing_leaves_no_task_behind():
    before = asyncio.all_tasks()
    async with EventBus(heartbeat_s=0.01) as bus:

        async def handler(_):
            pass

        bus.on(handler)
        bus.on(handler).close()
        bus.emit(DONE)
        assert len(asyncio.all_tasks()) > len(before)
        async with asyncio.timeout(1):
            await bus.aclose()
    assert asyncio.all_tasks() == before


async def test_heartbeats_come_where_they_are_wanted(read):
    async with EventBus(heartbeat_s=0.01) as bus:
        subscription = bus.subscribe(EventType.HEARTBEAT)
        first, second = await read(subscription, 2)
        assert 0 < first.data["uptime_s"] < second.data["uptime_s"]
    async with EventBus() as quiet:
        quiet.subscribe()
        assert quiet._tasks == set()


def test_a_bus_lives_across_notebook_cells(read):
    """Cells are tasks of their own in one loop that runs on between them."""
    seen = []

    async def make():
        bus = EventBus()

        async def handler(event):
            seen.append(event.seq)

        bus.on(handler)
        return bus, bus.subscribe()

    async def use(bus):
        bus.emit(DONE)

    async def look(subscription):
        return (await read(subscription, 2))[-1].seq

    with asyncio.Runner() as runner:
        bus, subscription = runner.run(make())
        runner.run(use(bus))
        bus.emit(DONE)  # a plain cell, between two awaits
        assert runner.run(look(subscription)) == 2
        runner.run(bus.aclose())
    assert seen == [1, 2]
