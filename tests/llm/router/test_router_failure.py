"""What the router does when a model fails: retry, fail over, stop asking."""

import anyio
import pytest

from agentfarm.config import TimeoutSettings
from agentfarm.errors import (
    AgentFarmError,
    ConfigError,
    ContextOverflow,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    RateLimited,
)
from agentfarm.events import EventType
from agentfarm.llm import (
    BreakerPolicy,
    ChatRequest,
    LLMRouter,
    RegisteredModel,
    RetryPolicy,
    user,
)
from agentfarm.llm.testing import Answer, FakeProvider


def ask(model="m", text="Say hello", **fields):
    return ChatRequest(messages=(user(text),), model=model, **fields)


def down(**fields):
    return ProviderError("connection refused", retryable=True, **fields)


def limited(retry_after_s):
    error = RateLimited("too many requests", status_code=429, retryable=True)
    error.retry_after_s = retry_after_s
    return error


def fakes(*scripts):
    return [
        FakeProvider(script, host=f"http://127.0.0.1:{port}/fake")
        for port, script in enumerate(scripts, start=1)
    ]


def terminal(bus):
    events = bus.history(EventType.LLM_RESPONSE, EventType.LLM_ERROR)
    assert len(events) == 1
    return events[0]


async def read(stream, seen):
    async with stream:
        async for chunk in stream:
            seen += [chunk.text]


async def test_retries_back_off_and_then_answer(make, bus, time):
    fake = FakeProvider([down(), down(), "fine"])
    router = make(fake, retry=RetryPolicy(base_s=1.0))
    response = await router.complete(ask())
    assert (response.text, response.attempts) == ("fine", 3)
    assert time.sleeps == [1.0, 2.0]
    retries = [event.data for event in bus.history(EventType.LLM_RETRY)]
    assert [(r["attempt"], r["wait_s"]) for r in retries] == [(2, 1.0), (3, 2.0)]
    assert retries[0]["error"] == "connection refused"
    assert retries[0]["host"] == fake.host
    assert terminal(bus).data["record"].attempts == 3


async def test_the_providers_error_keeps_its_class_when_rounds_are_over(
    make, bus, time
):
    fake = FakeProvider([down(), down(), ProviderTimeout("slow", retryable=True)])
    with pytest.raises(ProviderTimeout, match="slow"):
        await make(fake).complete(ask())
    assert len(fake.calls) == 3
    record = terminal(bus).data["record"]
    assert (record.status, record.error_type) == ("error", "ProviderTimeout")
    assert (record.error, record.attempts) == ("slow", 3)


