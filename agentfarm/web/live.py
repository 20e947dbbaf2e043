"""Events as they happen and of the recent past: `WS /ws` and `/api/events`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import msgspec
from fastapi import APIRouter, Query, WebSocket
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from agentfarm.config import describe_problems
from agentfarm.events import EventType
from agentfarm.web._access import Refused
from agentfarm.web._answers import UNCHANGED, is_current, problem, tag_of, tagged
from agentfarm.web._farm import OfFarm
from agentfarm.web._hub import Client
from agentfarm.web._json import encode
from agentfarm.web._limits import RateLimit
from agentfarm.web._models import EventPage
from agentfarm.web._wire import Wanted, Wire, message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentfarm.web._hub import Hub

__all__ = ["router"]

router = APIRouter(tags=["events"])

TOO_SLOW = 1013
_POLICY = 1008
_TOO_SLOW_REASON = "Too slow: too much waited for you. Reconnect with since=SEQ."
# How long a slow client has to take the news that it is dropped.
_FAREWELL_S = 5.0
_MOST_RECEIVED = 4096
_RECEIVED_PER_S = 5.0
_LONGEST_NAME = 200


def _listed(value: Any) -> Any:
    """Types as one text with commas, as they stand in a query."""
    return value.split(",") if isinstance(value, str) else value


Name = Annotated[str | None, Field(max_length=_LONGEST_NAME)]
Types = Annotated[
    frozenset[EventType] | None, BeforeValidator(_listed), Field(max_length=50)
]


class _Filter(BaseModel):
    """Which events a client wants."""

    model_config = ConfigDict(extra="forbid")

    types: Types = None
    run_id: Name = None
    agent: Name = None

    def wanted(self) -> Wanted:
        return Wanted(types=self.types, run_id=self.run_id, agent=self.agent)


class _Asked(_Filter):
    """The query of `WS /ws`."""

    since: int | None = Field(default=None, ge=0)
    server_id: Name = None
    batch: bool = True


class _Subscribe(_Filter):
    """A message with which a client changes what it wants."""

    type: Literal["subscribe"]


@router.websocket("/ws")
async def stream(socket: WebSocket, farm: OfFarm) -> None:
    """Every event as it happens, as `docs/guide/api.md` describes it."""
    hub = farm.hub
    try:
        asked = _Asked.model_validate(dict(socket.query_params))
    except ValidationError as error:
        refused = Refused(422, describe_problems(error))
        await socket.send_denial_response(problem(refused))
        return
    if len(hub.clients) >= farm.runtime.settings.web.max_clients:
        refused = Refused(503, "Too many clients listen already.", retry_after_s=10)
        await socket.send_denial_response(problem(refused))
        return
    client = Client(asked.wanted(), batched=asked.batch)
    await socket.accept()
    hub.join(client, since=asked.since, server_id=asked.server_id)
    try:
        await _until_first(
            lambda: _write(socket, client),
            lambda: _listen(socket, client, hub),
            client.too_slow.wait,
        )
    finally:
        hub.leave(client)
    if client.too_slow.is_set():
        await _close(socket, TOO_SLOW, _TOO_SLOW_REASON)


@router.get("/api/events", response_model=EventPage, responses=UNCHANGED)
async def events(
    request: Request,
    farm: OfFarm,
    since: Annotated[
        int | None,
        Query(ge=0, le=2**53, description="Only events after this `seq`."),
    ] = None,
    types: Annotated[
        list[EventType] | None, Query(description="Only these types.")
    ] = None,
    run_id: Annotated[str | None, Query(max_length=_LONGEST_NAME)] = None,
    agent: Annotated[str | None, Query(max_length=_LONGEST_NAME)] = None,
    limit: Annotated[
        int,
        Query(
            ge=1,
            le=2000,
            description="At most so many: the first ones after `since`, or else the "
            "newest.",
        ),
    ] = 200,
) -> Response:
    """Events of the recent past, oldest first; poll with the last `seq` as `since`."""
    hub = farm.hub
    tag = tag_of(hub.server_id, hub.seq, str(request.query_params))
    if is_current(request, tag):
        return tagged(request, b"", tag)
    wanted = Wanted(
        types=frozenset(types) if types else None, run_id=run_id, agent=agent
    )
    past = hub.past(since or 0)
    found = [event for event in past.events if wanted.fits(event)]
    seq = hub.seq
    if since is None:
        found = found[-limit:]
    elif len(found) > limit:
        found = found[:limit]
        seq = found[-1].seq
    page = {
        "server_id": hub.server_id,
        "seq": seq,
        "oldest": past.oldest,
        "missing": past.missing,
        "events": [msgspec.Raw(Wire.of(event).json) for event in found],
    }
    return tagged(request, encode(page), tag)


async def _until_first(*works: Callable[[], Awaitable[None]]) -> None:
    """Do all at once until one of them ends, then end the others."""
    async with anyio.create_task_group() as tasks:

        async def end_all_after(work: Callable[[], Awaitable[None]]) -> None:
            await work()
            tasks.cancel_scope.cancel()

        for work in works:
            tasks.start_soon(end_all_after, work)


async def _write(socket: WebSocket, client: Client) -> None:
    try:
        while True:
            await socket.send_text(await client.take())
    except WebSocketDisconnect:
        return


async def _listen(socket: WebSocket, client: Client, hub: Hub) -> None:
    """Take what the client says, until it leaves."""
    limit = RateLimit(_RECEIVED_PER_S, 2 * _RECEIVED_PER_S)
    while True:
        received = await socket.receive()
        if received["type"] == "websocket.disconnect":
            return
        text = received.get("text") or ""
        if limit.take("") or len(text) > _MOST_RECEIVED:
            await _close(socket, _POLICY, "Too many or too large messages.")
            return
        client.give(_answer(text, client, hub))


def _answer(text: str, client: Client, hub: Hub) -> str:
    """Do what a client's message says, and what to reply."""
    try:
        client.wanted = _Subscribe.model_validate(json.loads(text)).wanted()
    except ValidationError as error:
        return message("error", detail=describe_problems(error))
    except (ValueError, RecursionError):
        return message("error", detail="The message is not JSON.")
    types = client.wanted.types
    return message(
        "subscribed",
        seq=hub.seq,
        types=None if types is None else sorted(types),
        run_id=client.wanted.run_id,
        agent=client.wanted.agent,
    )


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Say goodbye, for as long as it may take to be heard."""
    with anyio.move_on_after(_FAREWELL_S):
        try:
            await socket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError):
            return
