"""Evaluations, as the Store keeps them: `/api/runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from agentfarm.evals import run_summaries
from agentfarm.web._answers import UNCHANGED, described, from_store, tagged_model
from agentfarm.web._farm import OfFarm
from agentfarm.web._models import RunDetail, RunItem, RunList, SampleItem
from agentfarm.web._performance import milliseconds

if TYPE_CHECKING:
    from agentfarm.store import RunRecord, SampleRecord, SampleTally

__all__ = ["RunId", "router"]

router = APIRouter(tags=["evaluations"])

RunId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="An id, the beginning of one, or `latest`.",
        examples=["latest"],
    ),
]
Name = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")]


@router.get("/api/runs", response_model=RunList, responses=UNCHANGED)
async def runs(
    request: Request,
    farm: OfFarm,
    suite: Name = None,
    model: Name = None,
    since: Annotated[
        float, Query(ge=0, le=1e12, description="Started at this Unix time or later.")
    ] = 0.0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Evaluations with their scores, newest first."""
    store = farm.runtime.store
    found = await from_store(
        run_summaries, store, suite=suite, model=model, limit=limit
    )
    items = [
        RunItem(
            **_run(each.run), samples=each.samples, errors=each.errors, score=each.score
        )
        for each in found
        if each.run.started_at >= since
    ]
    return tagged_model(request, RunList(runs=items))


@router.get(
    "/api/runs/{run_id}",
    response_model=RunDetail,
    responses={**UNCHANGED, **described(s404="There is no such run.")},
)
async def run(
    request: Request,
    farm: OfFarm,
    run_id: RunId,
    texts: Annotated[
        bool, Query(description="With prompts, targets and answers.")
    ] = False,
) -> Response:
    """One evaluation with its finished samples."""
    store = farm.runtime.store
    record = await from_store(store.run, run_id)
    samples = await from_store(store.samples, record.run_id)
    tallies = await from_store(store.tallies, [record.run_id])
    tally: SampleTally = tallies[record.run_id]
    detail = RunDetail(
        **_run(record),
        samples=tally.samples,
        errors=tally.errors,
        score=tally.score,
        config=dict(record.config),
        sample_list=[_sample(sample, texts=texts) for sample in samples],
    )
    return tagged_model(request, detail)


def _run(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "suite": record.suite,
        "model": record.model,
        "status": record.status,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "planned_samples": record.planned_samples,
        "error": record.error,
    }


def _sample(sample: SampleRecord, *, texts: bool) -> SampleItem:
    return SampleItem(
        sample_id=sample.sample_id,
        task=sample.task,
        epoch=sample.epoch,
        status=sample.status,
        score=sample.score,
        started_at=sample.started_at,
        finished_at=sample.finished_at,
        latency_ms=milliseconds(sample.latency_s),
        ttft_ms=milliseconds(sample.ttft_s),
        tokens_per_second=sample.output_tokens_per_s,
        input_tokens=sample.input_tokens,
        output_tokens=sample.output_tokens,
        error_type=sample.error_type,
        error=sample.error,
        input=sample.input if texts else None,
        target=sample.target if texts else None,
        output=sample.output if texts else None,
        explanation=sample.explanation if texts else None,
    )
