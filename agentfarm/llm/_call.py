"""One request on its way through the router: choose, queue, ask, try again."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from agentfarm.errors import AgentFarmError, ProviderError, ProviderTimeout
from agentfarm.llm._failures import blocked, is_well, no_answer, out_of_time
from agentfarm.llm._messages import ChatResponse
from agentfarm.llm._retry import retry_after_s
from agentfarm.llm._selection import candidates, missing_capabilities, needs, rank
from agentfarm.llm._telemetry import Outcome, Reporter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from random import Random

    from agentfarm.llm._breaker import Admission
    from agentfarm.llm._hosts import Lane
    from agentfarm.llm._messages import ChatChunk, ChatRequest
    from agentfarm.llm._retry import RetryPolicy

__all__ = ["Call", "Means"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What the calls of one router have in common.

    Attributes:
        retry: When to try again.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
        rng: Draws the jitter.
    """

    retry: RetryPolicy
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    rng: Random


class ClosedElsewhere(Exception):
    """Another task closed the stream: its consumer sees it end."""


class Call:
    """Carries one request out; `chunks` may be iterated once.

    Args:
        request: What is asked.
        lanes: Every model of the router.
        reporter: Emits the events.
        means: What the router's calls have in common.
        total_s: Deadline, counted from the first `chunks.__anext__`.
        running: Holds this call while it runs.
    """

    def __init__(
        self,
        request: ChatRequest,
        lanes: Sequence[Lane],
        reporter: Reporter,
        means: Means,
        *,
        total_s: float | None,
        running: set[Call],
    ) -> None:
        self.outcome = Outcome(started_at=time.time())
        self.finished = asyncio.Event()
        self._request = request
        self._all = lanes
        self._reporter = reporter
        self._means = means
        self._total_s = total_s
        self._running = running
        self._wanted = needs(request)
        self._lanes: list[Lane] = []
        self._tried: list[Lane] = []
        self._rounds = 0
        self._failures: dict[Lane, AgentFarmError] = {}
        self._announced = True
        self._admission: Admission | None = None
        self._sent = 0.0
        self._deadline = math.inf
        self._doing = ""
        self._stop: Exception | None = None
        self._waiter: asyncio.Task[object] | None = None
        self._cancelled: asyncio.Task[object] | None = None

    async def chunks(self) -> AsyncGenerator[ChatChunk]:
        """Yield the answer's chunks; afterwards `outcome` holds the answer."""
        timer = self._begin()
        streamed = self._reporter.streamed if self._reporter.live else None
        try:
            self._choose()
            while self.outcome.response is None:
                lane = await self._admit()
                upstream = lane.entry.provider.stream(self._wire(lane))
                received = self.outcome.chunks = []
                try:
                    while True:
                        item = await self._guard(upstream.__anext__)
                        if isinstance(item, ChatResponse):
                            self._answered(lane, item)
                            break
                        received.append(item)
                        if streamed is not None:
                            streamed(item)
                        yield item
                except (AgentFarmError, StopAsyncIteration) as error:
                    self._failed(lane, error)
                finally:
                    await self._leave(lane, upstream)
        except ClosedElsewhere:
            self.outcome.cancelled = True
        except BaseException as error:
            self._concede(error)
            raise
        finally:
            self._end(timer)

    def interrupt(self, reason: Exception) -> bool:
        """End the call from outside: `reason` is raised where it waits, or will be.

        Returns:
            Whether it waits now, so that `finished` is about to be set.
        """
        if self._stop is None:
            self._stop = reason
            if self._waiter is not None:
                self._cancelled = self._waiter
                self._waiter.cancel()
        return self._cancelled is not None

    def _begin(self) -> asyncio.TimerHandle | None:
        self._running.add(self)
        if self._total_s is None:
            return None
        self._deadline = self._means.clock() + self._total_s
        return asyncio.get_running_loop().call_later(self._total_s, self._expire)

    def _choose(self) -> None:
        """Find the candidates and announce the request.

        Raises:
            ModelNotFound: There are none.
        """
        try:
            self._lanes = candidates(self._all, self._request)
        finally:
            self.outcome.lane = self._best(self._lanes)
            self._reporter.requested(self.outcome.lane)

    def _best(self, lanes: Sequence[Lane]) -> Lane | None:
        key = partial(rank, request=self._request, wanted=self._wanted)
        return min(lanes, key=key, default=None)

    async def _admit(self) -> Lane:
        """Wait for a place at the best lane that has not failed in this round."""
        while True:
            now = self._means.clock()
            lane = self._best(
                [x for x in self._lanes if x not in self._tried and x.ready(now)]
            )
            if lane is None:
                await self._next_round(now)
                continue
            self._announce(0.0)
            self.outcome.lane = lane
            self._doing = f"waiting for a place on {lane.entry.provider.host}"
            try:
                await self._guard(lane.gate.enter)
            finally:
                self.outcome.queue_s += self._means.clock() - now
            self._admission = lane.breaker.enter()
            if self._admission is not None:
                self.outcome.attempts += 1
                self.outcome.started_at = time.time()
                self._sent = self._means.clock()
                self._doing = f"waiting for {lane.entry.provider.host} to answer"
                return lane
            # The circuit opened while the request was in the queue.
            lane.gate.leave()

    async def _next_round(self, now: float) -> None:
        """Wait until a candidate may be asked again.

        Raises:
            AgentFarmError: It is not worth waiting; the newest failure.
        """
        retry = self._means.retry
        self._rounds += 1
        needed_s = min((self._wait_s(lane, now) for lane in self._lanes), default=0.0)
        left_s = self._deadline - now
        if not self._lanes or self._rounds >= retry.rounds or needed_s >= left_s:
            raise self._reason(now)
        if math.isinf(needed_s):
            raise self._reason(now)
        jitter_s = retry.wait_s(self._rounds, self._means.rng)
        wait_s = needed_s + min(jitter_s, (left_s - needed_s) / 2)
        self._announce(wait_s)
        self._doing = f"waiting {wait_s:.1f} s to try again"
        await self._guard(partial(self._means.sleep, wait_s))
        self._tried.clear()

    def _wait_s(self, lane: Lane, now: float) -> float:
        """Seconds until `lane` may be asked; infinite if that is too long."""
        quiet_s, probe_s = lane.quiet_until - now, lane.breaker.probe_in_s
        retry = self._means.retry
        if quiet_s > retry.max_retry_after_s or probe_s > retry.max_wait_s:
            return math.inf
        return max(0.0, quiet_s, probe_s)

    def _wire(self, lane: Lane) -> ChatRequest:
        entry, request = lane.entry, self._request
        return replace(
            request,
            model=entry.model,
            context_length=request.context_length or entry.context_length,
        )

    async def _guard(self, step: Callable[[], Awaitable[T]]) -> T:
        """Await `step`, unless or until `interrupt` is called.

        The deadline and a close from another task cancel the consumer's task here
        and nowhere else, so the consumer's own code is never hit by it. The count
        of cancellations is settled as `asyncio.timeout` does.
        """
        if self._stop is not None:
            raise self._stop
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of asyncio runs in a task
        self._waiter = task
        cancels = task.cancelling()
        try:
            return await step()
        except BaseException:
            if self._cancelled is None or self._stop is None:
                raise
            self._cancelled = None
            if task.uncancel() > cancels:
                # The consumer was cancelled as well, and that goes first.
                raise
            raise self._stop from None
        finally:
            self._waiter = None

    def _expire(self) -> None:
        chunks = len(self.outcome.chunks)
        self.interrupt(
            out_of_time(
                self._request,
                self.outcome.lane,
                total_s=self._total_s or 0.0,
                doing=f"after {chunks} chunks" if chunks else self._doing,
            )
        )

    def _answered(self, lane: Lane, response: ChatResponse) -> None:
        lane.breaker.succeeded()
        self._admission = None
        lane.answered(response.timing.latency_s)
        timing = replace(response.timing, queue_s=self.outcome.queue_s)
        self.outcome.response = replace(
            response, timing=timing, attempts=self.outcome.attempts
        )

    def _failed(self, lane: Lane, error: AgentFarmError | StopAsyncIteration) -> None:
        """Note a failure, and raise it if nothing else may be tried."""
        if isinstance(error, StopAsyncIteration):
            error = no_answer(lane)
        self._settle(lane, error)
        lane.failed += 1
        lane.last_error = str(error)
        silence_until = self._means.clock() + retry_after_s(error)
        lane.quiet_until = max(lane.quiet_until, silence_until)
        self._failures.pop(lane, None)
        self._failures[lane] = error
        if self.outcome.chunks or error is self._stop:
            raise error
        self._announced = False
        self._tried.append(lane)
        if not (isinstance(error, ProviderError) and error.retryable):
            self._lanes.remove(lane)

    def _settle(self, lane: Lane, error: AgentFarmError) -> None:
        """Tell the breaker what `error` says about the host."""
        if self._admission is None:
            return
        if error is self._stop:
            # A host that stays silent until the deadline counts as ill, unless the
            # queue and earlier attempts had used up most of the time.
            silent = isinstance(error, ProviderTimeout) and not self.outcome.chunks
            in_time = self._deadline - self._sent >= (self._total_s or 0.0) / 2
            verdict = False if silent and in_time else None
        else:
            verdict = is_well(error)
        if verdict is None:
            lane.breaker.abandoned(self._admission)
        elif verdict:
            lane.breaker.succeeded()
        else:
            lane.breaker.failed(self._admission)
        self._admission = None

    async def _leave(self, lane: Lane, upstream: AsyncGenerator[object]) -> None:
        try:
            await upstream.aclose()
        finally:
            self.outcome.latency_s = self._means.clock() - self._sent
            if self._admission is not None:
                lane.breaker.abandoned(self._admission)
                self._admission = None
            lane.gate.leave()

    def _announce(self, wait_s: float) -> None:
        """Report the newest failure as a retry, once."""
        if self._announced or not self._failures:
            return
        self._announced = True
        lane, error = next(reversed(self._failures.items()))
        self._reporter.retrying(
            lane, error, attempt=self.outcome.attempts + 1, wait_s=wait_s
        )

    def _reason(self, now: float) -> AgentFarmError:
        """The error to raise when nothing is left to try."""
        if not self._failures:
            return blocked(self._lanes, now)
        lane, error = next(reversed(self._failures.items()))
        for other, earlier in self._failures.items():
            if other is not lane:
                entry = other.entry
                error.add_note(f"{entry.name} at {entry.provider.host}: {earlier}")
        missing = missing_capabilities(self._failures, self._wanted)
        if missing:
            hint = f"No model that was asked declares {' or '.join(sorted(missing))}."
            error.remedy = f"{error.remedy} {hint}" if error.remedy else hint
        return error

    def _concede(self, error: BaseException) -> None:
        self.outcome.error = error
        self.outcome.cancelled = isinstance(
            error, GeneratorExit | asyncio.CancelledError | KeyboardInterrupt
        )
        if isinstance(error, ProviderError) and not error.partial_text:
            error.partial_text = self.outcome.text

    def _end(self, timer: asyncio.TimerHandle | None) -> None:
        self._running.discard(self)
        if timer is not None:
            timer.cancel()
        if self._cancelled is not None:
            # A provider swallowed the cancellation that `interrupt` sent.
            self._cancelled.uncancel()
        self._reporter.ended(self.outcome)
        self.finished.set()
