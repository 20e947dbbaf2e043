"""The one door to every model: chooses, queues, retries, fails over, reports."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, Self

import anyio

from agentfarm.config import TimeoutSettings
from agentfarm.errors import ConfigError, ProviderError
from agentfarm.llm._breaker import BreakerPolicy, CircuitBreaker
from agentfarm.llm._call import Call, Means
from agentfarm.llm._hosts import HostGate, Lane
from agentfarm.llm._messages import Health
from agentfarm.llm._registry import is_local_host
from agentfarm.llm._retry import RetryPolicy
from agentfarm.llm._status import ModelStatus, RouterStatus
from agentfarm.llm._stream import ChatStream
from agentfarm.llm._telemetry import Reporter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from agentfarm.events import EventBus
    from agentfarm.llm._messages import ChatRequest, ChatResponse
    from agentfarm.llm._provider import Provider
    from agentfarm.llm._registry import RegisteredModel

__all__ = ["LLMRouter"]

# These run in this process or are started by it, whatever their host says.
_LOCAL_KINDS = frozenset({"embedded", "replay"})
_CLOSE_S = 2.0


class LLMRouter:
    """Sends each request to the model that suits it, and gets an answer if it can.

    *Choice.* A request that names a model goes to the registrations of that name.
    One that names none goes by its task type: models that list it, then general
    ones, then the rest. Models that declare a needed capability (tools, JSON
    schema) go before those that do not; this is a preference, never a refusal.
    Among equals the host with the least load wins, then the lowest recent latency
    (moving average), then the order of registration.

    *Limits.* Each host serves a limited number of requests at once, first come
    first served. ``timeouts.total_s`` is a deadline over queue, retries and answer.

    *Failure.* Before the first chunk, a failure goes to the next candidate at once
    and, when all have failed, to another round after a backoff that honours
    Retry-After. After the first chunk it is raised with the partial text. A model
    that keeps failing is not asked for a while (see `BreakerPolicy`). The error
    raised is the provider's own, the newest one; its notes tell of the others.

    *Events.* LLM_REQUEST, LLM_STREAM_CHUNK, LLM_RETRY, and exactly one LLM_RESPONSE
    or LLM_ERROR, whose data hold ``record`` and ``text`` or ``partial_text``.

    A router belongs to one event loop.

    Args:
        models: What to choose from. Providers belong to the router from now on.
        bus: Gets the events; None for none.
        local_only: Refuse hosts outside this machine and its private network.
        timeouts: Deadline of requests that bring none of their own.
        retry: When to try again.
        breaker: When to stop asking.
        clock: Monotonic seconds, for waits, breakers and latency.
        sleep: Waits so many seconds.
        rng: Draws the jitter.

    Raises:
        ConfigError: A host is remote, and `local_only` holds.
    """

    def __init__(
        self,
        models: Sequence[RegisteredModel],
        *,
        bus: EventBus | None = None,
        local_only: bool = True,
        timeouts: TimeoutSettings | None = None,
        retry: RetryPolicy | None = None,
        breaker: BreakerPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        rng: Random | None = None,
    ) -> None:
        if local_only:
            _refuse_remote(models)
        self._bus = bus
        self._timeouts = timeouts or TimeoutSettings()
        self._means = Means(
            retry=retry or RetryPolicy(),
            clock=clock,
            sleep=sleep,
            rng=rng or Random(),  # noqa: S311 - jitter is no secret
        )
        self._lanes = _lanes(models, breaker or BreakerPolicy(), clock)
        self._calls: set[Call] = set()
        self._closed = False

    @property
    def models(self) -> tuple[RegisteredModel, ...]:
        """The registered models, in the order of registration."""
        return tuple(lane.entry for lane in self._lanes)

    def stream(self, request: ChatRequest) -> ChatStream:
        """Ask, and get the answer's chunks as they arrive.

        The iteration raises what `complete` raises. An error after the first
        chunk carries the text so far as ``partial_text``.
        """
        timeouts = request.timeouts or self._timeouts
        call = Call(
            request,
            self._lanes,
            Reporter(self._bus, request),
            self._means,
            total_s=timeouts.total_s,
            running=self._calls,
        )
        if self._closed:
            call.interrupt(_closed_error())
        return ChatStream(call)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Ask, and get the whole answer.

        Raises:
            ModelNotFound: No registered model has this name; the message lists
                those that exist, or the server does not have it.
            RateLimited: The server refuses for now, and for too long to wait.
            ContextOverflow: The prompt does not fit.
            ProviderTimeout: A limit passed; ``phase`` says which.
            ProviderError: Whatever else went wrong on the way to the answer.
        """
        async with self.stream(request) as answer:
            async for _ in answer:
                pass
        return answer.response

    def status(self) -> RouterStatus:
        """The models and their state now, without asking any server."""
        return self._status({})

    async def health(self, *, timeout_s: float = 5.0) -> RouterStatus:
        """`status`, with each server asked whether it is ready; never raises."""
        found: dict[int, Health] = {}
        async with anyio.create_task_group() as tasks:
            for provider in self._providers():
                tasks.start_soon(_ask_health, provider, found, timeout_s)
        return self._status(found)

    async def aclose(self) -> None:
        """End what runs with a ProviderError, and release every provider."""
        self._closed = True
        calls = tuple(self._calls)
        ending = [call for call in calls if call.interrupt(_closed_error())]
        with anyio.move_on_after(_CLOSE_S):
            for call in ending:
                await call.finished.wait()
        failures = []
        for provider in self._providers():
            try:
                await provider.aclose()
            except Exception as error:  # noqa: BLE001 - the others must be closed too
                failures.append(error)
        if failures:
            raise failures[0]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(entry.name for entry in self.models))
        return f"<LLMRouter: {names or 'no models'}>"

    def _providers(self) -> list[Provider]:
        by_id = {id(entry.provider): entry.provider for entry in self.models}
        return list(by_id.values())

    def _status(self, health: dict[int, Health]) -> RouterStatus:
        now = self._means.clock()
        return RouterStatus(
            models=tuple(
                ModelStatus.of(lane, health.get(id(lane.entry.provider)), now)
                for lane in self._lanes
            )
        )


