"""Record what a provider answers, and answer from the recording later."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import anyio
from anyio import to_thread

from agentfarm.errors import AgentFarmError, ProviderError, RateLimited
from agentfarm.llm._cassette import (
    Recording,
    append_recording,
    describe_error,
    read_cassette,
    request_key,
    summary,
)
from agentfarm.llm._clock import StreamClock
from agentfarm.llm._messages import ChatResponse, Health, ModelInfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from agentfarm.llm._messages import ChatChunk, ChatRequest
    from agentfarm.llm._provider import Provider

__all__ = ["RecordingProvider", "ReplayProvider", "ReplaySpeed"]

ReplaySpeed = Literal["exact", "fast", "recorded"]


class RecordingProvider:
    """Passes requests on to a provider and keeps its answers in a cassette.

    An answer is on disk before its `ChatResponse` is handed on, so that a killed
    process loses nothing that was finished. Errors of the server are recorded;
    an answer whose consumer left is not.

    Args:
        inner: Who answers.
        cassette: The file to append to; made with its folders if missing.
    """

    def __init__(self, inner: Provider, cassette: Path) -> None:
        self.kind = inner.kind
        self.host = inner.host
        self.inner = inner
        self.cassette = cassette

    def __repr__(self) -> str:
        return f"RecordingProvider({self.inner!r}, {str(self.cassette)!r})"

    async def stream(
        self, request: ChatRequest
    ) -> AsyncGenerator[ChatChunk | ChatResponse]:
        """Ask the inner provider; see `Provider.stream`.

        Raises:
            ConfigError: The cassette cannot be written.
        """
        chunks: list[ChatChunk] = []
        try:
            async with aclosing(self.inner.stream(request)) as answer:
                async for item in answer:
                    if isinstance(item, ChatResponse):
                        await self._keep(request, chunks, response=item)
                    else:
                        chunks.append(item)
                    yield item
        except ProviderError as error:
            await self._keep(request, chunks, error=error)
            raise

    async def models(self) -> list[ModelInfo]:
        """Models that the inner provider offers."""
        return await self.inner.models()

    async def health(self) -> Health:
        """Whether the inner provider is ready."""
        return await self.inner.health()

    async def aclose(self) -> None:
        """Close the inner provider."""
        await self.inner.aclose()

    async def _keep(
        self,
        request: ChatRequest,
        chunks: list[ChatChunk],
        *,
        response: ChatResponse | None = None,
        error: ProviderError | None = None,
    ) -> None:
        recording = Recording(
            key=request_key(request),
            model=request.model or (response.model if response else ""),
            asked=summary(request),
            chunks=tuple(chunks),
            response=response,
            error=None if error is None else describe_error(error),
        )
        # In a thread, so that the disk does not shift the stamps of other streams.
        await to_thread.run_sync(append_recording, self.cassette, recording)


@dataclass
class _Tape:
    """A cassette in memory, with the place where each request's replay stands."""

    recordings: tuple[Recording, ...]
    warning: str | None
    by_key: dict[str, list[Recording]] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    played: defaultdict[tuple[str, str], int] = field(
        default_factory=lambda: defaultdict(int)
    )

    def __post_init__(self) -> None:
        for recording in self.recordings:
            self.by_key.setdefault(recording.key, []).append(recording)
        self.models = tuple(dict.fromkeys(item.model for item in self.recordings))

    def next(self, key: str, model: str | None) -> Recording | None:
        """The recording that is due; None if there is none for this request."""
        found = self.by_key.get(key, [])
        name = model if model in self.models else ""
        if name:
            found = [recording for recording in found if recording.model == name]
        if not found:
            return None
        place = (key, name or "")
        self.played[place] += 1
        return found[(self.played[place] - 1) % len(found)]


