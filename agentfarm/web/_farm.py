"""What the endpoints work with, made when the app starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from agentfarm.web._access import Refused

if TYPE_CHECKING:
    from agentfarm.runtime import Runtime
    from agentfarm.web._gpus import GPUFeed
    from agentfarm.web._hub import Hub
    from agentfarm.web._metrics import Metrics
    from agentfarm.web._performance import PerformanceFeed
    from agentfarm.web._providers import HealthFeed
    from agentfarm.web.workflows import WorkflowRunner

__all__ = ["Farm", "OfFarm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Farm:
    """One server's parts, alive as long as it runs.

    Attributes:
        runtime: The workbench that it serves.
        hub: Hands events to WebSocket clients.
        performance: Statistics of requests.
        gpus: The GPUs now.
        health: The LLM servers now.
        metrics: What Prometheus reads.
        workflows: Those that run here.
    """

    runtime: Runtime
    hub: Hub
    performance: PerformanceFeed
    gpus: GPUFeed
    health: HealthFeed
    metrics: Metrics
    workflows: WorkflowRunner


async def _farm_of(connection: HTTPConnection) -> Farm:
    farm = getattr(connection.app.state, "farm", None)
    if farm is None:
        raise Refused(503, "The server is starting or stopping.", retry_after_s=1)
    return cast("Farm", farm)


OfFarm = Annotated[Farm, Depends(_farm_of)]
