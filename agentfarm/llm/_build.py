"""From Settings to a router with every model they name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentfarm.errors import AgentFarmError, ConfigError
from agentfarm.llm._messages import Health
from agentfarm.llm._registry import RegisteredModel
from agentfarm.llm._router import LLMRouter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from agentfarm.config import ModelSettings, Settings, TimeoutSettings
    from agentfarm.events import EventBus
    from agentfarm.llm._messages import (
        ChatChunk,
        ChatRequest,
        ChatResponse,
        ModelInfo,
    )
    from agentfarm.llm._provider import Provider

__all__ = ["build_router"]

OLLAMA_URL = "http://127.0.0.1:11434"
_DEFAULT_CONCURRENCY = 4
# A cassette answers at once and waits for nobody.
_REPLAY_CONCURRENCY = 64


def build_router(
    settings: Settings, *, bus: EventBus | None = None, record: Path | None = None
) -> LLMRouter:
    """Make the router that `settings` describe; nothing is contacted or started.

    ``settings.models`` come first; then ``embedded``, the llama.cpp server that
    AgentFarm starts by itself; then ``replay``, where a cassette is set. An entry
    of one of these two names replaces it. Where a request names no model, the two
    are asked only if no other model can be. A model whose API key is missing is
    registered all the same, and says so when it is asked.

    Args:
        settings: As loaded.
        bus: Gets the LLM_* events.
        record: A cassette to which every answer is appended, except those that
            come from a cassette.

    Raises:
        ConfigError: An entry is incomplete or contradicts itself, or its host is
            remote and ``local_only`` holds.
    """
    workshop = _Workshop(settings, record)
    models = [workshop.register(entry) for entry in settings.models]
    names = {entry.name for entry in settings.models}
    if "embedded" not in names:
        models.append(
            RegisteredModel(
                name="embedded",
                provider=workshop.embedded(None, None),
                context_length=settings.embedded.context_length,
                # llama.cpp constrains any model by grammar; whether tools work
                # depends on the model file's template.
                capabilities=frozenset({"json_schema"}),
                max_concurrency=settings.embedded.slots,
                preference=-1,
            )
        )
    if settings.cassette is not None and "replay" not in names:
        models.append(
            RegisteredModel(
                name="replay",
                provider=workshop.replay(settings.cassette),
                max_concurrency=_REPLAY_CONCURRENCY,
                preference=-2,
            )
        )
    return LLMRouter(
        models,
        bus=bus,
        local_only=settings.local_only,
        timeouts=settings.timeouts,
    )


@dataclass
class _Workshop:
    """Makes one provider, and so one connection pool, per server and key."""

    settings: Settings
    record: Path | None
    made: dict[tuple[str, ...], Provider] = field(default_factory=dict)

    def register(self, entry: ModelSettings) -> RegisteredModel:
        replay = entry.provider == "replay"
        embedded = entry.provider == "embedded"
        default = _REPLAY_CONCURRENCY if replay else self._limit(entry)
        context_length = entry.context_length
        if embedded and context_length is None:
            context_length = self.settings.embedded.context_length
        return RegisteredModel(
            name=entry.name,
            provider=self._provider(entry),
            model=entry.model or entry.name,
            context_length=context_length,
            capabilities=entry.capabilities,
            task_types=entry.task_types,
            max_concurrency=entry.max_concurrency or default,
        )

    def embedded(self, gguf: Path | None, context_length: int | None) -> Provider:
        key = ("embedded", str(gguf), str(context_length))
        if key not in self.made:
            # Here, so that llama.cpp's bindings are not needed until used.
            from agentfarm.llm.providers._embedded import EmbeddedProvider

            own = self.settings.embedded
            changes: dict[str, object] = {}
            if gguf is not None:
                changes["gguf"] = gguf
            if context_length is not None:
                changes["context_length"] = context_length
            self.made[key] = self._recorded(
                EmbeddedProvider(
                    own.model_copy(update=changes),
                    home=self.settings.home,
                    timeouts=self._patient(),
                )
            )
        return self.made[key]

    def _patient(self) -> TimeoutSettings:
        """Timeouts of the embedded server, unless a person has set another.

        It has one thread: while it reads the prompt of one request, the tokens of
        all others wait as long as a first token may.
        """
        timeouts = self.settings.timeouts
        if "inter_token_s" in timeouts.model_fields_set:
            return timeouts
        return timeouts.model_copy(update={"inter_token_s": timeouts.first_token_s})

    def replay(self, cassette: Path) -> Provider:
        key = ("replay", str(cassette))
        if key not in self.made:
            from agentfarm.llm.providers._replay import ReplayProvider

            self.made[key] = ReplayProvider(
                cassette, speed=self.settings.cassette_speed
            )
        return self.made[key]

    def _provider(self, entry: ModelSettings) -> Provider:
        if entry.provider == "embedded":
            return self.embedded(entry.gguf, entry.context_length)
        if entry.provider == "replay":
            cassette = entry.cassette or self.settings.cassette
            if cassette is None:
                raise _incomplete(entry, "cassette", "the path of a recorded session")
            return self.replay(cassette)
        if entry.provider == "openai" and entry.url is None:
            raise _incomplete(entry, "url", "e.g. http://127.0.0.1:8080/v1")
        return self._remote(entry, entry.url or OLLAMA_URL)

    def _remote(self, entry: ModelSettings, url: str) -> Provider:
        key = (entry.provider, url.rstrip("/"), entry.api_key_env or "")
        if key not in self.made:
            try:
                self.made[key] = self._recorded(self._connected(entry, url))
            except _KeyMissing as missing:
                self.made[key] = _Unusable(entry.provider, url, missing.error)
        return self.made[key]

    def _connected(self, entry: ModelSettings, url: str) -> Provider:
        timeouts = self.settings.timeouts
        if entry.provider == "ollama":
            from agentfarm.llm.providers._ollama import OllamaProvider

            return OllamaProvider(url, timeouts=timeouts)
        from agentfarm.llm.providers._openai import OpenAIProvider

        key = None
        if entry.api_key_env:
            try:
                key = self.settings.api_key(entry.api_key_env)
            except ConfigError as error:
                raise _KeyMissing(error) from None
        return OpenAIProvider(
            url, api_key=key, api_key_env=entry.api_key_env, timeouts=timeouts
        )

    def _recorded(self, provider: Provider) -> Provider:
        if self.record is None:
            return provider
        from agentfarm.llm.providers._replay import RecordingProvider

        return RecordingProvider(provider, self.record)

    def _limit(self, entry: ModelSettings) -> int:
        """The limit of the host, where this entry names none.

        Models of one host share the smallest limit among them, so an entry that
        names none must not lower what another entry asks for.
        """
        if entry.provider == "embedded":
            return self.settings.embedded.slots
        stated = [
            other.max_concurrency
            for other in self.settings.models
            if other.max_concurrency and _place(other) == _place(entry)
        ]
        return min(stated, default=_DEFAULT_CONCURRENCY)


class _KeyMissing(Exception):
    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.error = error


class _Unusable:
    """Stands for a server that cannot be asked, and says why when it is."""

    def __init__(self, kind: str, host: str, error: AgentFarmError) -> None:
        self.kind = kind
        self.host = host
        self._error = error

    async def stream(
        self, request: ChatRequest
    ) -> AsyncGenerator[ChatChunk | ChatResponse]:
        raise self._fresh()
        yield  # it must be an async generator

    async def models(self) -> list[ModelInfo]:
        raise self._fresh()

    async def health(self) -> Health:
        return Health(ok=False, detail=str(self._error))

    async def aclose(self) -> None:
        return

    def _fresh(self) -> AgentFarmError:
        return type(self._error)(self._error.message, remedy=self._error.remedy)


def _place(entry: ModelSettings) -> tuple[str, str]:
    default = OLLAMA_URL if entry.provider == "ollama" else ""
    return entry.provider, (entry.url or default).rstrip("/")


def _incomplete(entry: ModelSettings, what: str, example: str) -> ConfigError:
    return ConfigError(
        f"Model {entry.name!r} with provider {entry.provider!r} has no {what}.",
        remedy=f"Give it one in agentfarm.toml ({example}).",
    )