class ReplayProvider:
    """Answers from a cassette, the same way every time; needs no server.

    A request is found by its content (see `agentfarm.llm._cassette.request_key`).
    If `request.model` is a model that was recorded, only its answers count; any
    other name, such as ``replay``, stands for all. The n-th time that a request
    is asked it gets its n-th recording, and after the last the first again, so
    that a run of more epochs than were recorded has answers too.

    Speeds:

    * ``exact``: answers at once and reports the timings and tokens recorded.
    * ``fast``: answers at once and measures afresh.
    * ``recorded``: waits as long as the server took, and measures afresh.

    What the server itself reported is passed on as recorded. Only ``recorded``
    keeps the Retry-After of an error, since the others wait for nothing.

    Args:
        cassette: The file; read at the first use.
        speed: How fast to answer.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
    """

    kind = "replay"

    def __init__(
        self,
        cassette: Path,
        *,
        speed: ReplaySpeed = "exact",
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.host = f"replay:{cassette.name}"
        self.cassette = cassette
        self.speed = speed
        self._clock = clock
        self._sleep = sleep
        self._loaded: _Tape | None = None

    def __repr__(self) -> str:
        return f"ReplayProvider({str(self.cassette)!r}, speed={self.speed!r})"

    async def stream(
        self, request: ChatRequest
    ) -> AsyncGenerator[ChatChunk | ChatResponse]:
        """Answer from the cassette; see `Provider.stream`.

        Raises:
            ProviderError: The request was not recorded, or this error was.
            ConfigError: The file is missing or no cassette.
        """
        tape = self._tape()
        recording = tape.next(request_key(request), request.model)
        if recording is None:
            raise self._not_recorded(request, tape)
        exact = self.speed == "exact"
        clock = StreamClock(origin=self._clock())
        for chunk in recording.chunks:
            if exact:
                yield chunk
                continue
            if self.speed == "recorded":
                await self._wait(clock.origin + chunk.at_s)
            measured = clock.add(
                self._clock(), chunk.text, chunk.reasoning, chunk.tool_calls
            )
            if measured is not None:
                yield measured
        if recording.response is None:
            raise self._recorded_error(recording)
        if self.speed == "recorded" and not recording.chunks:
            await self._wait(clock.origin + recording.response.timing.latency_s)
        clock.end(self._clock())
        yield self._response(recording.response, clock)

    async def models(self) -> list[ModelInfo]:
        """The models whose answers were recorded.

        Raises:
            ConfigError: The file is missing or no cassette.
        """
        tape = self._tape()
        details = {"cassette": str(self.cassette), "speed": self.speed}
        if tape.warning:
            details["warning"] = tape.warning
        return [
            ModelInfo(
                name=name,
                loaded=True,
                details={
                    **details,
                    "answers": sum(item.model == name for item in tape.recordings),
                },
            )
            for name in tape.models
        ]

    async def health(self) -> Health:
        """Whether the cassette can be read."""
        start = time.perf_counter()
        try:
            tape = self._tape()
        except AgentFarmError as error:
            return Health(ok=False, detail=str(error))
        detail = f"{self.cassette.name} holds {len(tape.recordings)} answers."
        if tape.warning:
            detail = f"{detail} {tape.warning}"
        latency_s = time.perf_counter() - start
        return Health(ok=True, detail=detail, latency_s=latency_s)

    async def aclose(self) -> None:
        """Hold nothing; the next request starts from the file again."""
        self._loaded = None

    def _tape(self) -> _Tape:
        if self._loaded is None:
            self._loaded = _Tape(*read_cassette(self.cassette))
        return self._loaded

    async def _wait(self, until: float) -> None:
        wait_s = until - self._clock()
        if wait_s > 0:
            await self._sleep(wait_s)

    def _response(self, recorded: ChatResponse, clock: StreamClock) -> ChatResponse:
        if self.speed == "exact":
            timing = replace(recorded.timing, started_at=clock.started_at, queue_s=0.0)
        else:
            waited = self.speed == "recorded"
            timing = clock.timing(load_s=recorded.timing.load_s if waited else None)
        return replace(
            recorded, timing=timing, provider=self.kind, host=self.host, attempts=1
        )

    def _recorded_error(self, recording: Recording) -> ProviderError:
        error = recording.to_error()
        error.provider, error.host = self.kind, self.host
        if isinstance(error, RateLimited) and self.speed != "recorded":
            error.retry_after_s = None
        return error

    def _not_recorded(self, request: ChatRequest, tape: _Tape) -> ProviderError:
        models = ", ".join(tape.models) or "no model"
        return ProviderError(
            f"The cassette {self.cassette} holds no answer to “{summary(request)}” "
            f"with these settings; it has {len(tape.recordings)} answers of {models}.",
            remedy="Ask what was recorded, or record it: `agentfarm eval run … "
            "--record CASSETTE`, or RecordingProvider(provider, cassette).",
            provider=self.kind,
            host=self.host,
            model=request.model,
        )
