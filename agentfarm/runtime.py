"""The composition root: wires bus, Store, tracker and router together, once."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from anyio import CancelScope, Lock, to_thread

from agentfarm.config import Settings, load_settings
from agentfarm.errors import ConfigError
from agentfarm.events import EventBus, EventType
from agentfarm.llm import LLMRouter, build_router
from agentfarm.llm._registry import is_local_host
from agentfarm.monitoring import GPUMonitor, PerformanceTracker, Sampler
from agentfarm.store import Store

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from types import TracebackType

    from agentfarm.agents import Workflow
    from agentfarm.events import Event
    from agentfarm.monitoring._otlp import SpanExport
    from agentfarm.tools.sandbox import Sandbox

__all__ = ["Runtime", "open_runtime"]


@dataclass(kw_only=True, slots=True)
class _Shared:
    """What a runtime opens when it is first needed, or where a setting asks for it."""

    lock: Lock = field(default_factory=Lock)
    sandbox: Sandbox | None = None
    gpus: GPUMonitor | None = None
    sampler: Sampler | None = None
    spans: SpanExport | None = None


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Runtime:
    """Everything a notebook, the CLI or a server works with.

    It belongs to the event loop in which it was opened. Close it, or use it as
    an async context manager, so that telemetry is flushed and a server that it
    started can stop.

    Attributes:
        settings: As loaded.
        bus: Carries every event.
        store: Keeps runs, samples and requests.
        tracker: Rolling statistics of requests since opening.
        router: The way to the models.
    """

    settings: Settings
    bus: EventBus
    store: Store
    tracker: PerformanceTracker
    router: LLMRouter
    _shared: _Shared = field(default_factory=_Shared, repr=False)

    async def sandbox(self) -> Sandbox:
        """Where code that a model wrote runs; opened at the first use, then shared.

        Raises:
            SandboxUnavailable: This machine has none; the message says what to do.
        """
        from agentfarm.tools.sandbox import open_sandbox

        async with self._shared.lock:
            if self._shared.sandbox is None:
                self._shared.sandbox = await open_sandbox(settings=self.settings)
            return self._shared.sandbox

    async def sampler(self) -> Sampler | None:
        """What samples the hardware; started at the first use, stopped at closing.

        Of all runtimes on this Store and machine one samples; see `Sampler`. None
        where this one may not: it is read-only, or ``sampler.enabled`` is false.
        """
        shared, settings = self._shared, self.settings.sampler
        if self.store.read_only or not settings.enabled:
            return None
        async with shared.lock:
            if shared.sampler is None:
                shared.gpus = GPUMonitor()
                shared.sampler = Sampler(
                    store=self.store,
                    bus=self.bus,
                    gpus=shared.gpus,
                    settings=settings,
                    disk=self.settings.home,
                )
                shared.sampler.start()
            return shared.sampler

    async def workflow(
        self, workspace: Path, *, model: str | None = None, **options: Any
    ) -> Workflow:
        """Agents that work in a folder, on this runtime's models, sandbox and Store.

        Args:
            workspace: The folder to work in.
            model: Registered model for every agent; the default model if None.
            options: Further arguments of `Workflow`.

        Raises:
            SandboxUnavailable: This machine has no sandbox.
        """
        from agentfarm.agents import Memory, Workflow

        given: dict[str, Any] = {
            "memory": Memory(self.store, workspace),
            "state": self.settings.home / "workflows",
            **options,
        }
        return Workflow(
            router=self.router,
            bus=self.bus,
            store=self.store,
            sandbox=await self.sandbox(),
            workspace=workspace,
            model=model or self.settings.default_model,
            **given,
        )

    async def aclose(self) -> None:
        """Close sampler, sandbox and router, drain the bus, flush spans and Store.

        A cancelled scope does not stop it: what was measured is kept.
        """
        with CancelScope(shield=True):
            async with AsyncExitStack() as stack:
                stack.push_async_callback(to_thread.run_sync, self.store.close)
                if self._shared.spans is not None:
                    stack.push_async_callback(self._shared.spans.aclose)
                stack.push_async_callback(self.bus.aclose)
                stack.push_async_callback(self.router.aclose)
                if self._shared.sandbox is not None:
                    stack.push_async_callback(self._shared.sandbox.aclose)
                if self._shared.gpus is not None:
                    stack.callback(self._shared.gpus.close)
                if self._shared.sampler is not None:
                    stack.push_async_callback(self._shared.sampler.aclose)

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(model.name for model in self.router.models))
        return f"<Runtime in {self.settings.home}: models {names}; {self.store.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class _Opening:
    """What `open_runtime` returns: await it, or enter it with `async with`."""

    def __init__(
        self, settings: Settings | None, *, read_only: bool, record: Path | None
    ) -> None:
        self._settings = settings
        self._read_only = read_only
        self._record = record
        self._runtime: Runtime | None = None

    def __await__(self) -> Generator[None, None, Runtime]:
        return self._open().__await__()

    async def __aenter__(self) -> Runtime:
        self._runtime = await self._open()
        return self._runtime

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runtime is not None:
            await self._runtime.aclose()

    async def _open(self) -> Runtime:
        settings = self._settings or load_settings()
        store = await to_thread.run_sync(self._open_store, settings)
        bus = EventBus()
        tracker = PerformanceTracker(window=settings.tracker_window)
        tracker.attach(bus)
        if not self._read_only:
            bus.on(
                lambda event: _keep(store, event),
                EventType.LLM_RESPONSE,
                EventType.LLM_ERROR,
                name="store",
            )
        shared = _Shared()
        try:
            router = build_router(settings, bus=bus, record=self._record)
            if settings.otlp_endpoint and not self._read_only:
                shared.spans = await to_thread.run_sync(_span_export, settings)
                shared.spans.attach(bus)
        except BaseException:
            store.close()
            raise
        return Runtime(
            settings=settings,
            bus=bus,
            store=store,
            tracker=tracker,
            router=router,
            _shared=shared,
        )

    def _open_store(self, settings: Settings) -> Store:
        if not self._read_only:
            try:
                settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"AGENTFARM_HOME {settings.home} cannot be used: {error.strerror}.",
                    remedy="Set AGENTFARM_HOME to a folder that you may write.",
                ) from error
        return Store.open(
            settings.store_url,
            flush_s=settings.store_flush_s,
            read_only=self._read_only,
        )


def open_runtime(
    settings: Settings | None = None,
    *,
    read_only: bool = False,
    record: Path | None = None,
) -> _Opening:
    """Open the workbench, by `await` or by `async with`.

    Example: ``farm = await open_runtime()``, and ``await farm.aclose()`` at the end.

    Nothing is contacted and no model is loaded before the first request.

    Args:
        settings: `load_settings()` if None.
        read_only: Open the Store for reading and keep no telemetry.
        record: A cassette to which every answer of a model is appended.

    Raises:
        ConfigError: A setting is not valid, `home` cannot be used, or what a setting
            asks for is not installed.
        StoreError: The Store cannot be opened.
    """
    return _Opening(settings, read_only=read_only, record=record)


def _keep(store: Store, event: Event) -> None:
    store.add_request(event.data["record"])


def _span_export(settings: Settings) -> SpanExport:
    """What sends spans to ``otlp_endpoint``; importing it takes a moment.

    Raises:
        ConfigError: The address is no URL, or remote where ``local_only`` holds, or
            the extra is not installed.
    """
    endpoint = settings.otlp_endpoint or ""
    if settings.local_only and not is_local_host(endpoint):
        raise ConfigError(
            f"The OTLP endpoint {endpoint.rpartition('@')[2].partition('?')[0]} is on "
            "a remote host, and what agents do stays on local hosts by default.",
            remedy="To allow remote hosts, set AGENTFARM_LOCAL_ONLY=false, "
            "local_only = false in agentfarm.toml, or Settings(local_only=False).",
        )
    try:
        from agentfarm.monitoring._otlp import SpanExport
    except ModuleNotFoundError as error:
        raise ConfigError(
            "AGENTFARM_OTLP_ENDPOINT is set, and OpenTelemetry's exporter is not "
            f"installed ({error.name} is missing).",
            remedy="Install it: pip install 'agentfarm[otlp]'.",
        ) from error
    headers = {
        name: value.get_secret_value() for name, value in settings.otlp_headers.items()
    }
    return SpanExport(endpoint, headers=headers, content=settings.otlp_content)
