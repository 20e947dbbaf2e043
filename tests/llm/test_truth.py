"""What the providers measure is what happened on the wire."""

import statistics
import time
from dataclasses import replace
from itertools import pairwise

import anyio
import pytest

from agentfarm.llm._messages import ServerTiming, ToolCall, Usage
from agentfarm.llm.providers import OllamaProvider, OpenAIProvider
from agentfarm.llm.testing import Fault, Reply

WIRES = ("ollama", "openai")
CALL = ToolCall(id="c1", name="say", arguments={"a": 1}, raw_arguments='{"a":1}')
MOST_TTFT_ERROR_S = 0.002
DELAY_S = 0.15


@pytest.fixture(params=WIRES)
async def provider(request, stub):
    kind = OllamaProvider if request.param == "ollama" else OpenAIProvider
    provider = kind(stub.url)
    yield provider
    await provider.aclose()


@pytest.fixture
async def openai(stub):
    provider = OpenAIProvider(stub.url)
    yield provider
    await provider.aclose()


@pytest.fixture
async def ollama(stub):
    provider = OllamaProvider(stub.url)
    yield provider
    await provider.aclose()


async def ttft_errors_s(stub, provider, ask, hear) -> list[float]:
    """The error of 20 measurements with delays from 0 to 60 ms, each kind mixed."""
    errors_s = []
    for index in range(20):
        delay_s = 0.02 * (index % 4)
        reasoning = ("hm",) if index % 2 else ()
        stub.queue.append(
            Reply("a b c", reasoning=reasoning, first_delay_s=delay_s, gap_s=0.002)
        )
        timing = (await hear(provider, ask)).response.timing
        record = stub.chats[-1]
        assert record.true_ttft_s >= delay_s
        errors_s.append(timing.ttft_s - record.true_ttft_s)
    return errors_s


async def test_ttft_is_true_to_2_ms(stub, provider, ask, hear):
    # A machine with other work may need another run; the bound stays.
    medians_s = []
    for _ in range(8):
        errors_s = await ttft_errors_s(stub, provider, ask, hear)
        # The client counts from before the request reached the stub.
        assert min(errors_s) >= 0
        medians_s.append(statistics.median(errors_s))
        if medians_s[-1] <= MOST_TTFT_ERROR_S:
            break
    assert medians_s[-1] <= MOST_TTFT_ERROR_S, medians_s


async def test_gaps_are_those_between_writes(stub, provider, ask, hear):
    for _ in range(4):
        stub.queue.append(Reply("a b c d e f", gap_s=0.02))
        timing = (await hear(provider, ask)).response.timing
        sent = [piece.at for piece in stub.chats[-1].sent]
        true_s = [late - early for early, late in pairwise(sent)]
        assert len(timing.inter_chunk_s) == len(true_s) == 5
        error_s = statistics.median(
            abs(ours - truth)
            for ours, truth in zip(timing.inter_chunk_s, true_s, strict=True)
        )
        if error_s <= MOST_TTFT_ERROR_S:
            break
    assert error_s <= MOST_TTFT_ERROR_S


async def test_chunks_are_stamped_when_they_arrive(stub, provider, ask, hear):
    stub.queue.append(Reply("a b c", first_delay_s=0.02, gap_s=0.02))
    heard = await hear(provider, ask)
    timing = heard.response.timing
    stamps = [chunk.at_s for chunk in heard.chunks]
    assert stamps[0] == timing.ttft_s >= 0.02
    assert stamps[-1] == timing.last_token_s == timing.latency_s
    assert stamps == sorted(stamps)


async def test_a_slow_consumer_does_not_change_the_stamps(stub, provider, ask):
    stub.queue.append(Reply("a b c d", gap_s=0.01))
    stamps = []
    async for item in provider.stream(ask):
        if hasattr(item, "at_s"):
            stamps.append(item.at_s)
            if len(stamps) == 1:
                # Blocks this loop, and so the stub: only what comes after counts.
                time.sleep(0.5)  # noqa: ASYNC251
        else:
            assert item.timing.ttft_s == stamps[0] < 0.5
    assert len(stamps) == 4


