"""How an answer ends, and what the bus hears of it."""

import asyncio
import gc
import time as clock

import anyio
import pytest

from agentfarm.config import TimeoutSettings
from agentfarm.errors import (
    AgentFarmError,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
)
from agentfarm.events import EventType
from agentfarm.llm import (
    CallContext,
    ChatRequest,
    OllamaProvider,
    OpenAIProvider,
    RegisteredModel,
    RetryPolicy,
    ServerTiming,
    ToolSpec,
    Usage,
    user,
)
from agentfarm.llm._telemetry import percentile
from agentfarm.llm.testing import Answer, FakeProvider, Fault, Reply

TOOL = ToolSpec(name="add", description="Adds", parameters={"type": "object"})


def ask(model="m", text="Say hello", **fields):
    return ChatRequest(messages=(user(text),), model=model, **fields)


def down(**fields):
    return ProviderError("connection refused", retryable=True, **fields)


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


@pytest.mark.parametrize("hold_after", [0, 2], ids=["first token", "midstream"])
async def test_the_deadline_ends_the_answer_and_closes_upstream(make, bus, hold_after):
    fake = FakeProvider(
        Answer("one two three", hold=anyio.Event(), hold_after=hold_after)
    )
    router = make(fake)
    with pytest.raises(ProviderTimeout) as caught:
        await router.complete(ask(timeouts=TimeoutSettings(total_s=0.05)))
    error = caught.value
    assert (error.phase, error.timeout_s) == ("total", 0.05)
    assert error.partial_text == ("one two " if hold_after else "")
    assert ("after 2 chunks" if hold_after else "to answer") in str(error)
    assert (fake.active, fake.cancelled) == (0, 1)
    assert terminal(bus).data["record"].error_type == "ProviderTimeout"
    assert asyncio.current_task().cancelling() == 0


