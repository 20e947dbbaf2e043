"""Cassettes: what is recorded comes back, at three speeds, or is clearly refused."""

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import anyio
import pytest

from agentfarm.config import TimeoutSettings
from agentfarm.errors import (
    ConfigError,
    ContextOverflow,
    ProviderError,
    ProviderTimeout,
    RateLimited,
)
from agentfarm.llm import (
    CallContext,
    ChatRequest,
    Message,
    OllamaProvider,
    OpenAIProvider,
    RecordingProvider,
    ReplayProvider,
    ServerTiming,
    ToolCall,
    ToolSpec,
    Usage,
    system,
    user,
)
from agentfarm.llm._cassette import request_key
from agentfarm.llm.testing import Answer, FakeProvider, Fault, Reply

TOOL = ToolSpec(name="add", description="Adds", parameters={"type": "object"})


def question(text="Say hello", **fields):
    return ChatRequest(messages=(user(text),), model="stub", **fields)


@pytest.fixture
def cassette(tmp_path):
    return tmp_path / "new" / "session.jsonl"


@pytest.fixture
def record(cassette, hear):
    """Record what a FakeProvider says to each request, errors included."""

    async def record_all(script, *requests):
        recorder = RecordingProvider(FakeProvider(script), cassette)
        for request in requests:
            try:
                await hear(recorder, request)
            except ProviderError:
                continue

    return record_all


def pieces(heard):
    return [(c.text, c.reasoning, c.tool_calls) for c in heard.chunks]


@pytest.mark.parametrize("provider", [OpenAIProvider, OllamaProvider])
async def test_a_session_over_the_wire_comes_back_exactly(
    provider, stub, cassette, hear
):
    call = ToolCall(id="c1", name="add", arguments={"a": 1}, raw_arguments='{"a": 1}')
    stub.queue.append(
        Reply(
            "Grüße 👋🏽 an 世界!",
            reasoning=("Hm", "m"),
            tool_calls=(call,),
            gap_s=0.003,
            usage=Usage(input_tokens=9, output_tokens=40),
            server=ServerTiming(prompt_s=0.1, output_s=0.2, output_tokens=40),
        )
    )
    recorder = RecordingProvider(provider(stub.url), cassette)
    request = question("Grüß 世界", tools=(TOOL,), temperature=0)
    live = await hear(recorder, request)
    await recorder.aclose()

    again = await hear(ReplayProvider(cassette), request)
    assert again.chunks == live.chunks
    assert again.text == "Grüße 👋🏽 an 世界!"
    assert again.response.message == live.response.message
    assert again.response.usage == live.response.usage
    assert again.response.server == live.response.server
    assert again.response.finish_reason == live.response.finish_reason
    started_at = again.response.timing.started_at
    assert started_at > live.response.timing.started_at
    assert replace(again.response.timing, started_at=0) == replace(
        live.response.timing, started_at=0
    )
    assert (again.response.provider, again.response.host) == (
        "replay",
        "replay:session.jsonl",
    )


async def test_fast_measures_afresh_and_waits_for_nothing(record, cassette, hear):
    answer = Answer("one two", gap_s=0.05, server=ServerTiming(load_s=3.0))
    await record([answer], question())
    replay = ReplayProvider(cassette, speed="fast")
    heard = await hear(replay, question())
    timing = heard.response.timing
    assert 0 < timing.ttft_s <= timing.latency_s < 0.03
    assert timing.load_s is None
    assert len(timing.inter_chunk_s) == 1
    assert heard.text == "one two"


async def test_recorded_waits_as_the_server_did(record, cassette, hear):
    await record([Answer("one two", first_delay_s=0.04, gap_s=0.02)], question())
    [header, line] = map(json.loads, cassette.read_text().splitlines())
    at = [chunk["at_s"] for chunk in line["chunks"]]
    now = itertools.count()  # any clock will do; time passes only in sleep

    class Clock:
        now_s = 50.0

        def __call__(self):
            next(now)
            return self.now_s

        async def sleep(self, seconds):
            self.now_s += seconds

    clock = Clock()
    replay = ReplayProvider(cassette, speed="recorded", clock=clock, sleep=clock.sleep)
    heard = await hear(replay, question())
    assert [chunk.at_s for chunk in heard.chunks] == pytest.approx(at)
    assert clock.now_s - 50.0 == pytest.approx(at[-1])
    assert heard.response.timing.ttft_s == pytest.approx(at[0])
    assert header["format"] == "agentfarm-cassette"


async def test_recorded_waits_in_real_time(record, cassette, hear):
    await record([Answer("one two", first_delay_s=0.05)], question())
    heard = await hear(ReplayProvider(cassette, speed="recorded"), question())
    assert 0.049 < heard.response.timing.ttft_s < 0.5


