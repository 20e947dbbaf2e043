"""What an OpenAI-compatible server refuses, drops, offers and says of itself."""

import asyncio
from dataclasses import replace

import pytest

from agentfarm.errors import ModelNotFound, ProviderError, RateLimited
from agentfarm.llm._messages import ModelInfo, ToolSpec
from agentfarm.llm.providers import OpenAIProvider
from agentfarm.llm.testing import Fault, Reply

CHAT = "/v1/chat/completions"
TOOL = ToolSpec(name="add", description="Adds.", parameters={"type": "object"})


def delta(finish_reason=None, **fields) -> dict:
    choice = {"index": 0, "delta": fields, "finish_reason": finish_reason}
    return {"choices": [choice]}


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


# Refusals that the stub server does not have.


@pytest.mark.parametrize(
    ("status", "headers", "error", "kind", "retryable"),
    [
        (503, {"Retry_After": "3"}, {"message": "busy"}, RateLimited, True),
        (429, {"retry_after_ms": "3000"}, {"message": "busy"}, RateLimited, True),
        (429, {}, {"code": "insufficient_quota"}, RateLimited, False),
        (404, {}, {"detail": "Not Found"}, ProviderError, False),
        (400, {}, {"code": "model_not_found"}, ModelNotFound, False),
        (501, {}, {"message": "no"}, ProviderError, False),
        (500, {}, {"message": "boom"}, ProviderError, True),
        (400, {}, {"message": "bad temperature"}, ProviderError, False),
    ],
)
async def test_refusals(
    wire, hear, provider, ask, status, headers, error, kind, retryable
):
    wire.page(CHAT, {"error": error}, status, **headers)
    with pytest.raises(ProviderError) as caught:
        await hear(provider, ask)
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    assert caught.value.retryable is retryable
    if headers:
        assert caught.value.retry_after_s == 3.0


async def test_a_redirect_is_not_followed_but_named(wire, hear, provider, ask):
    wire.page(CHAT, {}, 301, Location="https://elsewhere.example/v1")
    with pytest.raises(ProviderError, match="points to https://elsewhere") as caught:
        await hear(provider, ask)
    assert not caught.value.retryable


async def test_an_unknown_model_names_the_ones_there_are(stub, hear, stubbed, ask):
    stub.models = [ModelInfo(name="qwen"), ModelInfo(name="llama")]
    stub.queue.append(Reply(fault=Fault.MODEL_NOT_FOUND))
    with pytest.raises(ModelNotFound) as caught:
        await hear(stubbed, ask)
    assert "qwen, llama" in caught.value.remedy


async def test_nobody_listens(hear, ask, unused_port):
    provider = OpenAIProvider(f"http://127.0.0.1:{unused_port}")
    with pytest.raises(ProviderError, match="connection refused") as caught:
        await hear(provider, ask)
    assert caught.value.retryable
    assert "Start the server" in caught.value.remedy
    await provider.aclose()


@pytest.fixture
async def unused_port() -> int:
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    return port


# Tools that a server drops.


async def test_dropped_tools_are_warned_of_and_props_asked_once(
    stub, hear, stubbed, ask
):
    request = replace(ask, tools=(TOOL,))
    for _ in range(2):
        response = (await hear(stubbed, request)).response
        assert "dropped them" in response.warnings[0]
    assert [seen.path for seen in stub.requests].count("/props") == 1
    assert (await hear(stubbed, ask)).response.warnings == ()


async def test_tools_that_are_kept_are_not_warned_of(stub, hear, stubbed, ask):
    stub.models = [ModelInfo(name="stub", capabilities=frozenset({"tools"}))]
    response = (await hear(stubbed, replace(ask, tools=(TOOL,)))).response
    assert response.warnings == ()


async def test_a_server_without_props_is_not_warned_of(wire, hear, provider, ask):
    wire.send(delta(content="x"), STOP, "[DONE]")
    wire.page("/props", {"error": "no"}, 404)
    response = (await hear(provider, replace(ask, tools=(TOOL,)))).response
    assert response.warnings == ()


# Models and health.


async def test_models_of_llama_cpp(wire, provider):
    wire.page(
        "/v1/models",
        {"data": [{"id": "smol", "meta": {"n_ctx": 2048, "size": 96_576_768}}]},
    )
    wire.page(
        "/props",
        {
            "default_generation_settings": {"n_ctx": 1024},
            "total_slots": 2,
            "chat_template_caps": {"supports_tools": True},
            "modalities": {"vision": True},
            "is_sleeping": False,
        },
    )
    (model,) = await provider.models()
    assert model.name == "smol"
    assert model.context_length == 1024
    assert model.capabilities == {"json_schema", "tools", "vision"}
    assert model.loaded is True
    assert model.size_bytes == 96_576_768
    assert model.slots == 2


async def test_models_of_others(wire, provider):
    wire.page("/v1/models", {"data": [{"id": "a", "max_model_len": 4096}, {"id": "b"}]})
    a, b = await provider.models()
    assert (a.context_length, b.context_length) == (4096, None)
    assert a.capabilities == frozenset()
    assert a.loaded is None
    assert "/props" not in wire.paths


async def test_models_of_something_else(wire, provider):
    wire.page("/v1/models", b"<html>", Content_Type="text/html")
    with pytest.raises(ProviderError, match="not JSON"):
        await provider.models()


async def test_health_while_a_model_is_loaded(stub, stubbed):
    stub.ready = False
    health = await stubbed.health()
    assert not health.ok
    assert "Loading model" in health.detail
    stub.ready = True
    health = await stubbed.health()
    assert health.ok
    assert health.latency_s > 0


async def test_health_of_servers_without_that_path(wire, provider):
    wire.page("/health", {"detail": "Not Found"}, 404)
    wire.page("/v1/models", {"data": []})
    assert (await provider.health()).ok
    wire.page("/v1/models", {"error": "key?"}, 401)
    health = await provider.health()
    assert not health.ok
    assert "api_key_env" in health.detail


async def test_an_empty_health_page_is_fine(wire, provider):
    wire.page("/health", b"")
    assert (await provider.health()).ok
