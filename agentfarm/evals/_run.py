"""Run a suite against a model: the two public ways."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from anyio.from_thread import start_blocking_portal

from agentfarm.errors import EvalError
from agentfarm.evals._engine import Engine
from agentfarm.evals._loading import load_suite
from agentfarm.evals._plan import Options, make_plan
from agentfarm.evals._progress import GuardedProgress, make_progress
from agentfarm.evals._suite import Suite

if TYPE_CHECKING:
    from pathlib import Path

    from agentfarm.config import Settings
    from agentfarm.evals._progress import Progress
    from agentfarm.evals._result import EvalRun
    from agentfarm.runtime import Runtime


async def run(
    suite: Suite | str | Path,
    *,
    model: str | None = None,
    runtime: Runtime | None = None,
    settings: Settings | None = None,
    concurrency: int | None = None,
    epochs: int = 1,
    limit: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    progress: Progress | bool | Literal["auto"] | None = "auto",
    resume: str | None = None,
) -> EvalRun:
    """Ask a model every task of a suite and score the answers.

    Every sample is in the Store before it counts as finished. What goes wrong
    with one sample, in the model or in the scorer, is kept as data: its status
    is ``error``. A server that answered before and is gone is waited for, two
    minutes in all; then the run ends as ``failed``, to be resumed; so it does where
    the sandbox is gone. Cancelling closes the requests in flight and leaves the run
    as ``interrupted``, to be resumed. Published are RUN_STARTED, SAMPLE_COMPLETED
    for each sample, and at the end RUN_COMPLETED, or INTERRUPT.

    Args:
        suite: A Suite, or whatever `load_suite` takes.
        model: A registered model's name; the settings' `default_model` if None.
            ``reference`` plays the solutions that the suite's tasks bring along.
        runtime: Where to run; one is opened for the duration if None.
        settings: For the runtime that is opened.
        concurrency: Requests at once; the slots of the model's hosts if None.
            Requests beyond them wait, and that wait is `queue_s`, not latency.
        epochs: How often each task is asked.
        limit: Only the first so many tasks.
        temperature: Instead of the suite's.
        seed: Instead of the suite's. Epoch n uses ``seed + n - 1``.
        progress: ``auto`` shows a live table in a terminal, a bar in a notebook
            and plain lines elsewhere, all on stderr; False shows nothing; or an
            object of your own.
        resume: Id of a run that did not finish. Its ok samples are kept, the
            others are asked again with the run's own settings.

    Raises:
        EvalError: An argument, the suite or the run to resume does not fit.
        ModelNotFound: The model is not registered, or its server lacks it.
        ProviderError: Nothing has answered yet and the server is not reachable
            or refuses the key; the run is kept as ``failed``.
        SandboxUnavailable: The suite runs code and there is no sandbox.
        StoreError: The Store cannot be read or written.
    """
    options = Options(
        model=model,
        concurrency=concurrency,
        epochs=epochs,
        limit=limit,
        temperature=temperature,
        seed=seed,
        resume=resume,
    )
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    if runtime is not None:
        if settings is not None:
            raise EvalError(
                "run() got both a runtime and settings.", remedy="Pass one of them."
            )
        return await _run(suite, options, runtime, progress)
    from agentfarm.runtime import open_runtime

    async with open_runtime(settings) as own:
        return await _run(suite, options, own, progress)


def run_sync(
    suite: Suite | str | Path,
    *,
    model: str | None = None,
    settings: Settings | None = None,
    concurrency: int | None = None,
    epochs: int = 1,
    limit: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    progress: Progress | bool | Literal["auto"] | None = "auto",
    resume: str | None = None,
) -> EvalRun:
    """The same as `run` for code that is not async; waits for the end.

    It runs in a thread of its own with an event loop of its own, so it works in
    a notebook too and touches no loop of the caller's. Ctrl-C interrupts the run
    like cancelling does. The arguments are those of `run`; a runtime is always
    opened for the duration.

    Raises:
        AgentFarmError: As `run` does.
        KeyboardInterrupt: On Ctrl-C, after the run is kept as ``interrupted``.
    """
    main = partial(
        run,
        suite,
        model=model,
        settings=settings,
        concurrency=concurrency,
        epochs=epochs,
        limit=limit,
        temperature=temperature,
        seed=seed,
        progress=progress,
        resume=resume,
    )
    # Leaving the portal by an exception cancels what runs in it and waits.
    with start_blocking_portal("asyncio", name="agentfarm-evals") as portal:
        return portal.start_task_soon(main).result()


async def _run(
    suite: Suite,
    options: Options,
    runtime: Runtime,
    progress: Progress | bool | Literal["auto"] | None,
) -> EvalRun:
    plan = await make_plan(suite, options, runtime)
    engine = Engine(plan, GuardedProgress(make_progress(progress)))
    return await engine.execute()
