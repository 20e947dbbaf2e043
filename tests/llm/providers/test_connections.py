"""Connections and time limits, which all HTTP providers share."""

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import replace

import anyio
import pytest

from agentfarm.config import TimeoutSettings
from agentfarm.errors import ProviderError, ProviderTimeout
from agentfarm.llm._clock import StreamClock
from agentfarm.llm._http import HttpHost
from agentfarm.llm._http_errors import Origin
from agentfarm.llm._messages import ChatRequest
from agentfarm.llm.providers import OpenAIProvider
from agentfarm.llm.testing import Fault, Reply, StubServer


def delta(finish_reason=None, **fields) -> dict:
    choice = {"index": 0, "delta": fields, "finish_reason": finish_reason}
    return {"choices": [choice]}


ROLE = delta(role="assistant", content=None)
STOP = delta("stop")


@pytest.fixture
async def provider(wire):
    provider = OpenAIProvider(wire.url)
    yield provider
    await provider.aclose()


@pytest.fixture
async def stubbed(stub):
    provider = OpenAIProvider(stub.url)
    yield provider
    await provider.aclose()


# Connections.


async def test_a_connection_is_used_again(stub, hear, stubbed, ask):
    for _ in range(3):
        await hear(stubbed, ask)
    assert len({chat.client_port for chat in stub.chats}) == 1


async def test_a_kept_connection_that_ends_unanswered_is_replaced():
    """The server hangs up on every second request of a connection, as llama.cpp may."""
    requests = []

    async def serve(reader, writer):
        connection = len(requests)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            for answers in (True, False):
                head = await reader.readuntil(b"\r\n\r\n")
                requests.append((connection, head.split()[1]))
                if answers:
                    body = b'{"data": []}'
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                    )
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        host = HttpHost(
            Origin(
                kind="openai",
                host=f"http://127.0.0.1:{port}",
                start_remedy="",
                key_remedy="",
            ),
            timeouts=TimeoutSettings(),
        )
        url = f"http://127.0.0.1:{port}/v1/models"
        for _ in range(3):
            assert await host.ask(url) == {"data": []}
        await host.aclose()
    # Two were hung up on, and asked again on a connection of their own.
    assert len(requests) == 5
    assert len({connection for connection, _ in requests}) == 3


async def test_a_new_connection_that_ends_unanswered_is_an_error(stub, stubbed, ask):
    stub.default = Reply("never", fault=Fault.CUT_BEFORE_HEADERS)
    with pytest.raises(ProviderError, match="before it answered"):
        await anext(stubbed.stream(ask))
    assert len(stub.chats) == 1


LONG = Reply("word " * 500, gap_s=0.01)


async def test_closing_the_generator_closes_the_connection(stub, stubbed, ask):
    stub.default = LONG
    async with aclosing(stubbed.stream(ask)) as answer:
        await anext(answer)
    left_at = time.perf_counter()
    await stub.chats[0].wait_over()
    assert stub.chats[0].disconnected_at - left_at < 0.1


@pytest.mark.parametrize("reply", [LONG, Reply(fault=Fault.STALL_HEADERS)])
async def test_cancelling_the_consumer_closes_the_connection(
    stub, stubbed, ask, hear, reply
):
    stub.default = reply
    async with anyio.create_task_group() as group:
        group.start_soon(hear, stubbed, ask)
        await stub.wait_until(lambda server: server.active == 1)
        left_at = time.perf_counter()
        group.cancel_scope.cancel()
    await stub.chats[0].wait_over()
    assert stub.chats[0].disconnected_at - left_at < 0.1


async def test_a_bare_asyncio_cancel_closes_the_connection(stub, stubbed, ask, hear):
    stub.default = LONG
    task = asyncio.get_running_loop().create_task(hear(stubbed, ask))
    await stub.wait_until(lambda server: server.active == 1)
    left_at = time.perf_counter()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stub.chats[0].wait_over()
    assert stub.chats[0].disconnected_at - left_at < 0.1


