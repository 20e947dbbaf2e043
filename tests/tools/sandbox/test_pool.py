"""The pool: ready before it is needed, never used twice, gone when closed."""

import threading
import time

import pytest

from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox._pool import Pool


class Ready:
    """Stands for a container: what a pool knows of one."""

    def __init__(self, lifetime_s=3600.0):
        self.expires_at = time.time() + lifetime_s
        self.waits = True
        self.ended = False

    def is_waiting(self):
        return self.waits

    def end(self):
        self.ended = True


@pytest.fixture
def made():
    return []


@pytest.fixture
def pool(made):
    def make():
        made.append(Ready())
        return made[-1]

    return Pool(make, 3)


def soon():
    return time.time() + 60


def test_it_is_empty_until_it_is_filled_and_never_gives_one_twice(pool, made):
    assert pool.take(soon()) is None
    pool.wait_full()
    taken = []
    for _ in range(7):
        taken.append(pool.take(soon()))
        pool.wait_full()
    assert None not in taken
    assert len(set(map(id, taken))) == 7
    assert len(made) == 10


def test_one_that_died_or_would_expire_too_soon_is_passed_over(pool, made):
    pool.fill()
    pool.wait_full()
    made[0].waits = False
    made[1].expires_at = time.time() + 59
    assert pool.take(soon()) is made[2]
    assert [each.ended for each in made[:3]] == [True, True, False]


def test_a_failure_to_make_one_ends_the_filling_and_the_next_take_tries_again():
    working, tries = threading.Event(), []

    def make():
        tries.append(1)
        if not working.is_set():
            raise SandboxUnavailable("no engine")
        return Ready()

    pool = Pool(make, 1)
    assert pool.take(soon()) is None
    pool.wait_full()
    assert len(tries) == 1
    working.set()
    assert pool.take(soon()) is None
    pool.wait_full()
    assert pool.take(soon()) is not None


def test_closing_ends_the_ready_ones_and_the_one_that_is_being_made():
    making, go_on, made = threading.Event(), threading.Event(), []

    def make():
        if made:
            making.set()
            assert go_on.wait(10)
        made.append(Ready())
        return made[-1]

    pool = Pool(make, 2)
    pool.fill()
    assert making.wait(10)
    closing = threading.Thread(target=pool.close)
    closing.start()
    go_on.set()
    closing.join(10)
    assert [each.ended for each in made] == [True, True]
    pool.fill()
    pool.wait_full()
    assert len(made) == 2
    assert pool.take(soon()) is None


def test_a_pool_of_none_makes_none(made):
    pool = Pool(lambda: made.append(1), 0)
    assert pool.take(soon()) is None
    pool.wait_full()
    assert made == []