async def test_neither_headers_nor_a_role_chunk_are_a_token(stub, openai, ask, hear):
    stub.queue.append(Reply("a", first_delay_s=DELAY_S, comment=True))
    heard = await hear(openai, ask)
    record = stub.chats[0]
    assert record.first_piece_at - record.headers_at >= DELAY_S
    assert [chunk.text for chunk in heard.chunks] == ["a"]
    assert heard.response.timing.ttft_s >= DELAY_S


async def test_ollamas_early_headers_are_no_token(stub, ollama, ask, hear):
    stub.queue.append(Reply("a", first_delay_s=DELAY_S))
    assert (await hear(ollama, ask)).response.timing.ttft_s >= DELAY_S


async def test_late_headers_count_too(stub, provider, ask, hear):
    stub.queue.append(Reply("a", header_delay_s=DELAY_S))
    assert (await hear(provider, ask)).response.timing.ttft_s >= DELAY_S


async def test_reasoning_is_the_first_token(stub, provider, ask, hear):
    stub.queue.append(Reply("a", reasoning=("hm", "so"), gap_s=DELAY_S))
    heard = await hear(provider, ask)
    timing = heard.response.timing
    assert heard.response.message.reasoning == "hmso"
    assert timing.ttft_s == heard.chunks[0].at_s < DELAY_S
    assert timing.last_token_s >= 2 * DELAY_S
    assert len(timing.inter_chunk_s) == 2


async def test_a_tool_call_is_the_first_token(stub, provider, ask, hear):
    stub.queue.append(Reply(tool_calls=(CALL, replace(CALL, id="c2")), gap_s=DELAY_S))
    timing = (await hear(provider, ask)).response.timing
    assert timing.ttft_s < DELAY_S
    assert timing.last_token_s >= DELAY_S


async def test_a_split_chunk_counts_when_it_is_whole(stub, provider, ask, hear):
    stub.queue.append(Reply(chunks=("🎉🎉🎉",), fault=Fault.UTF8_SPLIT))
    heard = await hear(provider, ask)
    assert heard.response.timing.ttft_s >= stub.chats[0].true_ttft_s
    assert len(heard.chunks) == 1


async def test_nothing_generated_has_no_first_token(stub, provider, ask, hear):
    stub.queue.append(Reply("", first_delay_s=0.02))
    response = (await hear(provider, ask)).response
    timing = response.timing
    assert response.text == ""
    assert timing.ttft_s is timing.last_token_s is None
    assert timing.ttft_excl_load_s is None
    assert timing.latency_s >= 0.02
    assert timing.inter_chunk_s == ()


async def test_40_tokens_in_13_chunks_are_40(stub, provider, ask, hear):
    usage = Usage(input_tokens=33, output_tokens=40)
    stub.queue.append(Reply(chunks=("🎉",) * 13, usage=usage, gap_s=0.005))
    heard = await hear(provider, ask)
    response = heard.response
    assert len(heard.chunks) == 13
    assert response.text == "🎉" * 13
    assert response.usage.output_tokens == 40
    assert response.usage.input_tokens == 33
    assert not response.usage.estimated
    sent = stub.chats[0]
    true_rate = 39 / (sent.last_piece_at - sent.first_piece_at)
    assert response.output_tokens_per_s == pytest.approx(true_rate, rel=0.1)


async def test_cached_and_reasoning_tokens(stub, openai, ask, hear):
    usage = Usage(
        input_tokens=36, output_tokens=12, cached_tokens=24, reasoning_tokens=5
    )
    stub.queue.append(Reply("a", usage=usage))
    assert (await hear(openai, ask)).response.usage == usage


async def test_missing_counts_are_none_and_never_chunks(stub, provider, ask, hear):
    stub.queue.append(Reply("a b c", fault=Fault.MISSING_USAGE))
    response = (await hear(provider, ask)).response
    assert response.usage == Usage()
    assert response.output_tokens_per_s is None


async def test_ollamas_absent_zero_is_unknown(stub, ollama, ask, hear):
    # A cached prompt: prompt_eval_count is omitted where it is 0.
    usage = Usage(input_tokens=0, output_tokens=2)
    stub.queue.append(Reply("a b", usage=usage))
    response = (await hear(ollama, ask)).response
    assert response.usage == Usage(output_tokens=2)


