"""The model that AgentFarm serves itself, by llama.cpp in a child process."""

from __future__ import annotations

import dataclasses
import re
import threading
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from agentfarm.config import EmbeddedSettings, TimeoutSettings
from agentfarm.errors import AgentFarmError, ProviderError, ProviderTimeout
from agentfarm.llm._embedded import EmbeddedLease, acquire_server, require_llama_cpp
from agentfarm.llm._gguf import MODEL_FILE, MODEL_SIZE_BYTES, find_model, model_alias
from agentfarm.llm._messages import ChatResponse, Health, ModelInfo
from agentfarm.llm.providers._openai import OpenAIProvider

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from agentfarm.llm._gguf import ModelProgress
    from agentfarm.llm._messages import ChatChunk, ChatRequest

_CRASH_POLLS = 10
_CRASH_POLL_S = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """A running server and the client that speaks with it."""

    lease: EmbeddedLease
    client: OpenAIProvider


class EmbeddedProvider:
    """Serves a GGUF file on this machine, started at the first request.

    Every provider, notebook and process with the same settings shares one server,
    which ends a moment after the last of them is closed or gone. A server that
    crashed is started anew by the next request.

    Args:
        settings: Model file, context, slots, threads.
        home: Where AgentFarm keeps its state, and models that it fetches.
        timeouts: Limits of a request; `first_token_s` also limits the start.
        progress: Called from a worker thread while a model is fetched or loaded.

    Attributes:
        kind: ``embedded``.
        host: A label that stays the same over restarts, since the URL does not:
            ``embedded``, or ``embedded:NAME`` for a model file that was named.
    """

    kind = "embedded"

    def __init__(
        self,
        settings: EmbeddedSettings | None = None,
        *,
        home: Path,
        timeouts: TimeoutSettings | None = None,
        progress: Callable[[ModelProgress], None] | None = None,
    ) -> None:
        self._settings = settings or EmbeddedSettings()
        self._home = home
        self._timeouts = timeouts or TimeoutSettings()
        self._progress = progress
        self._held: _Held | None = None
        self._starting = anyio.Lock()
        gguf = self._settings.gguf
        self.model = model_alias(gguf or home / MODEL_FILE)
        # The router tells from this text alone that the host is this machine.
        label = re.sub(r"[^\w.-]+", "-", self.model)
        self.host = f"embedded:{label}" if gguf else "embedded"

    def __repr__(self) -> str:
        return f"EmbeddedProvider({self.host!r})"

    async def stream(
        self, request: ChatRequest
    ) -> AsyncGenerator[ChatChunk | ChatResponse]:
        """Ask; see `Provider.stream`. The time to start is no part of `Timing`.

        The server has one model, so `request.model` is not looked at.

        Raises:
            ProviderError: Also where the server crashed while it answered.
            ConfigError: llama.cpp or the model file is missing.
        """
        held = await self._ready()
        request = dataclasses.replace(request, model=held.lease.info.model)
        try:
            async with aclosing(held.client.stream(request)) as answer:
                async for item in answer:
                    if isinstance(item, ChatResponse):
                        yield dataclasses.replace(
                            item, provider=self.kind, host=self.host
                        )
                    else:
                        yield item
        except ProviderError as error:
            if await self._has_crashed(held.lease, error):
                raise self._crash_error(held.lease, error) from error
            error.provider, error.host = self.kind, self.host
            raise

    async def models(self) -> list[ModelInfo]:
        """The one model; told without starting the server.

        Raises:
            ConfigError: The model file that the settings name is not there.
            ProviderError: The running server does not answer.
        """
        held = self._held
        if held is not None and held.lease.alive:
            info = held.lease.info
            return [
                dataclasses.replace(
                    model,
                    context_length=info.context_length,
                    slots=info.slots,
                    loaded=True,
                )
                for model in await held.client.models()
            ]
        path = await to_thread.run_sync(find_model, self._settings, self._home)
        return [
            ModelInfo(
                name=self.model,
                context_length=self._settings.context_length,
                capabilities=frozenset({"json_schema"}),
                loaded=False,
                size_bytes=path.stat().st_size if path else MODEL_SIZE_BYTES,
                slots=self._settings.slots,
                details={"gguf": str(path) if path else None},
            )
        ]

    async def health(self) -> Health:
        """Whether it answers, or could be started; starts nothing, never raises."""
        held = self._held
        if held is not None and held.lease.alive:
            return await held.client.health()
        return await to_thread.run_sync(self._could_start)

    async def aclose(self) -> None:
        """Let the server go; it ends soon if nobody else uses it."""
        held, self._held = self._held, None
        if held is not None:
            try:
                await held.client.aclose()
            finally:
                held.lease.release()

    async def _ready(self) -> _Held:
        """The running server, started if need be; one caller starts, others wait."""
        async with self._starting:
            if self._held is None or not self._held.lease.alive:
                await self.aclose()
                lease = await self._acquire()
                client = OpenAIProvider(
                    lease.info.url, api_key=lease.info.api_key, timeouts=self._timeouts
                )
                self._held = _Held(lease=lease, client=client)
            return self._held

    async def _acquire(self) -> EmbeddedLease:
        # A cancelled caller goes on at once; the thread sees the event and lets go.
        cancelled = threading.Event()
        try:
            return await to_thread.run_sync(
                partial(
                    acquire_server,
                    self._settings,
                    home=self._home,
                    start_timeout_s=self._timeouts.first_token_s,
                    progress=self._progress,
                    cancelled=cancelled.is_set,
                ),
                abandon_on_cancel=True,
            )
        finally:
            cancelled.set()

    def _could_start(self) -> Health:
        try:
            require_llama_cpp()
            path = find_model(self._settings, self._home)
        except AgentFarmError as error:
            return Health(ok=False, detail=str(error))
        first = "" if path else f"fetches {MODEL_SIZE_BYTES / 1e6:.0f} MB and "
        return Health(ok=True, detail=f"Not running yet; {first}starts on first use.")

    async def _has_crashed(self, lease: EmbeddedLease, error: ProviderError) -> bool:
        """Whether the server is gone, which may show a moment after the error."""
        if error.status_code is None and not isinstance(error, ProviderTimeout):
            # The lifeline cannot be awaited: several requests may look at once.
            for _ in range(_CRASH_POLLS):
                if not lease.alive:
                    break
                await anyio.sleep(_CRASH_POLL_S)
        return not lease.alive

    def _crash_error(self, lease: EmbeddedLease, error: ProviderError) -> ProviderError:
        return ProviderError(
            f"The embedded server (process {lease.info.pid}) ended while it answered.",
            remedy=f"Ask again: the next request starts it anew. "
            f"Its log is {lease.log_path}.",
            provider=self.kind,
            host=self.host,
            model=lease.info.model,
            retryable=True,
            partial_text=error.partial_text,
        )
