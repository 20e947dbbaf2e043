"""Any server that speaks OpenAI's chat completions, over server-sent events."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import SecretStr

from agentfarm.config import TimeoutSettings
from agentfarm.errors import ConfigError, ModelNotFound, ProviderError
from agentfarm.llm._address import split_credentials
from agentfarm.llm._clock import StreamClock
from agentfarm.llm._http import HttpHost, StreamedReply
from agentfarm.llm._http_errors import Origin, name_models, refusal, shorten
from agentfarm.llm._messages import Health, ModelInfo, Usage
from agentfarm.llm.providers._openai_wire import (
    CallIndex,
    Counts,
    Event,
    Timings,
    decode_event,
    request_body,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from agentfarm.llm._messages import ChatChunk, ChatRequest, ChatResponse

_CHECK_S = 5.0
_PROPS_LAST_S = 60.0
_HAS_VERSION = re.compile(r"/v\d+\w*(/|$)")
_NOT_STREAMED = (
    "The server answered in one piece, so the time to first token is the whole latency."
)
_TOOLS_DROPPED = (
    "The server's chat template has no place for tools: it dropped them silently."
)


class OpenAIProvider:
    """Talks to llama.cpp, vLLM, LM Studio, SGLang, Groq, Gemini, OpenAI and the like.

    Args:
        url: Base URL, with or without ``/v1``, e.g. ``http://127.0.0.1:8080``.
        api_key: Sent as a bearer token.
        api_key_env: Environment variable that the key came from, for messages.
        timeouts: Limits of a request that brings none of its own.

    Attributes:
        kind: ``openai``.
        host: `url` without credentials and ``/v1``.

    Raises:
        ConfigError: The URL or the key is malformed.
    """

    kind = "openai"

    def __init__(
        self,
        url: str,
        *,
        api_key: SecretStr | str | None = None,
        api_key_env: str | None = None,
        timeouts: TimeoutSettings | None = None,
    ) -> None:
        base, auth = split_credentials(url)
        base = base.removesuffix("/chat/completions")
        self._api = base if _HAS_VERSION.search(base) else f"{base}/v1"
        self.host = base.removesuffix("/v1")
        key = _checked(api_key, self.host)
        self._http = HttpHost(
            Origin(
                kind=self.kind,
                host=self.host,
                start_remedy="Start the server, or correct its address.",
                key_remedy=_key_remedy(api_key_env, given=key is not None),
                secrets=(key,) if key else (),
            ),
            headers={"Authorization": f"Bearer {key}"} if key else None,
            auth=auth,
            timeouts=timeouts or TimeoutSettings(),
        )
        self._props: Mapping[str, Any] = {}
        self._props_until = 0.0

    def __repr__(self) -> str:
        return f"OpenAIProvider({self.host!r})"

    async def stream(
        self, request: ChatRequest
    ) -> AsyncGenerator[ChatChunk | ChatResponse]:
        """Ask; see `Provider.stream`.

        `ChatRequest.extra` may hold any further field of the server; None takes
        one out.
        """
        body = request_body(request)
        self._http.client()
        clock = StreamClock()
        try:
            reply = await self._http.open(
                f"{self._api}/chat/completions",
                body,
                clock=clock,
                timeouts=request.timeouts,
                model=request.model,
            )
        except ModelNotFound as error:
            raise await name_models(error, self.models) from None
        answer = _Answer(clock, reply, self._http.origin, request.model)
        try:
            if reply.is_json:
                if chunk := answer.take_whole(await reply.read_whole()):
                    yield chunk
            else:
                while not answer.done and (lines := await reply.read()) is not None:
                    for line in lines:
                        if chunk := answer.take(line):
                            reply.beat = True
                            yield chunk
                await answer.finish()
        finally:
            await reply.aclose()
        if request.tools and not clock.has_tool_calls and await self._drops_tools():
            answer.warnings.append(_TOOLS_DROPPED)
        yield answer.response(self.kind, self.host)

    async def models(self) -> list[ModelInfo]:
        """Models that the server lists; llama.cpp also tells what they can do.

        Raises:
            ProviderError: The server cannot be asked.
        """
        listed = await self._http.ask(f"{self._api}/models", timeout_s=_CHECK_S)
        data = listed.get("data") if isinstance(listed, dict) else listed
        items = [item for item in data or () if isinstance(item, dict) and "id" in item]
        # A server with several models has no properties that hold for all.
        props = await self._ask_props() if len(items) == 1 else {}
        return [_model_info(item, props) for item in items]

    async def health(self) -> Health:
        """Whether the server is ready; never raises."""
        started = time.perf_counter()
        try:
            await self._is_ready()
        except ProviderError as error:
            return Health(ok=False, detail=str(error))
        latency_s = time.perf_counter() - started
        return Health(ok=True, detail=f"{self.host} is ready.", latency_s=latency_s)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _is_ready(self) -> None:
        """Ask /health, or list the models where a server does not know that path."""
        try:
            await self._http.ask(f"{self.host}/health", timeout_s=_CHECK_S)
        except ProviderError as error:
            if error.status_code is None or error.status_code >= 500:
                raise
            await self._http.ask(f"{self._api}/models", timeout_s=_CHECK_S)

    async def _ask_props(self) -> Mapping[str, Any]:
        """llama.cpp's /props; empty for other servers."""
        if time.monotonic() >= self._props_until:
            try:
                props = await self._http.ask(f"{self.host}/props", timeout_s=_CHECK_S)
            except ProviderError:
                props = None
            self._props = props if isinstance(props, dict) else {}
            self._props_until = time.monotonic() + _PROPS_LAST_S
        return self._props

    async def _drops_tools(self) -> bool:
        caps = (await self._ask_props()).get("chat_template_caps")
        return isinstance(caps, dict) and caps.get("supports_tools") is False