async def test_the_deadline_counts_the_time_in_the_queue(make):
    fake = FakeProvider(Answer("x", hold=anyio.Event()))
    router = make(RegisteredModel(name="m", provider=fake, max_concurrency=1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.complete, ask())
        await fake.wait_until(lambda fake: fake.active == 1)
        with pytest.raises(ProviderTimeout, match="waiting for a place on"):
            await router.complete(ask(timeouts=TimeoutSettings(total_s=0.03)))
        tasks.cancel_scope.cancel()
    assert len(fake.calls) == 1


async def test_the_deadline_cuts_a_backoff_short(make):
    fake = FakeProvider(down())
    router = make(fake, sleep=anyio.sleep, retry=RetryPolicy(base_s=0.1, rounds=99))
    with pytest.raises(ProviderTimeout, match="to try again"):
        await router.complete(ask(timeouts=TimeoutSettings(total_s=0.05)))


async def test_the_routers_timeouts_hold_where_the_request_has_none(make):
    fake = FakeProvider(Answer("x", hold=anyio.Event()))
    router = make(fake, timeouts=TimeoutSettings(total_s=0.03))
    with pytest.raises(ProviderTimeout):
        await router.complete(ask())


async def test_a_consumer_that_outlives_the_deadline_is_not_cancelled_itself(make):
    fake = FakeProvider("one two three")
    stream = make(fake).stream(ask(timeouts=TimeoutSettings(total_s=0.02)))
    await anext(stream)
    await anyio.sleep(0.05)
    with pytest.raises(ProviderTimeout) as caught:
        await anext(stream)
    assert caught.value.partial_text == "one "


async def test_leaving_the_block_closes_upstream_at_once(make, bus):
    fake = FakeProvider("one two three")
    router = make(fake)
    async with router.stream(ask()) as answer:
        async for _ in answer:
            break
    assert (fake.cancelled, fake.active) == (1, 0)
    assert router.status().models[0].active == 0
    assert answer.text == "one "
    event = terminal(bus)
    assert event.type == EventType.LLM_ERROR
    assert event.data["record"].status == "cancelled"
    assert event.data["partial_text"] == "one "
    with pytest.raises(AgentFarmError, match="not complete"):
        _ = answer.response


async def test_a_consumer_without_a_block_is_noticed_when_it_drops_the_stream(make):
    fake = FakeProvider("one two three")
    gc.disable()
    try:
        async for _ in make(fake).stream(ask()):
            break
        await fake.wait_until(lambda fake: fake.cancelled == 1)
    finally:
        gc.enable()


async def test_cancelling_the_consumer_closes_upstream(make, bus):
    fake = FakeProvider(Answer("one two", hold=anyio.Event(), hold_after=1))
    task = asyncio.get_running_loop().create_task(make(fake).complete(ask()))
    await fake.wait_until(lambda fake: fake.calls and fake.calls[0].pieces == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (fake.cancelled, fake.active) == (1, 0)
    record = terminal(bus).data["record"]
    assert (record.status, record.chunks) == ("cancelled", 1)


async def test_another_task_may_close_the_stream_and_the_consumer_sees_its_end(
    make, bus
):
    fake = FakeProvider(Answer("one two", hold=anyio.Event(), hold_after=1))
    stream = make(fake).stream(ask())
    seen = []

    async def consume():
        await read(stream, seen)
        seen.append("end")
        assert asyncio.current_task().cancelling() == 0

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await fake.wait_until(lambda fake: fake.calls and fake.calls[0].pieces == 1)
        with anyio.fail_after(2):
            await stream.aclose()
        assert fake.active == 0
    assert seen == ["one ", "end"]
    assert terminal(bus).data["record"].status == "cancelled"


async def test_a_cancellation_wins_over_a_deadline_in_the_same_moment(make):
    fake = FakeProvider(Answer("x", hold=anyio.Event()))
    router = make(fake)
    task = asyncio.get_running_loop().create_task(router.complete(ask()))
    await fake.wait_until(lambda fake: fake.active == 1)
    [call] = router._calls
    task.cancel()
    call.interrupt(ProviderTimeout("too late"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.active == 0


async def test_a_stream_that_is_never_read_asks_nothing(make, bus):
    fake = FakeProvider()
    async with make(fake).stream(ask()):
        pass
    assert fake.calls == []
    assert bus.history() == []


async def test_the_events_of_an_answer(make, bus):
    usage = Usage(input_tokens=5, output_tokens=3, cached_tokens=2)
    server = ServerTiming(
        load_s=0.5, prompt_s=0.1, output_s=0.2, output_tokens_per_s=15
    )
    fake = FakeProvider(
        Answer("a b c", gap_s=0.002, usage=usage, server=server, reasoning=("Hm",))
    )
    context = CallContext(run_id="r1", sample_id="s1", agent="planner")
    request = ask(task_type="math", context=context, tools=(TOOL,))
    response = await make(fake).complete(request)
    events = bus.history()
    assert [event.type for event in events] == [
        EventType.LLM_REQUEST,
        *[EventType.LLM_STREAM_CHUNK] * 4,
        EventType.LLM_RESPONSE,
    ]
    assert {(e.run_id, e.agent, e.request_id) for e in events} == {
        ("r1", "planner", request.request_id)
    }
    assert events[0].data["model"] == "m"
    assert events[0].data["task_type"] == "math"
    assert [(e.data["text"], e.data["reasoning"]) for e in events[1:-1]] == [
        ("", "Hm"),
        ("a ", ""),
        ("b ", ""),
        ("c", ""),
    ]
    assert events[1].data["at_s"] == response.timing.ttft_s
    assert events[-1].data["text"] == "a b c"
    record = events[-1].data["record"]
    gaps = sorted(response.timing.inter_chunk_s)
    assert (record.status, record.model, record.provider) == ("ok", "m", "fake")
    assert (record.sample_id, record.agent, record.task_type) == (
        "s1",
        "planner",
        "math",
    )
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == (
        5,
        3,
        2,
    )
    assert record.latency_s == response.timing.latency_s
    assert record.output_tokens_per_s == response.output_tokens_per_s
    assert record.inter_chunk_p50_s == gaps[1]
    assert record.inter_chunk_max_s == gaps[-1]
    assert (record.load_s, record.server_tokens_per_s) == (0.5, 15)
    assert (record.finish_reason, record.chunks) == ("stop", 4)


async def test_a_request_without_a_candidate_still_has_both_its_events(make, bus):
    with pytest.raises(ModelNotFound):
        await make(FakeProvider()).complete(ask("nobody"))
    assert [event.type for event in bus.history()] == [
        EventType.LLM_REQUEST,
        EventType.LLM_ERROR,
    ]
    record = terminal(bus).data["record"]
    assert (record.model, record.provider) == ("nobody", "router")


async def test_a_router_without_a_bus_answers_as_well(make):
    assert (await make(FakeProvider("hi"), bus=None).complete(ask())).text == "hi"


@pytest.mark.parametrize(
    ("q", "value"), [(0, 1.0), (0.25, 1.75), (0.5, 2.5), (0.95, 3.85), (1, 4.0)]
)
def test_percentiles_are_linearly_interpolated(q, value):
    assert percentile([1.0, 2.0, 3.0, 4.0], q) == pytest.approx(value)
    assert percentile([7.0], q) == 7.0
    assert percentile([], q) is None


async def test_closing_the_router_ends_what_runs_and_closes_every_provider(make):
    first, second = fakes(Answer("x", hold=anyio.Event()), "y")
    router = make(first, second)
    errors = []

    async def one():
        try:
            await router.complete(ask())
        except ProviderError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await first.wait_until(lambda fake: fake.active == 1)
        await router.aclose()
    assert errors[0].startswith("The router was closed.")
    assert first.closed
    assert second.closed
    with pytest.raises(ProviderError, match="was closed"):
        await router.complete(ask())
    assert len(first.calls) == 1


# Over the wire


@pytest.mark.parametrize("provider", [OpenAIProvider, OllamaProvider])
@pytest.mark.parametrize("how", ["break", "cancel", "deadline", "close"])
async def test_the_server_sees_the_consumer_leave_within_100_ms(
    make, stub, provider, how
):
    stub.default = Reply("word " * 50, fault=Fault.STALL_MID_STREAM)
    server = provider(stub.url)
    router = make(RegisteredModel(name="m", provider=server, model="stub"))
    total_s = 0.1 if how == "deadline" else None
    stream = router.stream(ask(timeouts=TimeoutSettings(total_s=total_s)))
    left_at = []

    async def consume():
        try:
            async with stream:
                async for _ in stream:
                    if how == "break":
                        break
        except ProviderTimeout:
            assert how == "deadline"
        finally:
            left_at.append(clock.perf_counter())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await stub.wait_until(lambda stub: stub.chats and stub.chats[0].sent)
        await anyio.wait_all_tasks_blocked()
        if how == "cancel":
            tasks.cancel_scope.cancel()
        elif how == "close":
            await stream.aclose()
    [request] = stub.chats
    await request.wait_over()
    assert request.disconnected_at - left_at[0] < 0.1
    await router.aclose()


async def test_a_fault_before_the_first_token_fails_over_over_the_wire(make, stub, bus):
    stub.queue.extend([Reply(fault=Fault.OVERLOADED), Reply("from the second")])
    router = make(
        RegisteredModel(name="m", provider=OpenAIProvider(stub.url), model="stub"),
        RegisteredModel(name="m", provider=OllamaProvider(stub.url), model="stub"),
    )
    async with router:
        response = await router.complete(ask())
    assert (response.text, response.provider) == ("from the second", "ollama")
    [retry] = bus.history(EventType.LLM_RETRY)
    assert retry.data["host"] == stub.url
