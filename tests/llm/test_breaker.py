"""The circuit breaker, on a clock that the test turns."""

import random

import pytest

from agentfarm.errors import ConfigError, ProviderError, RateLimited
from agentfarm.llm._breaker import BreakerPolicy, CircuitBreaker
from agentfarm.llm._retry import RetryPolicy, retry_after_s


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    policy = BreakerPolicy(failures=3, open_s=10.0, max_open_s=25.0)
    return CircuitBreaker(policy, clock=clock)


def fail(breaker, times=1):
    for _ in range(times):
        admission = breaker.enter()
        assert admission
        breaker.failed(admission)


def test_opens_after_failures_in_a_row_only(breaker):
    fail(breaker, 2)
    breaker.enter()
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    assert not breaker.ready
    assert breaker.enter() is None
    assert breaker.probe_in_s == 10.0


def test_lets_one_probe_through_and_closes_when_it_succeeds(breaker, clock):
    fail(breaker, 3)
    clock.now_s += 9.99
    assert breaker.enter() is None
    clock.now_s += 0.01
    assert breaker.state == "half-open"
    assert breaker.enter() == "probe"
    assert breaker.enter() is None
    breaker.succeeded()
    assert breaker.state == "closed"
    assert [breaker.enter(), breaker.enter()] == ["normal", "normal"]


def test_each_failed_probe_doubles_the_wait_up_to_the_limit(breaker, clock):
    fail(breaker, 3)
    waits = []
    for _ in range(3):
        clock.now_s += breaker.probe_in_s
        fail(breaker)
        waits.append(breaker.probe_in_s)
    assert waits == [20.0, 25.0, 25.0]
    clock.now_s += 25.0
    breaker.enter()
    breaker.succeeded()
    fail(breaker, 3)
    assert breaker.probe_in_s == 10.0


def test_an_abandoned_probe_makes_room_for_another(breaker, clock):
    fail(breaker, 3)
    clock.now_s += 10
    assert breaker.enter() == "probe"
    breaker.abandoned("probe")
    assert breaker.enter() == "probe"


def test_a_late_request_from_before_is_not_taken_for_the_probe(breaker, clock):
    late = [breaker.enter(), breaker.enter()]
    fail(breaker, 3)
    clock.now_s += 10
    assert breaker.enter() == "probe"
    breaker.failed(late[0])
    assert breaker.probe_in_s == 0.0
    breaker.abandoned(late[1])
    assert breaker.enter() is None


@pytest.mark.parametrize(
    "values", [{"failures": 0}, {"open_s": 0.0}, {"open_s": 9.0, "max_open_s": 8.0}]
)
def test_a_policy_without_sense_is_refused(values):
    with pytest.raises(ConfigError, match="breaker policy"):
        BreakerPolicy(**values)


def test_backoff_draws_from_zero_to_a_bound_that_doubles():
    policy = RetryPolicy(base_s=1.0, max_wait_s=3.0)

    class Bounds(random.Random):
        def uniform(self, a, b):
            assert a == 0.0
            return b

    assert [policy.wait_s(n, Bounds()) for n in (1, 2, 3, 9)] == [1.0, 2.0, 3.0, 3.0]


def test_retry_after_is_read_from_rate_limits_only():
    limited = RateLimited("busy")
    assert retry_after_s(limited) == 0.0
    limited.retry_after_s = 7.0
    assert retry_after_s(limited) == 7.0
    assert retry_after_s(ProviderError("down")) == 0.0


@pytest.mark.parametrize("values", [{"rounds": 0}, {"base_s": -1.0}])
def test_a_retry_policy_without_sense_is_refused(values):
    with pytest.raises(ConfigError, match="retry policy"):
        RetryPolicy(**values)
