"""A stub server, providers that talk to it, and a way to listen to them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from agentfarm.llm._messages import ChatChunk, ChatRequest, ChatResponse, user
from agentfarm.llm.testing import FakeProvider, StubServer


@pytest.fixture
async def stub() -> AsyncIterator[StubServer]:
    """A running StubServer: script it with `stub.queue` and `stub.default`."""
    async with StubServer() as server:
        yield server


@pytest.fixture
async def http(stub) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of the stub."""
    async with httpx.AsyncClient(base_url=stub.url, trust_env=False) as client:
        yield client


@pytest.fixture
def fake() -> FakeProvider:
    """A FakeProvider: script it with `fake.script`."""
    return FakeProvider()


@pytest.fixture
def ask() -> ChatRequest:
    """A request that asks for nothing in particular."""
    return ChatRequest(messages=(user("Say something."),), model="stub")


@dataclass
class Heard:
    chunks: list[ChatChunk] = field(default_factory=list)
    response: ChatResponse | None = None

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def reasoning(self) -> str:
        return "".join(chunk.reasoning for chunk in self.chunks)


async def listen(provider, request: ChatRequest) -> Heard:
    heard = Heard()
    async for item in provider.stream(request):
        if isinstance(item, ChatResponse):
            assert heard.response is None
            heard.response = item
        else:
            assert heard.response is None, "the response is the last item"
            heard.chunks.append(item)
    return heard


@pytest.fixture
def hear():
    """`await hear(provider, request)` gives all chunks and the response."""
    return listen