async def test_load_time_is_kept_apart(stub, ollama, ask, hear):
    server = ServerTiming(load_s=0.04, prompt_s=0.01, output_s=0.5, total_s=0.6)
    usage = Usage(input_tokens=5, output_tokens=10)
    stub.queue.append(Reply("a b", first_delay_s=0.05, server=server, usage=usage))
    response = (await hear(ollama, ask)).response
    timing = response.timing
    assert timing.load_s == response.server.load_s == 0.04
    assert timing.ttft_s >= 0.05
    assert timing.ttft_excl_load_s == pytest.approx(timing.ttft_s - 0.04)
    assert response.server == ServerTiming(
        load_s=0.04,
        prompt_s=0.01,
        output_s=0.5,
        total_s=0.6,
        prompt_tokens=5,
        output_tokens=10,
        output_tokens_per_s=20.0,
    )


async def test_a_warm_ollama_reports_no_load(stub, ollama, ask, hear):
    stub.queue.append(Reply("a b"))
    timing = (await hear(ollama, ask)).response.timing
    assert timing.load_s is None
    assert timing.ttft_excl_load_s == timing.ttft_s


async def test_llama_cpps_timings_are_reported(stub, openai, ask, hear):
    server = ServerTiming(prompt_s=0.5, output_s=0.25)
    usage = Usage(input_tokens=5, output_tokens=10)
    stub.queue.append(Reply("a b", server=server, usage=usage))
    reported = (await hear(openai, ask)).response.server
    assert (reported.prompt_s, reported.output_s) == (0.5, 0.25)
    assert reported.output_tokens == 10
    assert reported.output_tokens_per_s == pytest.approx(40.0)


async def leave_when(stub, provider, ask, hear, condition) -> float:
    """Cancel the consumer once `condition` holds; the delay until the stub knows."""
    async with anyio.create_task_group() as group:
        group.start_soon(hear, provider, ask)
        await stub.wait_until(condition)
        # Time for the client to read what was sent.
        await anyio.sleep(0.02)
        left_at = time.perf_counter()
        group.cancel_scope.cancel()
    record = stub.chats[0]
    await record.wait_over()
    assert record.finished_at is None
    return record.disconnected_at - left_at


async def test_cancelling_before_the_headers_closes_the_connection(
    stub, provider, ask, hear
):
    stub.queue.append(Reply("a", header_delay_s=60.0))
    in_s = await leave_when(stub, provider, ask, hear, lambda stub: stub.active == 1)
    assert 0 <= in_s < 0.1


async def test_cancelling_before_the_first_token_closes_the_connection(
    stub, provider, ask, hear
):
    stub.queue.append(Reply("a", first_delay_s=60.0))
    in_s = await leave_when(
        stub, provider, ask, hear, lambda stub: stub.chats and stub.chats[0].headers_at
    )
    assert 0 <= in_s < 0.1


async def test_cancelling_in_mid_stream_closes_the_connection(
    stub, provider, ask, hear
):
    stub.queue.append(Reply("a b c", gap_s=60.0))
    in_s = await leave_when(
        stub, provider, ask, hear, lambda stub: stub.chats and stub.chats[0].sent
    )
    assert 0 <= in_s < 0.1


async def test_cancelling_while_tokens_flow_closes_the_connection(
    stub, provider, ask, hear
):
    stub.queue.append(Reply("a " * 10_000, gap_s=0.001))
    in_s = await leave_when(
        stub,
        provider,
        ask,
        hear,
        lambda stub: stub.chats and len(stub.chats[0].sent) >= 5,
    )
    assert 0 <= in_s < 0.1
    assert len(stub.chats[0].sent) < 1_000


async def test_leaving_the_loop_closes_the_connection(stub, provider, ask, hear):
    stub.queue.append(Reply("a b c", gap_s=60.0))
    stream = provider.stream(ask)
    async for _ in stream:
        break
    left_at = time.perf_counter()
    await stream.aclose()
    await stub.chats[0].wait_over()
    assert 0 <= stub.chats[0].disconnected_at - left_at < 0.1
    # The provider is as good as new.
    stub.queue.append("fine")
    assert (await hear(provider, ask)).text == "fine"


async def test_a_complete_answer_keeps_the_connection(stub, provider, ask, hear):
    stub.default = Reply("a b")
    for _ in range(3):
        await hear(provider, ask)
    assert [record.disconnected_at for record in stub.chats] == [None] * 3
    assert len({record.client_port for record in stub.chats}) == 1
