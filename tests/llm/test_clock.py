"""The measuring rule that all providers share."""

import pytest

from agentfarm.llm._clock import StreamClock
from agentfarm.llm._messages import ToolCallDelta, Usage


@pytest.fixture
def clock() -> StreamClock:
    return StreamClock(origin=100.0, started_at=1_700_000_000.0)


def answer(clock, **more):
    facts = {"finish_reason": "stop", "usage": Usage(), **more}
    return clock.response(model="m", provider="p", host="h", **facts)


def test_nothing_but_content_reasoning_and_tool_calls_is_a_token(clock):
    assert clock.add(100.1) is None
    assert clock.add(100.2, "") is None
    assert clock.chunks == 0
    assert clock.timing().ttft_s is None


@pytest.mark.parametrize(
    "delta",
    [
        {"text": "x"},
        {"reasoning": "x"},
        {"tool_calls": (ToolCallDelta(index=0, name="f"),)},
    ],
)
def test_each_kind_of_delta_is_a_first_token(clock, delta):
    clock.add(100.1)
    chunk = clock.add(100.5, **delta)
    assert chunk.at_s == pytest.approx(0.5)
    clock.add(101.5, "later")
    timing = clock.timing()
    assert timing.ttft_s == pytest.approx(0.5)
    assert timing.last_token_s == timing.latency_s == pytest.approx(1.5)
    assert timing.inter_chunk_s == pytest.approx((1.0,))
    assert timing.started_at == 1_700_000_000.0


def test_latency_of_an_empty_answer_is_the_time_until_it_ended(clock):
    clock.end(102.0)
    assert clock.timing().latency_s == pytest.approx(2.0)
    assert clock.timing().last_token_s is None


def test_latency_ends_with_the_last_token_and_not_with_the_stream(clock):
    clock.add(101.0, "x")
    clock.end(109.0)
    assert clock.timing().latency_s == pytest.approx(1.0)


def test_chunks_are_never_counted_as_tokens(clock):
    clock.add(101.0, "🎉")
    clock.add(102.0, "🎉")
    assert answer(clock).usage.output_tokens is None
    assert answer(clock).output_tokens_per_s is None
    counted = answer(clock, usage=Usage(output_tokens=40))
    assert counted.output_tokens_per_s == pytest.approx(39.0)


def test_load_time_is_kept_apart(clock):
    clock.add(103.0, "x")
    timing = answer(clock, load_s=2.5).timing
    assert timing.ttft_s == pytest.approx(3.0)
    assert timing.ttft_excl_load_s == pytest.approx(0.5)


def test_tool_calls_are_put_together_by_index(clock):
    clock.add(101.0, tool_calls=(ToolCallDelta(index=1, id="b", name="second"),))
    clock.add(101.1, tool_calls=(ToolCallDelta(index=0, name="first"),))
    clock.add(101.2, tool_calls=(ToolCallDelta(index=1, arguments='{"x"'),))
    clock.add(101.3, tool_calls=(ToolCallDelta(index=1, arguments=":1}"),))
    first, second = answer(clock).message.tool_calls
    assert (first.name, first.id, first.arguments) == ("first", "call_0", {})
    assert (second.name, second.id, second.arguments) == ("second", "b", {"x": 1})
    assert second.raw_arguments == '{"x":1}'


@pytest.mark.parametrize("raw", ['{"x":', "[1]", "not json"])
def test_arguments_that_are_no_object_are_kept_as_text(clock, raw):
    clock.add(101.0, tool_calls=(ToolCallDelta(index=0, name="f", arguments=raw),))
    (call,) = answer(clock).message.tool_calls
    assert call.arguments is None
    assert call.raw_arguments == raw


def test_a_call_cut_at_the_token_limit_has_no_arguments(clock):
    clock.add(101.0, tool_calls=(ToolCallDelta(index=0, name="f"),))
    (call,) = answer(clock, finish_reason="length").message.tool_calls
    assert call.arguments is None


def test_texts_are_joined(clock):
    clock.add(101.0, reasoning="think ")
    clock.add(101.0, reasoning="hard")
    clock.add(101.0, "an")
    clock.add(101.0, "swer")
    assert clock.partial_text == "answer"
    assert answer(clock).text == "answer"
    assert answer(clock).message.reasoning == "think hard"
