"""The gate before every request: refuses, limits bodies, adds security headers."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import anyio

from agentfarm.web._access import Access, Head, Refused

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SECURITY_HEADERS", "Gate"]

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ENCODED = [
    (name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()
]
# Slower than any honest client sends what we take at most.
_BODY_S = 30.0
_Headers = list[tuple[bytes, bytes]]


class Gate:
    """Middleware that lets in what `access` admits.

    Args:
        app: What it guards.
        access: The rules.
    """

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        try:
            head = Head(scope)
            token = self._access.admit(head)
            body = await self._body(head, receive)
        except Refused as refused:
            await _answer(scope, send, refused.status, *_refusal(refused))
            return
        if token is not None:
            headers = _to_cookie(head, token, scope.get("scheme") == "https")
            await _answer(scope, send, 303, b"", headers)
            return
        await self._app(scope, _replayed(body, receive), _guarded(send))

    async def _body(self, head: Head, receive: Receive) -> bytes | None:
        """The whole body of an HTTP request; None where there is none to read.

        Raises:
            Refused: It is too large or too slow.
        """
        length = head.one(b"content-length")
        if head.is_websocket or (length is None and not head.one(b"transfer-encoding")):
            return None
        limit = self._access.max_body_bytes
        too_large = Refused(413, f"The body is larger than {limit} bytes.")
        if length is not None and (not length.isdigit() or int(length) > limit):
            raise too_large
        parts: list[bytes] = []
        size = 0
        with anyio.move_on_after(_BODY_S) as waiting:
            while True:
                message = await receive()
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
                if not message.get("more_body", False):
                    break
        if waiting.cancelled_caught:
            raise Refused(408, "The body did not arrive in time.")
        return b"".join(parts)


def _replayed(body: bytes | None, receive: Receive) -> Receive:
    """`receive` for the app, which gets the body that was read already."""
    if body is None:
        return receive
    waiting: list[Message] = [
        {"type": "http.request", "body": body, "more_body": False}
    ]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _guarded(send: Send) -> Send:
    """`send` that adds the security headers, unless the app set them itself."""

    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            headers: _Headers = list(message.get("headers", ()))
            there = {name.lower() for name, _ in headers}
            headers += [pair for pair in _ENCODED if pair[0] not in there]
            message["headers"] = headers
        await send(message)

    return guarded


def _refusal(refused: Refused) -> tuple[bytes, _Headers]:
    headers = [(b"content-type", b"application/json")]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.retry_after_s is not None:
        seconds = str(math.ceil(refused.retry_after_s)).encode()
        headers.append((b"retry-after", seconds))
    content = {"detail": refused.detail, "remedy": refused.remedy}
    return json.dumps(content).encode(), headers


def _to_cookie(head: Head, token: bytes, secure: bool) -> _Headers:
    """Headers that put a link's token into a cookie and lead to the bare address."""
    # One slash at the beginning: two would lead to another host.
    path = "/" + quote(head.path.lstrip("/\\"), safe="/")
    rest = urlencode([(name, value) for name, value in head.query if name != "token"])
    cookie = f"{head.cookie_name}={token.decode()}; Path=/; HttpOnly; SameSite=Strict"
    return [
        (b"location", f"{path}?{rest}".rstrip("?").encode()),
        (b"set-cookie", (cookie + ("; Secure" if secure else "")).encode()),
    ]


async def _answer(
    scope: Scope, send: Send, status: int, body: bytes, headers: _Headers
) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await _guarded(send)(
        {"type": f"{kind}.start", "status": status, "headers": headers}
    )
    await send({"type": f"{kind}.body", "body": body})