def _lanes(
    models: Sequence[RegisteredModel],
    policy: BreakerPolicy,
    clock: Callable[[], float],
) -> tuple[Lane, ...]:
    limits: dict[str, int] = {}
    for entry in models:
        host = entry.provider.host
        limits[host] = min(entry.max_concurrency, limits.get(host, 1_000_000))
    gates = {host: HostGate(limit) for host, limit in limits.items()}
    breakers: dict[tuple[str, str], CircuitBreaker] = {}
    lanes = []
    for order, entry in enumerate(models):
        host = entry.provider.host
        key = (host, entry.model)
        if key not in breakers:
            breakers[key] = CircuitBreaker(policy, clock=clock)
        lanes.append(
            Lane(entry=entry, order=order, gate=gates[host], breaker=breakers[key])
        )
    return tuple(lanes)


def _refuse_remote(models: Sequence[RegisteredModel]) -> None:
    for entry in models:
        provider = entry.provider
        if provider.kind not in _LOCAL_KINDS and not is_local_host(provider.host):
            raise ConfigError(
                f"Model {entry.name!r} is on the remote host {provider.host}, and "
                "prompts stay on local hosts by default.",
                remedy="To allow remote hosts, set AGENTFARM_LOCAL_ONLY=false, "
                "local_only = false in agentfarm.toml, or Settings(local_only=False).",
            )


def _closed_error() -> ProviderError:
    return ProviderError(
        "The router was closed.",
        remedy="Open a new runtime or router for further requests.",
        provider="router",
    )


async def _ask_health(
    provider: Provider, found: dict[int, Health], timeout_s: float
) -> None:
    start = time.perf_counter()
    try:
        with anyio.fail_after(timeout_s):
            found[id(provider)] = await provider.health()
    except TimeoutError:
        detail = f"{provider.host} did not answer within {timeout_s:g} s."
        found[id(provider)] = Health(ok=False, detail=detail)
    except Exception as error:  # noqa: BLE001 - a status page shows every failure
        found[id(provider)] = Health(
            ok=False,
            detail=f"{provider.host}: {error}",
            latency_s=time.perf_counter() - start,
        )
