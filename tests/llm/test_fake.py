"""FakeProvider says what it is told, and notes what it was asked."""

import anyio
import anyio.lowlevel
import pytest

from agentfarm.errors import ModelNotFound, ProviderError, RateLimited
from agentfarm.llm._messages import (
    ChatResponse,
    Health,
    ModelInfo,
    ServerTiming,
    ToolCall,
    Usage,
)
from agentfarm.llm._provider import Provider
from agentfarm.llm.testing import Answer, FakeProvider

CALL = ToolCall(id="c1", name="add", arguments={"a": 1}, raw_arguments='{"a": 1}')


def test_is_a_provider(fake):
    assert isinstance(fake, Provider)
    assert fake.kind == "fake"


async def test_one_text_answers_every_request(ask, hear):
    fake = FakeProvider("always this")
    for _ in range(3):
        heard = await hear(fake, ask)
        assert heard.text == heard.response.text == "always this"
    assert fake.requests == [ask, ask, ask]


async def test_text_is_streamed_in_words(ask, hear):
    heard = await hear(FakeProvider("two  words\n"), ask)
    assert [chunk.text for chunk in heard.chunks] == ["two  ", "words\n"]


async def test_sequence_answers_in_order_then_says_that_it_is_empty(ask, hear):
    fake = FakeProvider(["one", Answer("two")])
    assert (await hear(fake, ask)).text == "one"
    assert (await hear(fake, ask)).text == "two"
    with pytest.raises(ProviderError, match="no answer left for request 3"):
        await hear(fake, ask)


async def test_default_follows_the_sequence(ask, hear):
    fake = FakeProvider(["one"], default="more")
    assert [(await hear(fake, ask)).text for _ in range(3)] == ["one", "more", "more"]


async def test_function_sees_the_request(ask, hear):
    async def later(request):
        await anyio.lowlevel.checkpoint()
        return request.messages[-1].content.lower()

    fake = FakeProvider(lambda request: request.messages[-1].content.upper())
    assert (await hear(fake, ask)).text == "SAY SOMETHING."
    fake.script = later
    assert (await hear(fake, ask)).text == "say something."


async def test_whole_answer_reaches_the_response(ask, hear):
    usage = Usage(input_tokens=3, output_tokens=40)
    server = ServerTiming(load_s=0.5, output_tokens_per_s=20.0)
    answer = Answer(
        chunks=("a", "b"),
        reasoning=("hm", "m"),
        tool_calls=(CALL,),
        usage=usage,
        server=server,
        context_truncated=True,
        warnings=("careful",),
    )
    heard = await hear(FakeProvider(answer), ask)
    response = heard.response
    assert heard.reasoning == response.message.reasoning == "hmm"
    assert heard.text == response.text == "ab"
    assert heard.chunks[-1].tool_calls[0].name == "add"
    assert response.message.tool_calls == (CALL,)
    assert response.finish_reason == "tool_calls"
    assert (response.usage, response.server) == (usage, server)
    assert response.timing.load_s == 0.5
    assert response.context_truncated
    assert response.warnings == ("careful",)
    assert response.model == "stub"


async def test_tokens_are_unknown_unless_told(ask, hear):
    response = (await hear(FakeProvider("a b c"), ask)).response
    assert response.usage == Usage()


async def test_delays_are_kept_and_measured(ask, hear):
    fake = FakeProvider(Answer("a b c", first_delay_s=0.03, gap_s=0.01))
    timing = (await hear(fake, ask)).response.timing
    assert timing.ttft_s >= 0.03
    assert len(timing.inter_chunk_s) == 2
    assert min(timing.inter_chunk_s) >= 0.009
    assert timing.latency_s == timing.last_token_s >= 0.05


async def test_error_carries_what_was_streamed(ask):
    fake = FakeProvider(Answer("a b c", error=RateLimited("busy"), error_after=2))
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            async for _ in fake.stream(ask):
                pass
        assert caught.value.partial_text == "a b "
    assert [call.state for call in fake.calls] == ["failed", "failed"]
    assert [call.pieces for call in fake.calls] == [2, 2]


async def test_error_comes_even_after_a_short_answer(ask, hear):
    fake = FakeProvider(Answer("a", error=ProviderError("late"), error_after=9))
    with pytest.raises(ProviderError, match="late"):
        await hear(fake, ask)


async def test_exception_is_a_reaction(ask, hear):
    fake = FakeProvider([ModelNotFound("no such model"), "fine"])
    with pytest.raises(ModelNotFound):
        await hear(fake, ask)
    assert (await hear(fake, ask)).text == "fine"


async def test_counts_requests_in_flight(ask, hear):
    hold = anyio.Event()
    fake = FakeProvider(Answer("a b", hold=hold, hold_after=1))
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(hear, fake, ask)
        await fake.wait_until(
            lambda fake: [call.pieces for call in fake.calls] == [1, 1, 1]
        )
        assert fake.active == 3
        hold.set()
    assert (fake.active, fake.max_active) == (0, 3)
    assert [call.state for call in fake.calls] == ["completed"] * 3


async def test_notes_a_cancelled_consumer(ask, hear):
    fake = FakeProvider(Answer("never", hold=anyio.Event()))
    async with anyio.create_task_group() as group:
        group.start_soon(hear, fake, ask)
        await fake.wait_until(lambda fake: fake.active == 1)
        group.cancel_scope.cancel()
    assert fake.calls[0].state == "closed"
    assert (fake.active, fake.cancelled) == (0, 1)


async def test_notes_a_consumer_that_leaves(ask):
    fake = FakeProvider("a b c")
    stream = fake.stream(ask)
    await anext(stream)
    await stream.aclose()
    assert (fake.calls[0].state, fake.cancelled) == ("closed", 1)


async def test_request_is_over_once_the_response_is_there(ask):
    fake = FakeProvider("a")
    stream = fake.stream(ask)
    items = [await anext(stream), await anext(stream)]
    assert isinstance(items[1], ChatResponse)
    assert fake.active == 0
    await stream.aclose()
    assert (fake.calls[0].state, fake.cancelled) == ("completed", 0)


async def test_wait_until_gives_up(fake):
    with pytest.raises(TimeoutError):
        await fake.wait_until(lambda fake: fake.active > 0, timeout_s=0.01)


async def test_models_and_health_are_settable(fake):
    assert [model.name for model in await fake.models()] == ["fake"]
    assert (await fake.health()).ok
    info = ModelInfo(name="big", context_length=8192)
    fake.offered = [info, "small"]
    fake.health_report = Health(ok=False, detail="It is down.")
    assert await fake.models() == [info, ModelInfo(name="small")]
    assert (await fake.health()).detail == "It is down."
    fake.offered = ProviderError("cannot list")
    with pytest.raises(ProviderError, match="cannot list"):
        await fake.models()
    await fake.aclose()
    assert fake.closed
