"""The LLM servers and the router: `/api/providers` and `/api/router`."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import anyio
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from agentfarm.web._answers import UNCHANGED, tagged_model
from agentfarm.web._farm import OfFarm
from agentfarm.web._models import Providers, ProviderState, RouterModel, RouterState
from agentfarm.web._performance import milliseconds

if TYPE_CHECKING:
    from agentfarm.llm import LLMRouter, ModelStatus, RouterStatus

__all__ = ["HealthFeed", "router"]

router = APIRouter(tags=["models"])

_FRESH_S = 5.0
_TIMEOUT_S = 3.0


class HealthFeed:
    """How the LLM servers do, each asked every few seconds at most.

    Args:
        models: The way to them.
    """

    def __init__(self, models: LLMRouter) -> None:
        self._models = models
        self._lock = anyio.Lock()
        self._newest: RouterStatus | None = None
        self._asked_at = 0.0

    async def status(self) -> RouterStatus:
        """The router's state with each server's own word, seconds old at most."""
        async with self._lock:
            now = time.monotonic()
            if self._newest is None or now - self._asked_at >= _FRESH_S:
                self._newest = await self._models.health(timeout_s=_TIMEOUT_S)
                self._asked_at = time.monotonic()
            return self._newest


@router.get("/api/providers", response_model=Providers, responses=UNCHANGED)
async def providers(request: Request, farm: OfFarm) -> Response:
    """The LLM servers, and whether each is ready."""
    status = await farm.health.status()
    groups: dict[tuple[str, str], list[ModelStatus]] = {}
    for model in status.models:
        groups.setdefault((model.provider, model.host), []).append(model)
    found = [_provider(models) for models in groups.values()]
    return tagged_model(request, Providers(providers=found))


@router.get("/api/router", response_model=RouterState, responses=UNCHANGED)
async def router_state(request: Request, farm: OfFarm) -> Response:
    """The registered models, their load, and who is not asked for now."""
    status = farm.runtime.router.status()
    models = [_router_model(model) for model in status.models]
    return tagged_model(request, RouterState(ok=status.ok, models=models))


def _provider(models: list[ModelStatus]) -> ProviderState:
    first = models[0]
    health = first.health
    return ProviderState(
        provider=first.provider,
        host=first.host,
        models=list(dict.fromkeys(model.name for model in models)),
        ok=health is not None and health.ok,
        detail="Not asked." if health is None else health.detail,
        latency_ms=None if health is None else milliseconds(health.latency_s),
    )


def _router_model(model: ModelStatus) -> RouterModel:
    values = asdict(model)
    del values["health"], values["latency_s"]
    return RouterModel(**values, latency_ms=milliseconds(model.latency_s))
