import sys
import threading
import time

import pytest
from counter import Counter

FILE = sys.modules[Counter.__module__].__file__
ROUNDS = 3  # one alone may come through by luck


def run_at_once(*functions):
    """Run each function in a thread of its own; gives their results in order."""
    start = threading.Barrier(len(functions))
    results = [None] * len(functions)

    def run(place, function):
        start.wait(10)
        results[place] = function()

    threads = [
        threading.Thread(target=run, args=item, daemon=True)
        for item in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads), "A thread hangs."
    return results


def run_interleaved(*functions):
    """The same, but another thread comes to its turn at each line of the counter."""

    def trace(frame, event, argument):
        if frame.f_code.co_filename != FILE:
            return None
        time.sleep(0.0005)
        return trace

    threading.settrace(trace)
    try:
        return run_at_once(*functions)
    finally:
        threading.settrace(None)


class Meeting(int):
    """An amount whose additions wait for one another, in so far as they can meet."""

    barrier = None

    def meet(self):
        try:
            self.barrier.wait(1.0)
        except threading.BrokenBarrierError:
            return

    def __add__(self, other):
        self.meet()
        return int(self) + int(other)

    def __radd__(self, other):
        self.meet()
        return int(other) + int(self)


def test_one_thread_counts():
    counter = Counter()
    assert int(counter.value()) == 0
    assert int(counter.increment()) == 1
    assert int(counter.increment(5)) == 6
    assert int(counter.increment(-2)) == 4
    assert int(counter.value()) == 4
    assert int(Counter().value()) == 0


def test_reset_returns_what_was_counted():
    counter = Counter()
    counter.increment(3)
    assert int(counter.reset()) == 3
    assert int(counter.value()) == 0
    assert int(counter.increment()) == 1
    assert int(counter.reset()) == 1
    assert int(counter.reset()) == 0


def test_two_increments_at_once_both_count():
    class Amount(Meeting):
        barrier = threading.Barrier(2)

    counter = Counter()
    add = [lambda amount=amount: counter.increment(Amount(amount)) for amount in (1, 2)]
    run_at_once(*add)
    assert int(counter.value()) == 3


def count_to_ten(counter):
    return [int(counter.increment()) for _ in range(10)]


def reset_ten_times(counter):
    return sum(int(counter.reset()) for _ in range(10))


def test_many_threads_lose_nothing():
    for _ in range(ROUNDS):
        counter = Counter()
        run_interleaved(*[lambda: count_to_ten(counter)] * 4)
        assert int(counter.value()) == 40


def test_no_value_is_returned_twice():
    for _ in range(ROUNDS):
        counter = Counter()
        results = run_interleaved(*[lambda: count_to_ten(counter)] * 4)
        assert sorted(sum(results, [])) == [*range(1, 41)]


def test_a_reset_meanwhile_loses_nothing():
    for _ in range(ROUNDS):
        counter = Counter()
        counting = [lambda: count_to_ten(counter)] * 3
        resetting = [lambda: reset_ten_times(counter)] * 2
        results = run_interleaved(*counting, *resetting)
        assert sum(results[3:]) + int(counter.value()) == 30


def test_a_failed_increment_leaves_it_usable():
    counter = Counter()
    counter.increment(2)
    with pytest.raises(TypeError):
        counter.increment("x")
    run_at_once(counter.increment)
    assert int(counter.value()) == 3
