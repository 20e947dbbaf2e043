"""An Ollama server, through its own API."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from agentfarm.config import TimeoutSettings
from agentfarm.errors import ModelNotFound, ProviderError
from agentfarm.llm._address import split_credentials
from agentfarm.llm._clock import StreamClock
from agentfarm.llm._http import HttpHost, StreamedReply
from agentfarm.llm._http_errors import Origin, name_models, refusal, shorten
from agentfarm.llm._messages import Health, ModelInfo
from agentfarm.llm.providers._ollama_wire import (
    Line,
    call_deltas,
    decode_line,
    decode_pull,
    request_body,
    truncation_warning,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from agentfarm.llm._messages import ChatChunk, ChatRequest, ChatResponse

_CHECK_S = 5.0
_PULL_LIMITS = TimeoutSettings(first_token_s=120.0, inter_token_s=120.0)
_SHOWN_AT_ONCE = 4
_KNOWN_CAPABILITIES = frozenset({"tools", "thinking", "vision"})


@dataclass(frozen=True, kw_only=True, slots=True)
class PullProgress:
    """How far the download of a model is.

    Attributes:
        status: What the server does, e.g. ``pulling 2bada8a74506``.
        completed_bytes: Of the layer in `status`; None where nothing is counted.
        total_bytes: Size of that layer.
    """

    status: str
    completed_bytes: int | None = None
    total_bytes: int | None = None


class OllamaProvider:
    """Talks to an Ollama server, which loads models by itself.

    `ChatRequest.context_length` is sent as ``num_ctx``: without it the server
    takes as little as 4096 tokens.

    Args:
        url: Base URL.
        timeouts: Limits of a request that brings none of its own.

    Attributes:
        kind: ``ollama``.
        host: `url` without credentials.

    Raises:
        ConfigError: The URL is malformed.
    """

    kind = "ollama"

    def __init__(
        self,
        url: str = "http://127.0.0.1:11434",
        *,
        timeouts: TimeoutSettings | None = None,
    ) -> None:
        base, auth = split_credentials(url)
        self.host = base.removesuffix("/api").removesuffix("/v1")
        self._http = HttpHost(
            Origin(
                kind=self.kind,
                host=self.host,
                start_remedy="Start it with `ollama serve`, or correct its address.",
                key_remedy="Put user and password into its URL, or ask its owner.",
            ),
            auth=auth,
            timeouts=timeouts or TimeoutSettings(),
        )

    def __repr__(self) -> str:
        return f"OllamaProvider({self.host!r})"

    async def stream(
        self, request: ChatRequest
    ) -> AsyncGenerator[ChatChunk | ChatResponse]:
        """Ask; see `Provider.stream`.

        `ChatRequest.extra` goes into ``options``, but for the few fields that
        are the request's own, such as ``think`` and ``keep_alive``.
        """
        body = request_body(request)
        self._http.client()
        clock = StreamClock()
        try:
            reply = await self._http.open(
                f"{self.host}/api/chat",
                body,
                clock=clock,
                timeouts=request.timeouts,
                model=request.model,
            )
        except ModelNotFound as error:
            error.remedy = f"Get it with `ollama pull {request.model}`."
            raise await name_models(error, self._listed) from None
        answer = _Answer(clock, reply, self._http.origin, request)
        try:
            while answer.last is None and (lines := await reply.read()) is not None:
                for line in lines:
                    if chunk := answer.take(line):
                        reply.beat = True
                        yield chunk
            if answer.last is None:
                raise reply.cut()
            await reply.drain()
        finally:
            await reply.aclose()
        yield answer.response(self.kind, self.host)

    async def models(self) -> list[ModelInfo]:
        """Models on the server's disk, and whether they are loaded.

        Raises:
            ProviderError: The server cannot be asked.
        """
        listed = await self._listed()
        running = await self._http.ask(f"{self.host}/api/ps", timeout_s=_CHECK_S)
        warm = {item["name"]: item for item in _items(running)}
        shown: dict[str, Mapping[str, Any]] = {}
        limit = anyio.CapacityLimiter(_SHOWN_AT_ONCE)

        async def show(name: str) -> None:
            async with limit:
                shown[name] = await self._show(name)

        async with anyio.create_task_group() as group:
            for model in listed:
                group.start_soon(show, model.name)
        return [
            _described(model, shown[model.name], warm.get(model.name))
            for model in listed
        ]

    async def health(self) -> Health:
        """Whether the server answers; never raises."""
        started = time.perf_counter()
        try:
            answer = await self._http.ask(
                f"{self.host}/api/version", timeout_s=_CHECK_S
            )
        except ProviderError as error:
            return Health(ok=False, detail=str(error))
        version = answer.get("version", "") if isinstance(answer, dict) else ""
        return Health(
            ok=True,
            detail=f"Ollama {version} answers on {self.host}.",
            latency_s=time.perf_counter() - started,
        )

    async def pull(self, model: str) -> AsyncGenerator[PullProgress]:
        """Have the server download a model, yielding each step.

        Closing the generator stops the download; a later one goes on from there.

        Raises:
            ProviderError: The server cannot, or stopped before the end.
        """
        clock = StreamClock()
        reply = await self._http.open(
            f"{self.host}/api/pull",
            {"model": model, "stream": True},
            clock=clock,
            timeouts=_PULL_LIMITS,
            model=model,
        )
        done = False
        try:
            while not done and (lines := await reply.read()) is not None:
                for line in filter(None, map(bytes.strip, lines)):
                    step = self._step(line, reply, model)
                    done = step.status == "success"
                    reply.beat = True
                    yield step
            if not done:
                raise reply.failure(
                    f"stopped the download of {model} before its end",
                    retryable=True,
                    remedy="Pull it again: it goes on from there.",
                )
        finally:
            await reply.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def _step(self, line: bytes, reply: StreamedReply, model: str) -> PullProgress:
        try:
            step = decode_pull(line)
        except msgspec.DecodeError:
            raise reply.failure(
                f"sent a malformed line: {shorten(line, 120)!r}", retryable=True
            ) from None
        if step.error is not None:
            raise refusal(self._http.origin, step.error, status=None, model=model)
        return PullProgress(
            status=step.status, completed_bytes=step.completed, total_bytes=step.total
        )

    async def _listed(self) -> list[ModelInfo]:
        """Models by /api/tags alone."""
        answer = await self._http.ask(f"{self.host}/api/tags", timeout_s=_CHECK_S)
        return [
            ModelInfo(
                name=item["name"],
                capabilities=_capabilities(item),
                size_bytes=item.get("size") or None,
                details={
                    name: value
                    for name, value in (item.get("details") or {}).items()
                    if value
                },
            )
            for item in _items(answer)
        ]

    async def _show(self, name: str) -> Mapping[str, Any]:
        """/api/show; empty where the model went away meanwhile."""
        try:
            answer = await self._http.ask(
                f"{self.host}/api/show", {"model": name}, timeout_s=_CHECK_S
            )
        except ProviderError:
            return {}
        return answer if isinstance(answer, dict) else {}


class _Answer:
    """Gathers one answer from its lines.

    Attributes:
        last: The line that ends it, once it came.
    """

    def __init__(
        self,
        clock: StreamClock,
        reply: StreamedReply,
        origin: Origin,
        request: ChatRequest,
    ) -> None:
        self.last: Line | None = None
        self._clock = clock
        self._reply = reply
        self._origin = origin
        self._request = request
        self._calls = 0

    def take(self, line: bytes) -> ChatChunk | None:
        """Read one line.

        Raises:
            ProviderError: It is an error object, or malformed.
        """
        try:
            part = decode_line(line)
        except msgspec.DecodeError:
            if not line.strip():
                return None
            if self._reply.ended:
                raise self._reply.cut("in the middle of a chunk") from None
            raise self._reply.failure(
                f"sent a malformed chunk: {shorten(line, 120)!r}",
                retryable=True,
                remedy="Look into the server's log, and for a proxy on the way to it.",
            ) from None
        if part.error is not None:
            raise refusal(
                self._origin,
                part.error,
                status=None,
                model=self._request.model,
                partial_text=self._clock.partial_text,
            )
        if part.done:
            self.last = part
        message = part.message
        if message is None:
            return None
        deltas: tuple[Any, ...] = ()
        if message.tool_calls:
            deltas = call_deltas(message.tool_calls, self._calls)
            self._calls += len(deltas)
        return self._clock.add(
            self._reply.at, message.content or "", message.thinking or "", deltas
        )

    def response(self, kind: str, host: str) -> ChatResponse:
        """The whole answer."""
        self._clock.end(self._reply.at)
        last, request = self.last or Line(), self._request
        server = last.server()
        cut = truncation_warning(request, last.prompt_eval_count)
        warnings = [] if cut is None else [cut]
        if request.tools and request.tool_choice not in ("auto", "none"):
            warnings.append(
                "Ollama knows no tool_choice: the model was free to call or not."
            )
        reason = last.done_reason
        if self._calls and reason == "stop":
            reason = "tool_calls"
        return self._clock.response(
            model=last.model or request.model or "",
            provider=kind,
            host=host,
            finish_reason=reason,
            usage=last.usage(),
            server=server,
            load_s=server.load_s,
            context_truncated=cut is not None,
            warnings=warnings,
        )


def _items(answer: Any) -> list[dict[str, Any]]:
    """The models in an answer of /api/tags or /api/ps."""
    items = answer.get("models") if isinstance(answer, dict) else None
    return [item for item in items or () if isinstance(item, dict) and "name" in item]


def _capabilities(item: Mapping[str, Any]) -> frozenset[str]:
    """Its own words for what it can do; every model can be held to a schema."""
    said = item.get("capabilities")
    return (_KNOWN_CAPABILITIES & frozenset(said or ())) | {"json_schema"}


def _described(
    model: ModelInfo, shown: Mapping[str, Any], warm: Mapping[str, Any] | None
) -> ModelInfo:
    """What tags, show and ps say of one model.

    `context_length` is what the model can hold; the details say how much of it
    is reserved while it is loaded.
    """
    info = shown.get("model_info") or {}
    lengths = [info[name] for name in info if name.endswith(".context_length")]
    details = dict(model.details)
    if warm is not None:
        for ours, theirs in (
            ("loaded_context_length", "context_length"),
            ("vram_bytes", "size_vram"),
            ("expires_at", "expires_at"),
        ):
            if theirs in warm:
                details[ours] = warm[theirs]
    return ModelInfo(
        name=model.name,
        context_length=lengths[0] if lengths else None,
        capabilities=model.capabilities | _capabilities(shown),
        loaded=warm is not None,
        size_bytes=model.size_bytes,
        details=details,
    )
