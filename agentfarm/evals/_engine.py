"""One run, from the first request to the stored end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread

from agentfarm.errors import (
    AgentFarmError,
    ConfigError,
    EvalError,
    ModelNotFound,
    ProviderError,
    SandboxUnavailable,
)
from agentfarm.evals._result import EvalRun, requests_of
from agentfarm.evals._sampling import Attempt, make_request
from agentfarm.events import EventType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentfarm.evals._plan import Job, Plan
    from agentfarm.evals._progress import Progress
    from agentfarm.store import RunRecord, SampleRecord

# Requests without any answer, and none before them, that end a run.
_PATIENCE = 3
# Seconds that a run waits for a server that answered before and is gone now.
_OUTAGE_S = 120.0

Ending = Literal["completed", "interrupted", "failed"]


class Engine:
    """Works off a plan with several workers, and keeps the run's state."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._runtime = plan.runtime
        self._progress = progress
        self._record = plan.record
        self._samples = list(plan.finished)
        self._scope = anyio.CancelScope()
        self._failure: Exception | None = None
        self._answered = False
        self._silent = 0
        self._outage = anyio.Lock()
        self._waited_s = 0.0

    async def execute(self) -> EvalRun:
        """Ask all that is left; raises what `run` says."""
        try:
            await self._runtime.store.put_run_async(self._record)
            self._emit(EventType.RUN_STARTED, config=dict(self._record.config))
            self._progress.start(self._record, tuple(self._samples))
            jobs = iter(self._plan.jobs)
            async with anyio.create_task_group() as outer:
                outer.start_soon(_keep_awake)
                async with anyio.create_task_group() as group:
                    self._scope = group.cancel_scope
                    for _ in range(min(self._record.concurrency, len(self._plan.jobs))):
                        group.start_soon(self._work, jobs)
                outer.cancel_scope.cancel()
        except BaseException as error:
            await self._end(_ending(error), error)
            raise
        if self._failure is not None:
            await self._end("failed", self._failure)
            raise self._failure
        await self._end("completed")
        return await self._result()

    async def _work(self, jobs: Iterator[Job]) -> None:
        """Take jobs until none is left; several workers share the iterator."""
        try:
            for job in jobs:
                self._progress.sample_started(job.task.id, job.epoch)
                sample = await self._ask_when_open(job)
                # An answer that is here is not thrown away by a cancellation.
                with anyio.CancelScope(shield=True):
                    await self._runtime.store.put_sample_async(sample)
                self._samples.append(sample)
                self._progress.sample_finished(sample)
                self._emit_sample(sample)
        except Exception as error:  # noqa: BLE001 - raised again by execute()
            self._failure = self._failure or error
            self._scope.cancel()

    async def _ask_when_open(self, job: Job) -> SampleRecord:
        """Ask; but where the router would refuse to, wait until it would not.

        Otherwise a server that is away for a second, or wants a pause, would turn
        all samples that are left into errors within that second. One worker waits
        and probes, the others wait for it.

        Raises:
            EvalError: The server stayed away for `_OUTAGE_S`; a dead server shall
                not pass for a low score.
        """
        if self._blocked_s() is None:
            return await self._ask(job)
        async with self._outage:
            while blocked_s := self._blocked_s():
                if self._waited_s >= _OUTAGE_S:
                    raise self._gave_up()
                wait_s = min(blocked_s, _OUTAGE_S - self._waited_s)
                self._waited_s += wait_s
                await anyio.sleep(wait_s)
            if self._blocked_s() is not None:
                return await self._ask(job)
        return await self._ask(job)

    def _blocked_s(self) -> float | None:
        """Seconds until the router may ask the model; None if it may as it is."""
        lanes = [
            lane
            for lane in self._runtime.router.status().models
            if lane.name == self._record.model
        ]
        if any(lane.circuit == "closed" and not lane.blocked_s for lane in lanes):
            return None
        return min(lane.blocked_s for lane in lanes)

    def _gave_up(self) -> EvalError:
        record = self._record
        return EvalError(
            f"{record.model} could not be asked for {_OUTAGE_S:g} s; "
            f"{len(self._samples)} of {record.planned_samples} samples are kept.",
            remedy="Bring its server back and run the same suite again with "
            f"resume={record.run_id!r}, or --resume {record.run_id}.",
        )

    async def _ask(self, job: Job) -> SampleRecord:
        request = make_request(job, self._plan)
        attempt = Attempt(job=job, request=request, started_at=time.time())
        try:
            if self._plan.suite.solver is None:
                attempt.response = await self._runtime.router.complete(request)
            else:
                await attempt.solve(self._plan)
        except (ConfigError, ModelNotFound, SandboxUnavailable):
            raise
        except AgentFarmError as error:
            await self._raise_if_hopeless(error)
            attempt.error = error
        else:
            self._answered = True
            self._waited_s = 0.0
            if attempt.error is None:
                await attempt.judge(self._plan.sandbox)
        return attempt.record()

    async def _raise_if_hopeless(self, error: AgentFarmError) -> None:
        """End the run where every further sample would fail in the same way."""
        if self._answered or not isinstance(error, ProviderError):
            return
        if error.status_code in {401, 403}:
            raise error
        if error.status_code is not None or error.partial_text:
            return
        self._silent += 1
        if self._silent >= _PATIENCE or not await self._any_healthy():
            raise error

    async def _any_healthy(self) -> bool:
        return any([(await model.provider.health()).ok for model in self._plan.models])

    async def _end(self, ending: Ending, error: BaseException | None = None) -> None:
        failed = ending == "failed" and error is not None
        self._record = replace(
            self._record,
            status=ending,
            finished_at=time.time(),
            error=f"{type(error).__name__}: {error}" if failed else None,
        )
        try:
            with anyio.CancelScope(shield=True):
                await self._runtime.store.put_run_async(self._record)
        finally:
            self._progress.stop(self._record)
        kind = EventType.RUN_COMPLETED
        self._emit(EventType.INTERRUPT if ending == "interrupted" else kind)

    async def _result(self) -> EvalRun:
        store, run_id = self._runtime.store, self._record.run_id

        def read() -> EvalRun:
            store.flush()
            return EvalRun(
                run=self._record,
                samples=tuple(sorted(self._samples, key=lambda row: row.started_at)),
                requests=requests_of(store, run_id, self._samples),
            )

        return await anyio.to_thread.run_sync(read)

    def _emit(self, kind: EventType, **more: object) -> None:
        record: RunRecord = self._record
        data = {
            "suite": record.suite,
            "model": record.model,
            "status": record.status,
            "finished_samples": len(self._samples),
            "planned_samples": record.planned_samples,
            "error": record.error,
        }
        self._runtime.bus.emit(kind, data | more, run_id=record.run_id)

    def _emit_sample(self, sample: SampleRecord) -> None:
        data = {
            "sample_id": sample.sample_id,
            "task": sample.task,
            "epoch": sample.epoch,
            "status": sample.status,
            "score": sample.score,
            "latency_s": sample.latency_s,
            "output_tokens": sample.output_tokens,
            "finished_samples": len(self._samples),
            "planned_samples": self._record.planned_samples,
        }
        run_id = self._record.run_id
        self._runtime.bus.emit(EventType.SAMPLE_COMPLETED, data, run_id=run_id)


def _ending(error: BaseException) -> Ending:
    """Cancellation, Ctrl-C and exit interrupt a run; an Exception fails it."""
    return "failed" if isinstance(error, Exception) else "interrupted"


async def _keep_awake() -> None:
    """Wake the loop twice a second, until cancelled.

    ipykernel 7 handles an interrupt only when the loop wakes up by itself; while
    a server is silent it would not, and a cell could not be interrupted.
    """
    while True:  # noqa: ASYNC110 - nothing is waited for
        await anyio.sleep(0.5)
