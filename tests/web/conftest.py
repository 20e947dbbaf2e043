"""A real server on a free port of this machine, and clients for it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect

from agentfarm import Runtime, open_runtime
from agentfarm.config import ModelSettings, Settings, WebSettings
from agentfarm.events import RequestRecord
from agentfarm.llm import ChatRequest, user
from agentfarm.llm.testing import StubServer
from agentfarm.monitoring import GPUReading, GPUSnapshot
from agentfarm.store import RunRecord, SampleRecord, Store, new_run_id
from agentfarm.web._serving import AppServer, listen
from agentfarm.web._tokens import Tokens
from agentfarm.web.server import create_app

TOKENS = Tokens(operator="operator-" + "o" * 30, read_only="read-only-" + "r" * 30)


@dataclass
class Cards:
    """Reads no real GPU; says what a test wants, and counts how often."""

    gpus: tuple[GPUReading, ...] = ()
    reads: int = 0

    async def snapshot(self) -> GPUSnapshot:
        self.reads += 1
        if self.gpus:
            return GPUSnapshot(timestamp=1.75e9, gpus=self.gpus, duration_s=0.001)
        tried = (("nvml", "no driver"), ("amdgpu", "no card"))
        return GPUSnapshot(timestamp=1.75e9, reason="No GPU found", tried=tried)


@dataclass
class Served:
    """A server that listens."""

    host: str
    port: int
    app: FastAPI
    _open: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A client of its own; it is closed with the server."""
        made = httpx.AsyncClient(**{"base_url": self.url, "timeout": 20, **options})
        self._open.append(made)
        return made

    def socket(self, query: str = "", **options: Any) -> connect:
        """A WebSocket: ``async with served.socket() as ws``."""
        address = f"ws://{self.host}:{self.port}/ws{query}"
        return connect(address, **{"max_size": None, "compression": None, **options})

    async def aclose(self) -> None:
        for client in self._open:
            await client.aclose()


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@asynccontextmanager
async def _serve(app: FastAPI, host: str = "127.0.0.1") -> AsyncIterator[Served]:
    sock = listen(host, 0)
    server = AppServer(app, sock)
    served = Served(host, sock.getsockname()[1], app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run_until_stopped)
        try:
            yield served
        finally:
            await served.aclose()
            server.should_exit = True


@pytest.fixture
def serve() -> Serve:
    """Serve an app: ``async with serve(app) as served``."""
    return _serve


@pytest.fixture
async def stub() -> AsyncIterator[StubServer]:
    async with StubServer(default="Hello there, my friend") as server:
        yield server


@pytest.fixture
def web() -> WebSettings:
    """No limit of the rate, since tests ask fast."""
    return WebSettings(requests_per_s=None)


@pytest.fixture
def settings(settings, stub, web) -> Settings:
    """One model, `stub`."""
    model = ModelSettings(name="stub", provider="openai", url=stub.url)
    changes = {"models": (model,), "default_model": "stub", "web": web}
    return settings.model_copy(update=changes)


@pytest.fixture
async def farm(settings) -> AsyncIterator[Runtime]:
    async with open_runtime(settings) as runtime:
        yield runtime


@pytest.fixture
def cards() -> Cards:
    return Cards()


@pytest.fixture
async def served(farm, cards) -> AsyncIterator[Served]:
    """A server for this machine only, over `farm`."""
    async with _serve(create_app(farm, gpus=cards)) as served:
        yield served


@pytest.fixture
def http(served) -> httpx.AsyncClient:
    return served.client()


@pytest.fixture
async def guarded(farm, cards) -> AsyncIterator[Served]:
    """A server that needs a token, over `farm`."""
    web = farm.settings.web.model_copy(update={"require_token": True})
    changed = farm.settings.model_copy(update={"web": web})
    app = create_app(_with(farm, changed), gpus=cards, tokens=TOKENS)
    async with _serve(app) as served:
        yield served


def _with(farm: Runtime, settings: Settings) -> Runtime:
    return Runtime(
        settings=settings,
        bus=farm.bus,
        store=farm.store,
        tracker=farm.tracker,
        router=farm.router,
    )


@pytest.fixture
def tokens() -> Tokens:
    """Those of `guarded`."""
    return TOKENS


@pytest.fixture
def ask(farm):
    """Ask the model something, as an agent if one is named."""

    async def ask(text: str = "Hi", **context: Any) -> None:
        from agentfarm.llm import CallContext

        request = ChatRequest(
            messages=(user(text),), model="stub", context=CallContext(**context)
        )
        await farm.router.complete(request)

    return ask


@pytest.fixture
def record():
    """A finished request; the fields are its."""

    def make(request_id: str = "r", **changes: Any) -> RequestRecord:
        values = {
            "model": "m",
            "provider": "openai",
            "host": "http://127.0.0.1:1",
            "started_at": 1.75e9,
            "status": "ok",
            "latency_s": 1.0,
            **changes,
        }
        return RequestRecord(request_id=request_id, **values)

    return make


def _put_run(store: Store, **changes: Any) -> RunRecord:
    values = {
        "suite": "smoke",
        "suite_hash": "h",
        "model": "stub",
        "status": "completed",
        "started_at": 1.75e9,
        "planned_samples": 2,
        "epochs": 1,
        "concurrency": 1,
        "config": {"temperature": 0.0},
        **changes,
    }
    run = RunRecord(run_id=new_run_id(), **values)
    store.put_run(run)
    for epoch, score in ((1, 1.0), (2, None)):
        sample = SampleRecord(
            sample_id=f"{run.run_id}-t-{epoch}",
            run_id=run.run_id,
            task="t",
            epoch=epoch,
            status="error" if score is None else "ok",
            score=score,
            input="2+2?",
            target="4",
            output="4",
            scorer="exact",
            started_at=1.75e9 + epoch,
            finished_at=1.75e9 + epoch + 1,
            latency_s=0.5,
        )
        store.put_sample(sample)
    return run


@pytest.fixture
def put_run():
    """Keep a run with two samples, one of them an error: ``put_run(store)``."""
    return _put_run