@pytest.mark.parametrize(
    "error",
    [
        ProviderError("bad request", status_code=400),
        ContextOverflow("too long"),
        ModelNotFound("gone"),
        ConfigError("no key"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_cannot_succeed_is_not_tried_again(make, time, error):
    fake = FakeProvider(error)
    with pytest.raises(type(error)):
        await make(fake).complete(ask())
    assert len(fake.calls) == 1
    assert time.sleeps == []


async def test_a_failure_moves_to_the_alternative_at_once(make, bus, time):
    bad, good = fakes(down(), "good")
    response = await make(bad, good).complete(ask())
    assert (response.text, response.attempts) == ("good", 2)
    assert response.host == good.host
    assert time.sleeps == []
    [retry] = bus.history(EventType.LLM_RETRY)
    assert (retry.data["host"], retry.data["wait_s"]) == (bad.host, 0.0)
    assert terminal(bus).data["record"].host == good.host


async def test_an_alternative_is_tried_where_one_host_lacks_the_model(make):
    bad, good = fakes(ModelNotFound("not pulled"), "good")
    assert (await make(bad, good).complete(ask())).text == "good"


async def test_the_error_of_the_last_tells_of_the_others_in_notes(make):
    first, second = fakes(ModelNotFound("not pulled"), ContextOverflow("too long"))
    with pytest.raises(ContextOverflow) as caught:
        await make(first, second).complete(ask())
    assert caught.value.__notes__ == [f"m at {first.host}: not pulled"]


async def test_retry_after_is_the_least_wait_and_jitter_comes_on_top(make, time):
    fake = FakeProvider([limited(7.0), "fine"])
    await make(fake, retry=RetryPolicy(base_s=0.5)).complete(ask())
    assert time.sleeps == [7.5]


async def test_a_retry_after_beyond_the_limit_is_raised_at_once(make, time):
    fake = FakeProvider(limited(3600.0))
    with pytest.raises(RateLimited) as caught:
        await make(fake).complete(ask())
    assert caught.value.retry_after_s == 3600.0
    assert (len(fake.calls), time.sleeps) == (1, [])


async def test_a_request_that_would_wait_too_long_for_quiet_is_not_sent(make):
    fake = FakeProvider(limited(3600.0))
    router = make(fake)
    with pytest.raises(RateLimited):
        await router.complete(ask())
    with pytest.raises(RateLimited, match="left alone for 3600 s more"):
        await router.complete(ask())
    assert len(fake.calls) == 1


async def test_retry_after_is_not_waited_for_beyond_the_deadline(make, time):
    fake = FakeProvider([limited(7.0), "never asked"])
    with pytest.raises(RateLimited):
        await make(fake).complete(ask(timeouts=TimeoutSettings(total_s=5.0)))
    assert time.sleeps == []


async def test_a_host_that_asked_for_quiet_gets_none_of_the_other_requests(make, time):
    busy, free = fakes([limited(30.0), "later"], "free")
    router = make(busy, free)
    assert (await router.complete(ask())).text == "free"
    assert (await router.complete(ask())).text == "free"
    assert len(busy.calls) == 1
    time.now_s += 30
    free.script = ProviderError("gone", status_code=400)
    assert (await router.complete(ask())).text == "later"


async def test_after_the_first_chunk_the_error_carries_the_partial_text(
    make, bus, time
):
    first, second = fakes(Answer("one two three", error=down(), error_after=2), "other")
    chunks = []
    with pytest.raises(ProviderError) as caught:
        await read(make(first, second).stream(ask()), chunks)
    assert caught.value.partial_text == "one two "
    assert (chunks, second.calls, time.sleeps) == (["one ", "two "], [], [])
    event = terminal(bus)
    assert event.data["partial_text"] == "one two "
    record = event.data["record"]
    assert (record.status, record.chunks, record.attempts) == ("error", 2, 1)
    assert record.ttft_s is not None


async def test_a_thinking_chunk_counts_as_the_first_token(make):
    first, second = fakes(
        Answer("x", reasoning=("Hmm",), error=down(), error_after=1), "other"
    )
    with pytest.raises(ProviderError, match="connection refused"):
        await make(first, second).complete(ask())
    assert second.calls == []


async def test_a_stream_that_ends_without_an_answer_is_an_error(make):
    class Broken(FakeProvider):
        async def stream(self, request):
            return
            yield

    with pytest.raises(ProviderError, match="without an answer"):
        await make(Broken()).complete(ask())


async def test_a_bug_in_a_provider_is_reported_and_not_retried(make, bus):
    fake = FakeProvider(KeyError("oops"))
    router = make(fake)
    with pytest.raises(KeyError):
        await router.complete(ask())
    assert len(fake.calls) == 1
    assert terminal(bus).data["record"].error_type == "KeyError"
    assert router.status().models[0].active == 0


async def test_an_open_circuit_is_not_asked_until_a_probe_succeeds(make, time):
    fake = FakeProvider(down())
    router = make(
        fake,
        retry=RetryPolicy(rounds=1),
        breaker=BreakerPolicy(failures=2, open_s=30.0),
    )
    for _ in range(2):
        with pytest.raises(ProviderError, match="connection refused"):
            await router.complete(ask())
    with pytest.raises(ProviderError, match="was not asked, since it kept failing"):
        await router.complete(ask())
    assert len(fake.calls) == 2
    assert router.status().models[0].circuit == "open"
    assert not router.status().ok
    time.now_s += 30
    fake.script = "well again"
    assert (await router.complete(ask())).text == "well again"
    assert router.status().models[0].circuit == "closed"


async def test_a_half_open_circuit_lets_one_probe_through(make, time):
    hold = anyio.Event()
    fake = FakeProvider([down(), Answer("probe", hold=hold)], default="more")
    router = make(
        fake, retry=RetryPolicy(rounds=1), breaker=BreakerPolicy(failures=1, open_s=9)
    )
    with pytest.raises(ProviderError):
        await router.complete(ask())
    time.now_s += 9
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.complete, ask())
        await fake.wait_until(lambda fake: fake.active == 1)
        with pytest.raises(ProviderError, match="a probe is under way"):
            await router.complete(ask())
        hold.set()
    assert (await router.complete(ask())).text == "more"


async def test_a_cancelled_probe_makes_room_for_the_next(make, time):
    fake = FakeProvider([down(), Answer("x", hold=anyio.Event())], default="fine")
    router = make(
        fake, retry=RetryPolicy(rounds=1), breaker=BreakerPolicy(failures=1, open_s=9)
    )
    with pytest.raises(ProviderError):
        await router.complete(ask())
    time.now_s += 9
    with anyio.move_on_after(0.02):
        await router.complete(ask())
    assert (await router.complete(ask())).text == "fine"


async def test_an_open_circuit_leaves_the_work_to_the_alternative(make):
    bad, good = fakes(down(), "good")
    router = make(bad, good, breaker=BreakerPolicy(failures=1, open_s=60))
    for _ in range(3):
        assert (await router.complete(ask())).text == "good"
    assert len(bad.calls) == 1


@pytest.mark.parametrize(
    "error", [limited(None), ProviderError("bad", status_code=400), ConfigError("no")]
)
async def test_a_refusal_does_not_open_the_circuit(make, error):
    router = make(
        FakeProvider(error),
        retry=RetryPolicy(rounds=1),
        breaker=BreakerPolicy(failures=1),
    )
    with pytest.raises(AgentFarmError):
        await router.complete(ask())
    assert router.status().models[0].circuit == "closed"


async def test_a_host_that_stays_silent_until_the_deadline_counts_as_ill(make):
    fake = FakeProvider(Answer("x", hold=anyio.Event()))
    router = make(fake, breaker=BreakerPolicy(failures=1))
    with pytest.raises(ProviderTimeout):
        await router.complete(ask(timeouts=TimeoutSettings(total_s=0.03)))
    assert router.status().models[0].circuit == "open"


async def test_a_deadline_that_the_queue_used_up_says_nothing_of_the_host():
    fake = FakeProvider(Answer("x", first_delay_s=0.2))
    router = LLMRouter(
        [RegisteredModel(name="m", provider=fake, max_concurrency=1)],
        breaker=BreakerPolicy(failures=1),
    )
    results = []

    async def complete():
        try:
            await router.complete(ask(timeouts=TimeoutSettings(total_s=0.3)))
            results.append("answered")
        except ProviderTimeout:
            results.append("late")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(complete)
        tasks.start_soon(complete)
    assert results == ["answered", "late"]
    assert len(fake.calls) == 2
    assert router.status().models[0].circuit == "closed"
