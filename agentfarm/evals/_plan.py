"""Decide what a run will ask, before anything is asked."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from agentfarm.errors import EvalError, ModelNotFound
from agentfarm.evals._reference import with_reference
from agentfarm.evals._scoring import needs_sandbox, scorer_spec
from agentfarm.store import RunRecord, SampleRecord, new_run_id, stamped

if TYPE_CHECKING:
    from agentfarm.evals._suite import Suite, Task
    from agentfarm.llm import RegisteredModel
    from agentfarm.runtime import Runtime
    from agentfarm.tools.sandbox import Sandbox


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the caller of `run` asked for; None where they left it open."""

    model: str | None = None
    concurrency: int | None = None
    epochs: int = 1
    limit: int | None = None
    temperature: float | None = None
    seed: int | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "epochs", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvalError(f"run() got {name}={value}.", remedy="Use 1 or more.")
        if self.temperature is not None and self.temperature < 0:
            raise EvalError(
                f"run() got temperature={self.temperature}.", remedy="Use 0 or more."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One task to be asked once."""

    task: Task
    epoch: int
    sample_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run that can begin.

    Attributes:
        suite: Where the tasks come from.
        record: The run as it will stand in the Store, status ``running``.
        jobs: What is still to be asked, epoch by epoch.
        finished: Samples of an earlier attempt that are kept.
        models: Those of the asked name, between which the router balances.
        runtime: Where it runs; its router has the model ``reference`` if asked for.
        sandbox: Where code is run; None where nothing needs one.
    """

    suite: Suite
    record: RunRecord
    jobs: tuple[Job, ...]
    finished: tuple[SampleRecord, ...]
    models: tuple[RegisteredModel, ...]
    runtime: Runtime
    sandbox: Sandbox | None


async def make_plan(suite: Suite, options: Options, runtime: Runtime) -> Plan:
    """Turn what was asked for into jobs.

    Raises:
        ModelNotFound: No such model is registered.
        EvalError: The run to resume does not fit, or the suite has no references
            to play.
        SandboxUnavailable: The suite needs a sandbox and there is none.
        StoreError: The run to resume is not there.
    """
    if options.resume is not None:
        return await _resumed(suite, options, options.resume, runtime)
    name = options.model or runtime.settings.default_model
    runtime = with_reference(name, suite, runtime)
    models = _models(name, runtime)
    tasks = suite.tasks[: options.limit]
    record = stamped(
        RunRecord(
            run_id=new_run_id(),
            suite=suite.name,
            suite_hash=suite.suite_hash,
            model=models[0].name,
            status="running",
            started_at=time.time(),
            planned_samples=len(tasks) * options.epochs,
            epochs=options.epochs,
            concurrency=options.concurrency or _slots(models, runtime),
            config=_config(suite, options, models),
        )
    )
    return Plan(
        suite=suite,
        record=record,
        jobs=_jobs(tasks, record),
        finished=(),
        models=models,
        runtime=runtime,
        sandbox=await _sandbox(suite, runtime),
    )


async def _resumed(
    suite: Suite, options: Options, resume: str, runtime: Runtime
) -> Plan:
    previous = await anyio.to_thread.run_sync(runtime.store.run, resume)
    _check_fit(previous, suite, options)
    runtime = with_reference(previous.model, suite, runtime)
    models = _models(previous.model, runtime)
    samples = await anyio.to_thread.run_sync(runtime.store.samples, previous.run_id)
    finished = tuple(sample for sample in samples if sample.status == "ok")
    done = {sample.sample_id for sample in finished}
    record = stamped(
        replace(
            previous,
            status="running",
            finished_at=None,
            error=None,
            concurrency=options.concurrency or previous.concurrency,
        )
    )
    planned = _jobs(suite.tasks[: previous.config.get("limit")], record)
    jobs = tuple(job for job in planned if job.sample_id not in done)
    if not jobs and previous.status == "completed":
        raise EvalError(
            f"Run {previous.run_id} is complete: nothing is left to ask.",
            remedy=f"Look at it: agentfarm eval show {previous.run_id}",
        )
    return Plan(
        suite=suite,
        record=record,
        jobs=jobs,
        finished=finished,
        models=models,
        runtime=runtime,
        sandbox=await _sandbox(suite, runtime),
    )


def _check_fit(previous: RunRecord, suite: Suite, options: Options) -> None:
    """Refuse to mix samples that answer different questions."""
    what = f"Run {previous.run_id}"
    if previous.status == "running":
        raise EvalError(
            f"{what} is still running in process {previous.pid}.",
            remedy="Wait for it, or interrupt it first.",
        )
    if previous.suite_hash != suite.suite_hash:
        raise EvalError(
            f"{what} asked suite {previous.suite} {previous.suite_hash}, which is not "
            f"{suite.name} {suite.suite_hash}.",
            remedy="Resume it with the same suite, or start a new run.",
        )
    wanted: dict[str, tuple[Any, Any]] = {
        "model": (options.model, previous.model),
        "epochs": (options.epochs if options.epochs != 1 else None, previous.epochs),
        "limit": (options.limit, previous.config.get("limit")),
        "temperature": (options.temperature, previous.config.get("temperature")),
        "seed": (options.seed, previous.config.get("seed")),
    }
    for name, (asked, had) in wanted.items():
        if asked is not None and asked != had:
            raise EvalError(
                f"{what} has {name}={had!r} and cannot be resumed with {asked!r}.",
                remedy=f"Leave {name} out, or start a new run.",
            )
    solver, had = _solver(suite).get("solver"), previous.config.get("solver")
    if solver != had:
        raise EvalError(
            f"{what} has the solver {had}, which is not {solver}.",
            remedy="Resume it with the same solver, or start a new run.",
        )


def _models(name: str, runtime: Runtime) -> tuple[RegisteredModel, ...]:
    models = runtime.router.models
    if found := tuple(model for model in models if model.name == name):
        return found
    known = ", ".join(sorted({model.name for model in models})) or "none"
    raise ModelNotFound(
        f"No model {name!r} is registered.",
        remedy=f"Registered: {known}. Add one: agentfarm models add.",
        model=name,
    )


def _slots(models: tuple[RegisteredModel, ...], runtime: Runtime) -> int:
    """Requests that the model's hosts serve at once, by the router's rule."""
    return sum(
        min(
            other.max_concurrency
            for other in runtime.router.models
            if other.provider.host == host
        )
        for host in {model.provider.host for model in models}
    )


def _config(
    suite: Suite, options: Options, models: tuple[RegisteredModel, ...]
) -> dict[str, Any]:
    asked, own = options.temperature, suite.temperature
    return {
        "temperature": own if asked is None else asked,
        "seed": suite.seed if options.seed is None else options.seed,
        "max_tokens": suite.max_tokens,
        "limit": options.limit,
        "tasks": len(suite.tasks[: options.limit]),
        "server_models": [
            {
                "provider": model.provider.kind,
                "host": model.provider.host,
                "model": model.model,
            }
            for model in models
        ],
        **_solver(suite),
    }


def _solver(suite: Suite) -> dict[str, Any]:
    """The solver's name and fields, as JSON values; nothing where there is none."""
    if suite.solver is None:
        return {}
    spec = json.dumps(scorer_spec(suite.solver), default=str, sort_keys=True)
    return {"solver": json.loads(spec)}


async def _sandbox(suite: Suite, runtime: Runtime) -> Sandbox | None:
    """The runtime's, opened before a model is asked in vain."""
    if any(map(needs_sandbox, (suite.solver, *(task.scorer for task in suite.tasks)))):
        return await runtime.sandbox()
    return None


def _jobs(tasks: tuple[Task, ...], record: RunRecord) -> tuple[Job, ...]:
    return tuple(
        Job(task=task, epoch=epoch, sample_id=f"{record.run_id}-{task.id}-{epoch}")
        for epoch in range(1, record.epochs + 1)
        for task in tasks
    )
