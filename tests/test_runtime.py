"""The runtime: one wiring for notebooks, the CLI and servers."""

import pytest

from agentfarm import AgentFarmError, open_runtime
from agentfarm.config import ModelSettings
from agentfarm.errors import ConfigError, StoreError
from agentfarm.llm import ChatRequest, user
from agentfarm.llm.testing import StubServer


@pytest.fixture
async def stub():
    async with StubServer("Hello there") as server:
        yield server


@pytest.fixture
def with_stub(settings, stub):
    model = ModelSettings(name="stub", provider="openai", url=stub.url)
    return settings.model_copy(update={"models": (model,), "default_model": "stub"})


async def test_a_request_reaches_tracker_store_and_history(with_stub):
    async with open_runtime(with_stub) as farm:
        request = ChatRequest(messages=(user("Hi"),), model="stub")
        response = await farm.router.complete(request)
        assert response.text == "Hello there"
        assert farm.tracker.snapshot().overall.requests == 1
        (row,) = farm.store.requests()
        assert row.request_id == request.request_id
        assert row.ttft_s == response.timing.ttft_s
        assert "stub, embedded" in repr(farm)
        kinds = {event.type.value for event in farm.bus.history()}
        assert {"llm_request", "llm_stream_chunk", "llm_response"} <= kinds


async def test_it_opens_by_await_too_and_closing_flushes(with_stub):
    farm = await open_runtime(with_stub)
    await farm.router.complete(ChatRequest(messages=(user("Hi"),), model="stub"))
    await farm.aclose()
    async with open_runtime(with_stub, read_only=True) as again:
        assert len(again.store.requests()) == 1
        with pytest.raises(StoreError, match="reading only"):
            again.store.add_request(again.store.requests()[0])


async def test_opening_asks_nobody_and_starts_nothing(with_stub, stub):
    async with open_runtime(with_stub):
        pass
    assert stub.requests == []
    assert not (with_stub.home / "embedded").exists()


async def test_a_home_that_cannot_be_made_is_a_clear_error(settings, tmp_path):
    (tmp_path / "file").touch()
    bad = settings.model_copy(update={"home": tmp_path / "file" / "home"})
    with pytest.raises(ConfigError, match="AGENTFARM_HOME"):
        await open_runtime(bad)


async def test_a_refused_model_leaves_no_store_open(settings):
    model = ModelSettings(name="far", provider="openai", url="https://llm.example.com")
    bad = settings.model_copy(update={"models": (model,)})
    with pytest.raises(AgentFarmError, match="local_only"):
        await open_runtime(bad)
