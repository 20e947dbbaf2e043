"""A Runtime around a scripted model and a real Store, and suites to run."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from anyio.from_thread import start_blocking_portal

from agentfarm.config import Settings, load_settings
from agentfarm.evals import Suite, Task, exact
from agentfarm.events import EventBus, EventType
from agentfarm.llm import BreakerPolicy, LLMRouter, RegisteredModel, RetryPolicy
from agentfarm.llm.testing import FakeProvider, StubServer
from agentfarm.monitoring import PerformanceTracker
from agentfarm.runtime import Runtime
from agentfarm.store import Store
from agentfarm.tools.sandbox import Sandbox, open_sandbox


@pytest.fixture
def farm(settings, tmp_path) -> Callable:
    """Open a Runtime whose model ``fake`` is the given provider."""

    @asynccontextmanager
    async def open_farm(
        provider: FakeProvider,
        *,
        max_concurrency: int = 4,
        breaker: BreakerPolicy | None = None,
    ) -> AsyncGenerator[Runtime]:
        store = Store.open(f"sqlite:///{tmp_path / 'evals.db'}")
        bus = EventBus()
        tracker = PerformanceTracker()
        tracker.attach(bus)
        bus.on(
            lambda event: store.add_request(event.data["record"]),
            EventType.LLM_RESPONSE,
            EventType.LLM_ERROR,
        )
        router = LLMRouter(
            [
                RegisteredModel(
                    name="fake",
                    provider=provider,
                    model="fake",
                    max_concurrency=max_concurrency,
                )
            ],
            bus=bus,
            retry=RetryPolicy(rounds=1),
            breaker=breaker or BreakerPolicy(failures=1_000_000),
        )
        runtime = Runtime(
            settings=settings.model_copy(update={"default_model": "fake"}),
            bus=bus,
            store=store,
            tracker=tracker,
            router=router,
        )
        async with runtime:
            yield runtime

    return open_farm


@pytest.fixture
def make_suite() -> Callable[..., Suite]:
    """A suite of `count` tasks "say 1", "say 2", … with the target "1", "2", …."""

    def make(count: int = 3, **fields: object) -> Suite:
        tasks = tuple(
            Task(id=f"t{n}", prompt=f"say {n}", target=str(n), scorer=exact())
            for n in range(1, count + 1)
        )
        return Suite(**{"name": "say", "tasks": tasks, **fields})

    return make


@pytest.fixture
def echo() -> FakeProvider:
    """A model that answers "say 7" with "7"."""
    return FakeProvider(lambda request: request.messages[-1].content.split()[-1])


@pytest.fixture
def stub() -> Iterator[StubServer]:
    """A StubServer in a loop and thread of its own, so that a test may block."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(StubServer(default="ok")) as server,
    ):
        yield server


@pytest.fixture
def stub_settings(settings, stub) -> Settings:
    """Settings whose default model ``stub`` is served by `stub`."""
    model = {"name": "stub", "provider": "openai", "url": stub.url}
    return load_settings(
        home=settings.home, default_model="stub", models=({**model, "model": "m"},)
    )


@pytest.fixture
async def sandbox(settings, sandbox_image) -> AsyncGenerator[Sandbox]:
    """The machine's own, closed afterwards."""
    async with await open_sandbox("docker", settings=settings) as sandbox:
        yield sandbox
