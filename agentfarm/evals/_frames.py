"""Runs, samples and requests as pandas frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentfarm.errors import EvalError, StoreError
from agentfarm.evals._energy import sample_energies
from agentfarm.evals._result import EvalRun, requests_of, run_summaries
from agentfarm.evals._sample_frame import samples_with_energy
from agentfarm.events import RequestRecord
from agentfarm.store import RunRecord
from agentfarm.store._columns import column, records_frame

if TYPE_CHECKING:
    import pandas as pd

    from agentfarm.store import Store


def runs_frame(
    store: Store,
    *,
    suite: str | None = None,
    model: str | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """Runs, newest first: every field of RunRecord, `score` and `samples`.

    `score` is the mean over the finished samples, an error counting 0; NaN where
    there is none. `samples` counts the finished ones.
    """
    rows = run_summaries(store, suite=suite, model=model, limit=limit)
    frame = records_frame([row.run for row in rows], RunRecord)
    frame["score"] = column([row.score for row in rows], "float")
    frame["samples"] = column([row.samples for row in rows], "int")
    return frame


def samples_frame(source: Store | EvalRun, run_id: str | None = None) -> pd.DataFrame:
    """Samples of one run by start: every field of SampleRecord, energy and heat.

    ``energy_j`` and ``energy_above_idle_j`` are what the GPUs drew for the sample's
    requests, joules; ``throttled`` and ``max_gpu_temperature_c`` tell whether a slow
    sample ran on a hot card. They are out of the Store: with a run at hand, and where
    nobody sampled the hardware, they are unknown.

    Args:
        source: The Store, or a run that is at hand.
        run_id: Id, unique beginning of one, or ``latest``; needed with a Store.

    Raises:
        EvalError: A Store comes without `run_id`.
        StoreError: There is no such run.
    """
    if isinstance(source, EvalRun):
        return source.samples_frame()
    run = source.run(_needed(run_id, "samples"))
    samples = source.samples(run.run_id)
    requests = requests_of(source, run.run_id, samples)
    energies = sample_energies(source, samples, requests, hostname=run.hostname)
    return samples_with_energy(samples, energies)


def requests_frame(source: Store | EvalRun, run_id: str | None = None) -> pd.DataFrame:
    """Requests of one run or workflow by start: every field of RequestRecord.

    A sample has several where a request was tried again by a later attempt.

    Args:
        source: The Store, or a run that is at hand.
        run_id: Id, unique beginning of one, or ``latest``; needed with a Store.

    Raises:
        EvalError: A Store comes without `run_id`.
        StoreError: There is no such run or workflow.
    """
    if isinstance(source, EvalRun):
        return source.requests_frame()
    run_id = _needed(run_id, "requests")
    if workflow := _workflow(source, run_id):
        return records_frame(source.requests(run_id=workflow), RequestRecord)
    run = source.run(run_id)
    samples = source.samples(run.run_id)
    return records_frame(requests_of(source, run.run_id, samples), RequestRecord)


def _needed(run_id: str | None, kind: str) -> str:
    if run_id is None:
        raise EvalError(
            f"{kind}_frame() got a Store and no run_id.",
            remedy='Name a run, or "latest".',
        )
    return run_id


def _workflow(store: Store, run_id: str) -> str | None:
    """The full id of a workflow that is named; ``latest`` names a run."""
    if run_id == "latest":
        return None
    try:
        return store.workflow(run_id).run_id
    except StoreError:
        return None