async def test_letting_go_of_a_reply_closes_its_connection(stub):
    """And not only the garbage collector, which may come late."""
    stub.default = LONG
    origin = Origin(kind="x", host=stub.url, start_remedy="", key_remedy="")
    host = HttpHost(origin, timeouts=TimeoutSettings())
    reply = await host.open(
        f"{stub.url}/v1/chat/completions",
        {"messages": [], "stream": True},
        clock=StreamClock(),
    )
    await reply.read()
    await reply.aclose()
    await stub.chats[0].wait_over()
    assert stub.chats[0].disconnected_at is not None
    await host.aclose()
    del reply


def test_each_loop_has_its_own_connections(hear, ask):
    """A sync twin asks from another thread's loop than the kernel's."""
    provider = OpenAIProvider("http://127.0.0.1:1")

    async def once():
        async with StubServer() as stub:
            provider._api = f"{stub.url}/v1"
            heard = await hear(provider, ask)
            client = provider._http.client()
            await client.aclose()
            return client, heard.response.text

    with asyncio.Runner() as kernel, asyncio.Runner() as other:
        first, text = kernel.run(once())
        second, again = other.run(once())
    assert text == again == "ok"
    assert first is not second


# Limits.


def limited(ask, **limits) -> ChatRequest:
    return replace(ask, timeouts=TimeoutSettings(**limits))


async def test_signs_of_life_do_not_stand_in_for_the_first_token(
    wire, hear, provider, ask
):
    wire.gap_s = 0.02
    wire.send(ROLE)
    wire.pieces += [b": still here\n\n"] * 50
    request = limited(ask, first_token_s=0.2, inter_token_s=0.1)
    with pytest.raises(ProviderTimeout) as caught:
        await hear(provider, request)
    assert caught.value.phase == "first token"
    assert caught.value.timeout_s == 0.2


async def test_signs_of_life_do_not_stand_in_for_the_next_token(
    wire, hear, provider, ask
):
    wire.gap_s = 0.02
    wire.send(delta(content="one"))
    wire.pieces += [b": still here\n\n"] * 50
    with pytest.raises(ProviderTimeout) as caught:
        await hear(provider, limited(ask, inter_token_s=0.2))
    assert caught.value.phase == "inter-token"
    assert caught.value.partial_text == "one"


async def test_tokens_keep_a_stream_alive_beyond_both_limits(wire, hear, provider, ask):
    wire.gap_s = 0.02
    wire.send(*[delta(content="x")] * 30, STOP, "[DONE]")
    request = limited(ask, first_token_s=0.3, inter_token_s=0.3)
    assert len((await hear(provider, request)).chunks) == 30


async def test_the_time_a_consumer_takes_is_not_the_servers(wire, provider, ask):
    wire.gap_s = 0.15
    wire.send(*[delta(content="x")] * 3, STOP, "[DONE]")
    request = limited(ask, first_token_s=0.25, inter_token_s=0.25)
    texts = []
    async for item in provider.stream(request):
        texts.append(item.text)
        await anyio.sleep(0.3)
    assert texts == ["x", "x", "x", "xxx"]


async def test_the_total_limit_ends_a_lively_stream(wire, hear, provider, ask):
    wire.gap_s = 0.02
    wire.send(*[delta(content="x")] * 100, STOP, "[DONE]")
    with pytest.raises(ProviderTimeout) as caught:
        await hear(provider, limited(ask, total_s=0.3))
    assert caught.value.phase == "total"
    assert set(caught.value.partial_text) == {"x"}


async def test_the_total_limit_covers_the_wait_for_headers(stub, hear, stubbed, ask):
    stub.default = Reply(fault=Fault.STALL_HEADERS)
    with pytest.raises(ProviderTimeout) as caught:
        await hear(stubbed, limited(ask, total_s=0.1))
    assert caught.value.phase == "total"