class _Answer:
    """Gathers one answer from its events."""

    def __init__(
        self,
        clock: StreamClock,
        reply: StreamedReply,
        origin: Origin,
        model: str | None,
    ) -> None:
        self.done = False
        self.warnings: list[str] = []
        self._clock = clock
        self._reply = reply
        self._origin = origin
        self._asked_model = model
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._counts: Counts | None = None
        self._timings: Timings | None = None
        self._calls = CallIndex()

    def take(self, line: bytes) -> ChatChunk | None:
        """Read one line of the stream.

        Raises:
            ProviderError: It is an error object, or malformed.
        """
        if line[:5] == b"data:":
            payload = line[5:]
        elif line[:1] in (b"{", b"<"):
            payload = line  # no SSE: a bare error object or a proxy's page
        else:
            return None  # blank, a comment, or a field that we have no use for
        try:
            event = decode_event(payload)
        except msgspec.DecodeError:
            if payload.strip() == b"[DONE]":
                self.done = True
                return None
            if not payload.strip():
                return None
            if self._reply.ended:
                raise self._reply.cut("in the middle of a chunk") from None
            raise self._reply.failure(
                f"sent a malformed chunk: {shorten(line, 120)!r}",
                retryable=True,
                remedy="Look into the server's log, and for a proxy on the way to it.",
            ) from None
        return self._event(event)

    def take_whole(self, body: bytes) -> ChatChunk | None:
        """Read an answer that is one JSON document.

        Raises:
            ProviderError: It is an error object, or no chat completion.
        """
        try:
            event = decode_event(body)
        except msgspec.DecodeError:
            event = Event()
        if event.choices or event.error is not None:
            self.warnings.append(_NOT_STREAMED)
            return self._event(event)
        raise self._reply.failure(
            f"answered with no chat completion: {shorten(body, 120)!r}"
        )

    async def finish(self) -> None:
        """Look whether the stream came to its end, and let go of the connection.

        Raises:
            ProviderError: It ended without ``[DONE]`` and finish reason.
        """
        if self.done:
            await self._reply.drain()
        elif self._finish_reason is None:
            raise self._reply.cut()

    def response(self, kind: str, host: str) -> ChatResponse:
        """The whole answer."""
        self._clock.end(self._reply.at)
        counts, timings = self._counts, self._timings
        usage = Usage()
        if counts is not None:
            usage = counts.usage()
        elif timings is not None:
            usage = timings.usage()
        return self._clock.response(
            model=self._model or self._asked_model or "",
            provider=kind,
            host=host,
            finish_reason=self._finish_reason,
            usage=usage,
            server=timings.server() if timings else None,
            warnings=self.warnings,
        )

    def _event(self, event: Event) -> ChatChunk | None:
        if event.error is not None:
            raise refusal(
                self._origin,
                event.error,
                status=None,
                model=self._asked_model,
                partial_text=self._clock.partial_text,
            )
        if event.usage is not None:
            self._counts = event.usage
        if event.timings is not None:
            self._timings = event.timings
        if not event.choices:
            return None
        self._model = event.model or self._model
        choice = event.choices[0]
        if choice.finish_reason is not None:
            self._finish_reason = choice.finish_reason
        delta = choice.delta or choice.message
        if delta is None:
            return None
        return self._clock.add(
            self._reply.at,
            delta.content or "",
            delta.reasoning_content or delta.reasoning or "",
            self._calls.deltas(delta.tool_calls) if delta.tool_calls else (),
        )


def _checked(api_key: SecretStr | str | None, host: str) -> str | None:
    key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"The API key for {host} has characters that no key has.",
            remedy="Copy it again, without line breaks and quotes.",
        )
    return key or None


def _key_remedy(variable: str | None, *, given: bool) -> str:
    if variable:
        return f"Check the key in the environment variable {variable}."
    if given:
        return "Check the API key."
    return "Name the environment variable that holds its key as api_key_env."


def _model_info(item: Mapping[str, Any], props: Mapping[str, Any]) -> ModelInfo:
    """One entry of /v1/models, with what llama.cpp and vLLM add to it."""
    meta = item.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    settings = props.get("default_generation_settings")
    n_ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    return ModelInfo(
        name=str(item["id"]),
        context_length=n_ctx or meta.get("n_ctx") or item.get("max_model_len"),
        capabilities=_capabilities(props),
        loaded=not props.get("is_sleeping", False) if props else None,
        size_bytes=meta.get("size"),
        slots=props.get("total_slots"),
        details={
            name: value
            for name, value in {**meta, **item}.items()
            if isinstance(value, str | int | float) and name not in ("id", "object")
        },
    )


def _capabilities(props: Mapping[str, Any]) -> frozenset[str]:
    """What llama.cpp says that it can do; a grammar gives it JSON schemas."""
    if not props:
        return frozenset()
    found = {"json_schema"}
    caps, modalities = props.get("chat_template_caps"), props.get("modalities")
    if isinstance(caps, dict) and caps.get("supports_tools"):
        found.add("tools")
    if isinstance(modalities, dict) and modalities.get("vision"):
        found.add("vision")
    return frozenset(found)
