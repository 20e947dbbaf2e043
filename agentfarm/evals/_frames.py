"""Runs, samples and requests as pandas frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentfarm.errors import EvalError, StoreError
from agentfarm.evals._columns import column, records_frame
from agentfarm.evals._result import EvalRun, requests_of, run_summaries
from agentfarm.events import RequestRecord
from agentfarm.store import RunRecord, SampleRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """Samples of one run by start: every field of SampleRecord.

    Args:
        source: The Store, or a run that is at hand.
        run_id: Id, unique beginning of one, or ``latest``; needed with a Store.

    Raises:
        EvalError: A Store comes without `run_id`.
        StoreError: There is no such run.
    """
    return records_frame(_rows(source, run_id, "samples"), SampleRecord)


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
    return records_frame(_rows(source, run_id, "requests"), RequestRecord)


def _rows(source: Store | EvalRun, run_id: str | None, kind: str) -> Sequence[Any]:
    if isinstance(source, EvalRun):
        return source.samples if kind == "samples" else source.requests
    if run_id is None:
        raise EvalError(
            f"{kind}_frame() got a Store and no run_id.",
            remedy='Name a run, or "latest".',
        )
    if kind == "requests" and (workflow := _workflow(source, run_id)):
        return source.requests(run_id=workflow)
    full_id = source.run(run_id).run_id
    samples = source.samples(full_id)
    return samples if kind == "samples" else requests_of(source, full_id, samples)


def _workflow(store: Store, run_id: str) -> str | None:
    """The full id of a workflow that is named; ``latest`` names a run."""
    if run_id == "latest":
        return None
    try:
        return store.workflow(run_id).run_id
    except StoreError:
        return None
