"""The built-in pages: a few files, read once, so that no path leads elsewhere."""

from __future__ import annotations

from functools import partial
from importlib import resources
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from agentfarm.web._answers import REVALIDATE, is_current, tag_of

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["page_routes"]

_FILES = {
    "/": ("page.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/static/page.css": ("page.css", "text/css"),
    "/static/page.js": ("page.js", "text/javascript"),
    "/static/docs.js": ("docs.js", "text/javascript"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}


def page_routes() -> list[Route]:
    """The routes of the pages and of what they load."""
    folder = resources.files("agentfarm.web") / "static"
    return [
        Route(
            path,
            partial(_answer, content=(folder / name).read_bytes(), media_type=kind),
            methods=["GET"],
            include_in_schema=False,
        )
        for path, (name, kind) in _FILES.items()
    ]


async def _answer(request: Request, *, content: bytes, media_type: str) -> Response:
    tag = tag_of(content)
    headers = {"ETag": tag, "Cache-Control": REVALIDATE}
    if is_current(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