async def test_the_nth_time_gets_the_nth_answer_and_then_the_first_again(
    record, cassette, hear
):
    await record(["a", "b", "x", "c"], *map(question, ["q", "q", "other", "q"]))
    replay = ReplayProvider(cassette)
    texts = [(await hear(replay, question("q"))).text for _ in range(5)]
    assert texts == ["a", "b", "c", "a", "b"]
    assert (await hear(replay, question("other"))).text == "x"
    fresh = ReplayProvider(cassette)
    assert (await hear(fresh, question("q"))).text == "a"


async def test_a_recorded_models_name_picks_its_answers_and_others_take_all(
    record, cassette, hear
):
    big, small = replace(question(), model="big"), replace(question(), model="small")
    await record(["from big", "from small"], big, small)
    replay = ReplayProvider(cassette)
    assert (await hear(replay, small)).text == "from small"
    assert (await hear(replay, big)).text == "from big"
    other = replace(question(), model="replay")
    texts = [(await hear(replay, other)).text for _ in range(3)]
    assert texts == ["from big", "from small", "from big"]
    assert [model.name for model in await replay.models()] == ["big", "small"]


async def test_errors_come_back_in_their_class_with_their_fields(stub, cassette, hear):
    stub.queue.extend(
        [
            Reply(fault=Fault.RATE_LIMITED, retry_after_s=7),
            Reply(fault=Fault.CONTEXT_OVERFLOW),
            Reply("one two three", fault=Fault.CUT_MID_STREAM, fault_after=2),
        ]
    )
    recorder = RecordingProvider(OpenAIProvider(stub.url), cassette)

    async def errors(provider):
        found = []
        for _ in range(3):
            with pytest.raises(ProviderError) as caught:
                await hear(provider, question())
            found.append(caught.value)
        return found

    live = await errors(recorder)
    await recorder.aclose()
    again = await errors(ReplayProvider(cassette, speed="recorded"))
    assert [type(error) for error in again] == [
        RateLimited,
        ContextOverflow,
        ProviderError,
    ]
    for one, other in zip(live, again, strict=True):
        assert str(other) == str(one)
        assert other.retryable == one.retryable
        assert other.status_code == one.status_code
        assert other.partial_text == one.partial_text
    assert again[0].retry_after_s == 7
    assert again[1].prompt_tokens == live[1].prompt_tokens is not None
    assert again[2].partial_text == "one two "
    assert (await errors(ReplayProvider(cassette)))[0].retry_after_s is None


async def test_a_timeout_keeps_its_phase(record, cassette, hear):
    error = ProviderTimeout("silent", retryable=True)
    error.phase, error.timeout_s = "first token", 3.0
    await record([error], question())
    with pytest.raises(ProviderTimeout) as caught:
        await hear(ReplayProvider(cassette), question())
    assert (caught.value.phase, caught.value.timeout_s) == ("first token", 3.0)


