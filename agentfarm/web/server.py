"""The API server: REST, WebSocket, metrics and a small page over one runtime."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from fastapi import FastAPI

from agentfarm._version import __version__
from agentfarm.config import Settings, load_settings
from agentfarm.monitoring import GPUMonitor
from agentfarm.runtime import Runtime, open_runtime
from agentfarm.web import _metrics, _providers, _runs, hardware, live, workflows
from agentfarm.web._access import OPEN_PATHS, Access
from agentfarm.web._answers import COMMON_PROBLEMS, add_problem_handlers
from agentfarm.web._farm import Farm
from agentfarm.web._follower import StoreFollower
from agentfarm.web._gpus import GPUFeed
from agentfarm.web._hub import Hub
from agentfarm.web._metrics import Metrics
from agentfarm.web._models import Liveness
from agentfarm.web._page import page_routes
from agentfarm.web._performance import PerformanceFeed
from agentfarm.web._providers import HealthFeed
from agentfarm.web._security import Gate
from agentfarm.web._tokens import Tokens, load_tokens
from agentfarm.web.workflows import WorkflowRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agentfarm.monitoring import SnapshotSource

__all__ = ["create_app"]

_ROUTERS = (
    hardware.router,
    _providers.router,
    _runs.router,
    workflows.router,
    live.router,
    _metrics.router,
)


def create_app(
    source: Runtime | Settings | None = None,
    *,
    gpus: SnapshotSource | None = None,
    tokens: Tokens | None = None,
    follow_store: bool | None = None,
) -> FastAPI:
    """Make the server as an ASGI app; nothing is opened before it starts.

    ``settings.web`` says where it listens and what it allows. A request that comes
    from another machine needs a token, whatever address the app is bound to.

    Args:
        source: A runtime, which stays the caller's to close; or settings, by which
            the app opens one when it starts, has it sample the hardware, and closes
            it when it stops; `load_settings()` if None.
        gpus: Reads the GPUs; a `GPUMonitor` if None.
        tokens: Who may ask; read from the token file, or made, if None and needed.
        follow_store: Count the requests that other processes put into the Store too;
            True for a runtime that the app opened itself, if None.

    Raises:
        ConfigError: The settings are not valid.
    """
    if isinstance(source, Runtime):
        settings = source.settings
    else:
        settings = source or load_settings()
    access = Access(settings.web, tokens)
    opens = not isinstance(source, Runtime)
    follows = opens if follow_store is None else follow_store

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if access.needs_token and access.tokens is None:
                path = settings.web_token_path
                access.tokens, _ = await to_thread.run_sync(load_tokens, path)
            if isinstance(source, Runtime):
                runtime = source
            else:
                runtime = await stack.enter_async_context(open_runtime(settings))
                await runtime.sampler()
            reader = gpus
            if reader is None:
                reader = stack.enter_context(closing(GPUMonitor()))
            app.state.farm = await _start(runtime, reader, stack, follows=follows)
            try:
                yield
            finally:
                app.state.farm = None

    app = _App(
        access,
        title="AgentFarm",
        version=__version__,
        description="What agents and their hardware do, live and in the past.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=COMMON_PROBLEMS,
    )
    app.add_middleware(Gate, access=access)
    add_problem_handlers(app)
    app.add_api_route("/healthz", _liveness, tags=["server"], summary="Is it there?")
    for router in _ROUTERS:
        app.include_router(router)
    app.router.routes.extend(page_routes())
    return app


class _App(FastAPI):
    """An app whose OpenAPI document says whether a token is needed."""

    def __init__(self, access: Access, **options: Any) -> None:
        super().__init__(**options)
        self._access = access

    def openapi(self) -> dict[str, Any]:
        """The document, made at the first use."""
        document = super().openapi()
        if self._access.needs_token:
            scheme = {"type": "http", "scheme": "bearer"}
            document["components"]["securitySchemes"] = {"token": scheme}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    needed: list[Any] = []
                    if path not in OPEN_PATHS:
                        needed = [{"token": []}]
                    operation["security"] = needed
        return document


async def _start(
    runtime: Runtime, gpus: SnapshotSource, stack: AsyncExitStack, *, follows: bool
) -> Farm:
    """Make the parts, and what runs beside the requests until the stack closes."""
    performance = PerformanceFeed(runtime)
    stack.callback(performance.close)
    metrics = Metrics(runtime.bus)
    stack.callback(metrics.close)
    tasks = await stack.enter_async_context(anyio.create_task_group())
    # What still runs is interrupted, and the group waits until it has ended.
    stack.callback(tasks.cancel_scope.cancel)
    hub = Hub(runtime.bus)
    tasks.start_soon(hub.run)
    tasks.start_soon(hub.beat)
    if follows:
        tasks.start_soon(StoreFollower(runtime, performance, metrics).run)
    return Farm(
        runtime=runtime,
        hub=hub,
        performance=performance,
        gpus=GPUFeed(gpus),
        health=HealthFeed(runtime.router),
        metrics=metrics,
        workflows=WorkflowRunner(runtime, tasks),
    )


async def _liveness() -> Liveness:
    """Whether the server runs; needs no token and tells nothing else."""
    return Liveness()
