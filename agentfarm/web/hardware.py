"""Hardware and performance, now and in the past: `/api/hardware`."""

from __future__ import annotations

import math
import socket
import time
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from agentfarm.web._answers import UNCHANGED, from_store, tagged, tagged_model
from agentfarm.web._farm import OfFarm
from agentfarm.web._models import GPUState, Hardware, HardwareHistory, Performance

__all__ = ["router"]

router = APIRouter(tags=["hardware"])

# A sample of the host that is older than this does not tell how it does now.
_HOST_FRESH_S = 15.0
_HISTORY_S = 3600.0
_POINTS = 600
_MOST_POINTS = 5000

Moment = Annotated[float | None, Query(ge=0, le=1e12, allow_inf_nan=False)]


@router.get("/api/hardware", response_model=Hardware, responses=UNCHANGED)
async def hardware(request: Request, farm: OfFarm) -> Response:
    """GPUs and host now."""
    gpu = await farm.gpus.state()
    samples = await from_store(
        farm.runtime.store.host_samples,
        since=time.time() - _HOST_FRESH_S,
        step_s=0,
        hostname=socket.gethostname(),
    )
    host = samples[-1] if samples else None
    return tagged_model(request, Hardware(gpu=gpu, host=host))


@router.get("/api/hardware/gpu", response_model=GPUState, responses=UNCHANGED)
async def gpu(request: Request, farm: OfFarm) -> Response:
    """Every GPU now, or what was tried to find one."""
    return tagged_model(request, await farm.gpus.state())


@router.get(
    "/api/hardware/performance", response_model=Performance, responses=UNCHANGED
)
async def performance(request: Request, farm: OfFarm) -> Response:
    """Requests, tokens and latency: overall, by model, by agent, and the latest."""
    body, tag = farm.performance.read()
    return tagged(request, body, tag)


@router.get(
    "/api/hardware/history", response_model=HardwareHistory, responses=UNCHANGED
)
async def history(
    request: Request,
    farm: OfFarm,
    since: Moment = None,
    until: Moment = None,
    step: Annotated[
        int | None,
        Query(
            ge=0,
            le=86_400,
            description="Seconds that one point averages; 0 for the samples as they "
            "were taken. Left out, it is chosen for some 600 points; it is made "
            f"larger where there could be more than {_MOST_POINTS}.",
        ),
    ] = None,
) -> Response:
    """What GPUs and host did, in the last hour if `since` is left out."""
    until = time.time() if until is None else until
    since = until - _HISTORY_S if since is None else since
    span_s = max(0.0, until - since)
    if step is None:
        step = math.ceil(span_s / _POINTS)
    if span_s > step * _MOST_POINTS and span_s > _MOST_POINTS:
        step = math.ceil(span_s / _MOST_POINTS)
    store = farm.runtime.store
    gpus = await from_store(store.gpu_samples, since=since, until=until, step_s=step)
    host = await from_store(store.host_samples, since=since, until=until, step_s=step)
    found = HardwareHistory(since=since, until=until, step_s=step, gpus=gpus, host=host)
    return tagged_model(request, found)