async def test_what_was_not_recorded_is_a_clear_error(record, cassette, hear):
    await record(["hi"], question("Say hello", temperature=0.0))
    with pytest.raises(ProviderError) as caught:
        await hear(ReplayProvider(cassette), question("What is  2+2?\n" + "x" * 500))
    text = str(caught.value)
    assert str(cassette) in text
    assert "“What is 2+2? xxx" in text
    assert "1 answers of stub" in text
    assert "RecordingProvider(provider, cassette)" in text
    assert len(text) < 600
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (user("Say hallo"),)},
        {"messages": (system("Be brief"), user("Say hello"))},
        {"temperature": 0.1},
        {"top_p": 0.9},
        {"seed": 2},
        {"stop": ("\n",)},
        {"max_tokens": 7},
        {"tools": (TOOL,)},
        {"response_schema": {"type": "object"}},
        {"extra": {"min_p": 0.1}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_key_covers_what_shapes_the_answer(change):
    base = question(temperature=0.0, seed=1)
    assert request_key(replace(base, **change)) != request_key(base)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "replay"},
        {"request_id": "another"},
        {"context": CallContext(run_id="r", agent="a")},
        {"timeouts": TimeoutSettings(total_s=1)},
        {"task_type": "math"},
        {"context_length": 512},
        {"temperature": 0},
        {"tool_choice": "none"},
        {"extra": {"b": 2, "a": {"d": 1, "c": 2}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_key_leaves_out_what_does_not(change):
    base = question(temperature=0.0, extra={"a": {"c": 2, "d": 1}, "b": 2})
    assert request_key(replace(base, **change)) == request_key(base)


def test_the_key_does_not_see_random_ids_of_tool_calls():
    def turns(call_id):
        call = ToolCall(id=call_id, name="add", arguments={}, raw_arguments="{}")
        return ChatRequest(
            messages=(
                user("Add"),
                Message(role="assistant", tool_calls=(call,)),
                Message(role="tool", content="3", tool_call_id=call_id, name="add"),
            )
        )

    assert request_key(turns("call_1")) == request_key(turns("call_2"))


def test_the_key_stays_the_same_between_versions():
    """Cassettes lie in people's repositories: a change breaks all of them."""
    key = request_key(question(temperature=0.0, max_tokens=5))
    assert key.startswith("0f528765591c7b1e8604b81d3735d60a")


async def test_an_answer_is_on_disk_before_it_is_handed_on(cassette):
    recorder = RecordingProvider(FakeProvider("one two"), cassette)
    stream = recorder.stream(question())
    items = [await anext(stream) for _ in range(2)]
    assert not cassette.exists()
    items.append(await anext(stream))
    assert len(cassette.read_text().splitlines()) == 2
    await stream.aclose()


async def test_an_answer_whose_consumer_left_is_not_recorded(cassette):
    fake = FakeProvider("one two")
    stream = RecordingProvider(fake, cassette).stream(question())
    await anext(stream)
    await stream.aclose()
    assert not cassette.exists()
    assert fake.cancelled == 1


async def test_a_cut_off_last_line_is_left_out_with_a_warning_and_mended(
    record, cassette, hear
):
    await record(["kept", "lost"], question("a"), question("b"))
    whole = cassette.read_bytes()
    cassette.write_bytes(whole[:-40])
    replay = ReplayProvider(cassette)
    assert (await hear(replay, question("a"))).text == "kept"
    [model] = await replay.models()
    assert "cut off" in model.details["warning"]
    health = await replay.health()
    assert health.ok
    assert "1 answers" in health.detail
    assert "cut off" in health.detail

    await record(["anew"], question("b"))
    replay = ReplayProvider(cassette)
    assert (await hear(replay, question("a"))).text == "kept"
    assert (await hear(replay, question("b"))).text == "anew"
    assert "warning" not in (await replay.models())[0].details


HEADER = '{"format":"agentfarm-cassette","version":1}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a cassette"),
        ("hello\n", "is not a cassette"),
        ('{"format":"vcr"}\n', "is not a cassette"),
        ('{"format":"agentfarm-cassette","version":2}\n', "format version 2"),
        ('{"format":"agentfarm-cassette","version":"1"}\n', "format version 1"),
        (HEADER + '{"key":\n' + "{}\n", "Line 2"),
        (HEADER + '{"key":"k","model":"m","asked":"","chunks":[]}\n', "neither"),
    ],
)
async def test_a_file_that_cannot_be_trusted_is_refused(
    cassette, hear, content, message
):
    cassette.parent.mkdir()
    cassette.write_text(content)
    with pytest.raises(ConfigError, match=message):
        await hear(ReplayProvider(cassette), question())
    health = await ReplayProvider(cassette).health()
    assert not health.ok
    assert message in health.detail


async def test_a_missing_cassette_is_named(cassette):
    with pytest.raises(ConfigError, match=r"session\.jsonl cannot be read: No such"):
        await ReplayProvider(cassette).models()


@pytest.mark.parametrize(
    "content", ["a note\n", '{"format":"agentfarm-cassette","version":9}\n', "x"]
)
async def test_a_recorder_never_writes_into_a_foreign_file(cassette, hear, content):
    cassette.parent.mkdir()
    cassette.write_text(content)
    with pytest.raises(ConfigError):
        await hear(RecordingProvider(FakeProvider(), cassette), question())
    assert cassette.read_text() == content


async def test_requests_in_parallel_are_recorded_line_by_line(cassette, hear):
    recorder = RecordingProvider(
        FakeProvider(lambda request: request.messages[0].content), cassette
    )
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(hear, recorder, question(f"text {number}"))
    replay = ReplayProvider(cassette)
    for number in range(20):
        heard = await hear(replay, question(f"text {number}"))
        assert heard.text == f"text {number}"


RECORDER = """
import sys, anyio
from pathlib import Path
from agentfarm.llm import ChatRequest, RecordingProvider, user
from agentfarm.llm.testing import FakeProvider

async def main():
    recorder = RecordingProvider(FakeProvider("x" * 5000), Path(sys.argv[1]))
    for number in range(10**6):
        request = ChatRequest(messages=(user(str(number)),), model="stub")
        async for item in recorder.stream(request):
            pass
        print(number, flush=True)

anyio.run(main)
"""


async def test_a_killed_recorder_loses_nothing_that_was_finished(cassette, hear):
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(cassette)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        finished = [int(process.stdout.readline()) for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
    replay = ReplayProvider(cassette)
    for number in finished:
        request = ChatRequest(messages=(user(str(number)),), model="replay")
        assert len((await hear(replay, request)).text) == 5000
