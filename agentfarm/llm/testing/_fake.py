"""A provider in this process that says what it is told to say."""

from __future__ import annotations

import copy
import inspect
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import anyio

from agentfarm.errors import ProviderError
from agentfarm.llm._clock import StreamClock
from agentfarm.llm._messages import (
    ChatChunk,
    ChatRequest,
    ChatResponse,
    Health,
    ModelInfo,
    Usage,
)
from agentfarm.llm.testing._script import Answer

__all__ = ["FakeCall", "FakeProvider", "Reaction"]

Reaction: TypeAlias = str | Answer | Exception
ReactionFunction: TypeAlias = Callable[[ChatRequest], Reaction | Awaitable[Reaction]]


@dataclass(slots=True)
class FakeCall:
    """One request that a `FakeProvider` got.

    Attributes:
        request: As it arrived.
        state: ``active``, then ``completed``, ``failed`` (the script's error was
            raised) or ``closed`` (the consumer left or was cancelled).
        pieces: Chunks that were yielded.
    """

    request: ChatRequest
    state: Literal["active", "completed", "failed", "closed"] = "active"
    pieces: int = 0


class FakeProvider:
    """A scripted stand-in for an LLM server; implements `Provider`.

    Example::

        fake = FakeProvider(["4", Answer("five", gap_s=0.01), RateLimited("busy")])
        fake = FakeProvider(lambda request: request.messages[-1].content.upper())
        fake = FakeProvider("always this")

    Args:
        script: One reaction for all requests, a sequence with one for each
            request, or a function (plain or async) of the request. A reaction is
            a text, an `Answer` or an exception to raise.
        default: The reaction when a sequence is used up; without it, that is a
            ProviderError.
        host: Base URL to pretend; give each fake its own where limits or circuit
            breakers per host matter.
        models: Models to offer; a name stands for a `ModelInfo`. An exception is
            raised.
        health: What `health` returns; ready by default.
        kind: Kind of provider to pretend.

    Attributes:
        calls: Every request, oldest first.
        active: Requests in flight now.
        max_active: Most requests that were in flight at once.
        closed: Whether `aclose` was called.

    `script`, `offered`, `health_report` and `host` may be set at any time.
    """

    def __init__(
        self,
        script: Reaction | Sequence[Reaction] | ReactionFunction = "ok",
        *,
        default: Reaction | None = None,
        host: str = "http://127.0.0.1/fake",
        models: Sequence[str | ModelInfo] | Exception = ("fake",),
        health: Health | None = None,
        kind: str = "fake",
    ) -> None:
        self.kind = kind
        self.host = host
        self.default = default
        self.offered = models
        self.health_report = health or Health(
            ok=True, detail="The fake is ready.", latency_s=0.0
        )
        self.calls: list[FakeCall] = []
        self.active = 0
        self.max_active = 0
        self.closed = False
        self._changed: anyio.Event | None = None
        self.script = script

    @property
    def script(self) -> ReactionFunction:
        """How the next requests are answered; set it to anything `script` takes."""
        return self._react

    @script.setter
    def script(self, script: Reaction | Sequence[Reaction] | ReactionFunction) -> None:
        if isinstance(script, str | Answer | Exception):
            reaction = script
            self._react: ReactionFunction = lambda _request: reaction
        elif callable(script):
            self._react = script
        else:
            queue = deque(script)
            self._react = lambda request: self._next(queue, request)

    @property
    def requests(self) -> list[ChatRequest]:
        """Every request as it arrived, oldest first."""
        return [call.request for call in self.calls]

    @property
    def cancelled(self) -> int:
        """Requests whose consumer left before the answer was complete."""
        return sum(call.state == "closed" for call in self.calls)

    async def wait_until(
        self, condition: Callable[[FakeProvider], bool], *, timeout_s: float = 5.0
    ) -> None:
        """Wait until `condition` holds, e.g. ``lambda fake: fake.active == 2``.

        Raises:
            TimeoutError: It did not hold in time.
        """
        with anyio.fail_after(timeout_s):
            while not condition(self):
                self._changed = self._changed or anyio.Event()
                await self._changed.wait()

    async def stream(
        self, request: ChatRequest
    ) -> AsyncGenerator[ChatChunk | ChatResponse]:
        """Yield the scripted chunks, then the response; see `Provider.stream`."""
        call = FakeCall(request)
        self.calls.append(call)
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        self._tell()
        clock = StreamClock()
        try:
            answer = await self._answer(request)
            for index, piece in enumerate(answer.pieces()):
                await self._before(answer, index, clock)
                call.pieces += 1
                self._tell()
                now = time.perf_counter()
                chunk = clock.add(now, piece.text, piece.reasoning, piece.tool_calls)
                yield chunk or piece
            await self._before(answer, len(answer.pieces()), clock, end=True)
            call.state = "completed"
        except Exception:
            call.state = "failed"
            raise
        finally:
            # Neither branch ran: the generator was closed or its consumer cancelled.
            if call.state == "active":
                call.state = "closed"
            self.active -= 1
            self._tell()
        clock.end(time.perf_counter())
        yield self._response(request, answer, clock)

    async def models(self) -> list[ModelInfo]:
        """The models it was told to offer."""
        if isinstance(self.offered, Exception):
            raise copy.copy(self.offered)
        return [
            ModelInfo(name=model) if isinstance(model, str) else model
            for model in self.offered
        ]

    async def health(self) -> Health:
        """The health it was told to report."""
        return self.health_report

    async def aclose(self) -> None:
        """Note that it was called."""
        self.closed = True

    def _next(self, queue: deque[Reaction], request: ChatRequest) -> Reaction:
        if queue:
            return queue.popleft()
        if self.default is not None:
            return self.default
        return ProviderError(
            f"FakeProvider has no answer left for request {len(self.calls)}.",
            remedy="Give its script more answers, or a default.",
            provider=self.kind,
            host=self.host,
            model=request.model,
        )

    async def _answer(self, request: ChatRequest) -> Answer:
        reaction = self._react(request)
        if inspect.isawaitable(reaction):
            reaction = await reaction
        if isinstance(reaction, str):
            return Answer(reaction)
        if isinstance(reaction, Exception):
            return Answer(error=reaction)
        return reaction

    async def _before(
        self, answer: Answer, index: int, clock: StreamClock, *, end: bool = False
    ) -> None:
        """Do what comes before piece `index`, or before the end."""
        if index == 0:
            await anyio.sleep(answer.first_delay_s)
        elif not end:
            await anyio.sleep(answer.gap_s)
        if answer.hold is not None and _is_due(answer.hold_after, index, end):
            await answer.hold.wait()
        if answer.error is not None and _is_due(answer.error_after, index, end):
            raise _fresh(answer.error, clock.partial_text)

    def _response(
        self, request: ChatRequest, answer: Answer, clock: StreamClock
    ) -> ChatResponse:
        return clock.response(
            model=request.model or "fake",
            provider=self.kind,
            host=self.host,
            finish_reason=answer.final_reason,
            usage=answer.usage or Usage(),
            server=answer.server,
            load_s=answer.server.load_s if answer.server else None,
            context_truncated=answer.context_truncated,
            warnings=answer.warnings,
        )

    def _tell(self) -> None:
        # Made by whoever waits, so that a chunk costs nothing where nobody does.
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def _is_due(after: int, index: int, end: bool) -> bool:
    """Whether something that comes `after` so many pieces comes here."""
    return index == after or (end and index < after)


def _fresh(error: Exception, partial_text: str) -> Exception:
    """A copy to raise, so that one script can be played many times."""
    error = copy.copy(error)
    if isinstance(error, ProviderError) and not error.partial_text:
        error.partial_text = partial_text
    return error
