"""Blocking work: awaited, bounded in number, ended by a cancellation."""

import asyncio
import threading

import anyio
import pytest

from agentfarm.tools.sandbox._threads import Slots, Stop, Stopped, in_thread


async def test_the_result_and_the_error_of_the_work_arrive():
    assert await in_thread(lambda _stop: 42, "work") == 42

    def fail(_stop):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await in_thread(fail, "work")


async def test_a_cancellation_stops_the_work_and_waits_for_its_end():
    begun, ended = anyio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    loop_thread = threading.get_ident()
    seen = []

    def work(stop):
        asked = threading.Event()
        stop.on_stop(asked.set)
        loop.call_soon_threadsafe(begun.set)
        assert asked.wait(10)
        seen.append(threading.get_ident() != loop_thread)
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(in_thread, work, "work")
        await begun.wait()
        group.cancel_scope.cancel()
    assert ended.is_set()
    assert seen == [True]


def test_a_stop_that_came_first_is_met_at_the_next_step():
    stop = Stop()
    stop.now()
    with pytest.raises(Stopped):
        stop.on_stop(lambda: None)


async def test_no_more_than_the_slots_run_at_once():
    slots, lock = Slots(3), threading.Lock()
    all_in = threading.Barrier(3)
    running, most = 0, 0

    def work(stop):
        nonlocal running, most
        slots.acquire(stop)
        with lock:
            running += 1
            most = max(most, running)
        all_in.wait(10)  # passes only where three are in at once
        with lock:
            running -= 1
        slots.release()

    async with anyio.create_task_group() as group:
        for _ in range(9):
            group.start_soon(in_thread, work, "work")
    assert most == 3


async def test_a_run_that_waits_for_its_turn_can_be_cancelled():
    slots = Slots(1)
    slots.acquire(Stop())

    with anyio.move_on_after(0.05) as scope:
        await in_thread(slots.acquire, "work")
    assert scope.cancelled_caught
    slots.release()
    await in_thread(slots.acquire, "work")  # the slot was not lost to the cancelled one
