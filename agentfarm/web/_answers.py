"""How the server answers: JSON with a tag of its content, and problems in one shape."""

from __future__ import annotations

import math
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import to_thread
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from agentfarm.errors import AgentFarmError, StoreError
from agentfarm.web._access import Refused
from agentfarm.web._json import encode, encode_model
from agentfarm.web._models import Problem
from agentfarm.web._security import SECURITY_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from pydantic import BaseModel
    from starlette.requests import Request

__all__ = [
    "COMMON_PROBLEMS",
    "REVALIDATE",
    "UNCHANGED",
    "add_problem_handlers",
    "described",
    "from_store",
    "is_current",
    "problem",
    "tag_of",
    "tagged",
    "tagged_model",
]

T = TypeVar("T")
Described = dict[int | str, dict[str, Any]]

# Keep it, but ask each time whether it has changed.
REVALIDATE = "private, no-cache"
_LONGEST = 2000


def described(**problems: str) -> Described:
    """Answers that are a `Problem`, as ``s404="There is no such run."``."""
    return {
        int(status.removeprefix("s")): {"model": Problem, "description": text}
        for status, text in problems.items()
    }


COMMON_PROBLEMS = described(
    s400="The request cannot be read.",
    s401="A token is needed, or it is wrong.",
    s403="The token, or the page's origin, does not allow this.",
    s408="The body did not arrive in time.",
    s413="The body is too large.",
    s421="The server does not answer under this host name.",
    s422="A parameter or the body is not valid.",
    s429="Too many requests, or too many wrong tokens.",
    s503="The Store cannot be read for now.",
)
UNCHANGED: Described = {
    304: {"description": "It is as it was when it had the tag in `If-None-Match`."}
}


def tag_of(*parts: object) -> str:
    """A tag that differs where any of the parts does."""
    digest = blake2b(digest_size=12)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return f'"{digest.hexdigest()}"'


def is_current(request: Request, tag: str) -> bool:
    """Whether the client has this version already."""
    known = request.headers.get("if-none-match", "")
    return tag in (each.strip().removeprefix("W/") for each in known.split(","))


def tagged(request: Request, body: bytes, tag: str | None = None) -> Response:
    """JSON with its tag, or 304 where the client has it already."""
    tag = tag or tag_of(body)
    headers = {"ETag": tag, "Cache-Control": REVALIDATE}
    if is_current(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def tagged_model(request: Request, model: BaseModel) -> Response:
    """A model as JSON with its tag, or 304 where the client has it already."""
    return tagged(request, encode_model(model))


async def from_store(read: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """What a reader of the Store gives, without blocking the loop.

    Raises:
        Refused: There is no such record.
        StoreError: The Store cannot be read.
    """
    try:
        return await to_thread.run_sync(partial(read, *arguments, **options))
    except StoreError as error:
        if error.__cause__ is not None:
            raise
        raise Refused(404, error.message, remedy=error.remedy) from error


def problem(refused: Refused) -> Response:
    """A refusal as its answer."""
    return _answer(
        refused.status, refused.detail, refused.remedy, refused.retry_after_s
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error as a `Problem`, without a trace of the code."""
    handlers: dict[type[Exception], Callable[[Any], Response]] = {
        Refused: problem,
        RequestValidationError: lambda error: _answer(422, _named(error)),
        AgentFarmError: lambda error: _answer(503, error.message, error.remedy),
        HTTPException: _answer_http,
        Exception: _answer_unknown,
    }
    for kind, answer in handlers.items():
        app.add_exception_handler(kind, _handler(answer))


def _handler(answer: Callable[[Any], Response]) -> Any:
    async def handle(_: Request, error: Exception) -> Response:
        return answer(error)

    return handle


def _answer_http(error: HTTPException) -> Response:
    response = _answer(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _answer_unknown(_: Exception) -> Response:
    # This one goes out beside the gate, which adds the headers to all others.
    response = _answer(500, "Something went wrong here; the server's log says what.")
    response.headers.update(SECURITY_HEADERS)
    return response


def _answer(
    status: int,
    detail: str,
    remedy: str | None = None,
    retry_after_s: float | None = None,
) -> Response:
    body = encode({"detail": detail[:_LONGEST], "remedy": remedy})
    response = Response(body, status, media_type="application/json")
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(math.ceil(retry_after_s))
    return response


def _named(error: RequestValidationError) -> str:
    """What is wrong, without repeating the value."""
    found = (
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors()
    )
    return "; ".join(found)
