"""Who may ask for what: decided from the head of a request, HTTP or WebSocket alike."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from agentfarm.web._limits import RateLimit, client_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope

    from agentfarm.config import WebSettings
    from agentfarm.web._tokens import Role, Tokens

__all__ = ["OPEN_PATHS", "WILDCARDS", "Access", "Head", "Refused", "is_loopback"]

# Says nothing but that the server runs, so that a probe needs no token.
OPEN_PATHS = frozenset({"/healthz"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>\d{1,5}))?")
_FORWARDED = (b"forwarded", b"x-forwarded-for")
WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound
# A burst is what a page with all its parts, or a script's loop, asks at once.
_BURST_S = 10.0
_WRONG_TOKENS = 10
_WRONG_TOKENS_PER_S = 1 / 6


class Refused(Exception):
    """A request that goes no further.

    Attributes:
        status: HTTP status of the answer.
        detail, remedy: For people.
        retry_after_s: When to try again, where that helps.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        remedy: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.remedy = remedy
        self.retry_after_s = retry_after_s


class Head:
    """What is known of a request before its body.

    Raises:
        Refused: A header that decides is there twice, or the host cannot be read.
    """

    def __init__(self, scope: Scope) -> None:
        self.path: str = scope["path"]
        self.is_websocket = scope["type"] == "websocket"
        self.method: str = "GET" if self.is_websocket else scope["method"]
        self.client: str = (scope.get("client") or ("",))[0]
        self.server: str = (scope.get("server") or ("",))[0]
        self._headers: dict[bytes, list[bytes]] = {}
        pairs: Iterable[tuple[bytes, bytes]] = scope["headers"]
        for name, value in pairs:
            self._headers.setdefault(name.lower(), []).append(value)
        query: bytes = scope["query_string"]
        self.query = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        self.host = (self.one(b"host") or b"").decode("latin-1").lower()
        match = _HOST.fullmatch(self.host)
        if match is None:
            raise Refused(400, "The request names no valid host.")
        self.host_name = match["name"].strip("[]")
        self.cookie_name = f"agentfarm-{match['port'] or 80}"

    def one(self, name: bytes) -> bytes | None:
        """The value of a header that may be there once."""
        values = self._headers.get(name, [])
        if len(values) > 1:
            raise Refused(400, f"The header {name.decode()} is there twice.")
        return values[0] if values else None

    @property
    def is_local(self) -> bool:
        """Whether both ends are on this machine, with no proxy between them."""
        forwarded = any(name in self._headers for name in _FORWARDED)
        return not forwarded and not any(map(_is_remote, (self.client, self.server)))

    def bearer(self) -> bytes | None:
        """The token of the ``Authorization`` header, else that of our cookie."""
        scheme, _, token = (self.one(b"authorization") or b"").partition(b" ")
        if scheme.lower() == b"bearer":
            return token.strip()
        ours = self.cookie_name.encode() + b"="
        for cookies in self._headers.get(b"cookie", ()):
            for cookie in cookies.split(b";"):
                if cookie.strip().startswith(ours):
                    return cookie.strip().removeprefix(ours)
        return None

    def link_token(self) -> bytes | None:
        """The token in the address of a page, as `agentfarm serve` shows it."""
        if self.is_websocket or self.method != "GET":
            return None
        for name, value in self.query:
            if name == "token":
                return value.encode("utf-8", "surrogatepass")
        return None


class Access:
    """The rules of one server.

    Args:
        web: Where it listens and what it allows.
        tokens: Its tokens; None for a server that needs none.
    """

    def __init__(self, web: WebSettings, tokens: Tokens | None) -> None:
        self.tokens = tokens
        self.max_body_bytes = web.max_body_bytes
        # Who gives the server a name has others in mind than this machine.
        self.needs_token = web.require_token or not all(
            map(is_loopback, (web.host, *web.allowed_hosts))
        )
        self._any_address = web.host in WILDCARDS
        self._names = {
            "localhost",
            web.host.lower(),
            *map(str.lower, web.allowed_hosts),
        }
        self._rate = None
        if web.requests_per_s is not None:
            self._rate = RateLimit(web.requests_per_s, web.requests_per_s * _BURST_S)
        self._wrong = RateLimit(_WRONG_TOKENS_PER_S, _WRONG_TOKENS)

    def admit(self, head: Head) -> bytes | None:
        """Let a request in, or not.

        Returns:
            The token in the page's address, where it was needed: it belongs in a
            cookie.

        Raises:
            Refused: The sender may not do this.
        """
        self._check_rate(head)
        self._check_host(head)
        self._check_origin(head)
        open_to_all = head.path in OPEN_PATHS and head.method in _READING
        if open_to_all or (not self.needs_token and head.is_local):
            return None
        linked = head.link_token()
        role = self._role(head, linked or head.bearer())
        if role != "operator" and head.method not in _READING:
            raise Refused(
                403,
                "This token may only read.",
                remedy="Use the operator token to start or interrupt workflows.",
            )
        return linked

    def _check_rate(self, head: Head) -> None:
        wait_s = self._rate.take(client_key(head.client)) if self._rate else 0.0
        if wait_s:
            raise Refused(
                429,
                "Too many requests from this address.",
                remedy="Ask less often, or raise AGENTFARM_WEB__REQUESTS_PER_S.",
                retry_after_s=wait_s,
            )

    def _check_host(self, head: Head) -> None:
        """Refuse names that a stranger's DNS may have pointed at this machine."""
        name = head.host_name
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            allowed = name in self._names
        else:
            allowed = (
                self._any_address
                or address.is_loopback
                or name in self._names
                or name == head.server
            )
        if not allowed:
            raise Refused(
                421,
                "This server does not answer under that name.",
                remedy="Add the name to AGENTFARM_WEB__ALLOWED_HOSTS.",
            )

    def _check_origin(self, head: Head) -> None:
        """Refuse what a page from elsewhere makes a browser send."""
        origin = head.one(b"origin")
        if origin is not None and not _is_from(origin, head.host):
            raise Refused(403, "Pages of other origins may not use this server.")
        navigates = head.one(b"sec-fetch-mode") == b"navigate" and head.method == "GET"
        if head.one(b"sec-fetch-site") == b"cross-site" and not navigates:
            raise Refused(403, "Pages of other sites may not use this server.")

    def _role(self, head: Head, given: bytes | None) -> Role:
        if self.tokens is None:
            raise Refused(
                403,
                "This server answers its own machine only.",
                remedy="Start it with `agentfarm serve --host ADDRESS`.",
            )
        if not given:
            raise Refused(
                401,
                "This server needs a token.",
                remedy="Open the address that `agentfarm serve` showed at its first "
                "start, or send `Authorization: Bearer TOKEN`.",
            )
        client = client_key(head.client)
        if wait_s := self._wrong.wait_s(client):
            raise Refused(
                429, "Too many wrong tokens from this address.", retry_after_s=wait_s
            )
        role = self.tokens.role(given)
        if role is None:
            self._wrong.take(client)
            raise Refused(
                401, "The token is wrong.", remedy="It is in the server's token file."
            )
        return role


def is_loopback(address: str) -> bool:
    """Whether an address or name is this machine's own, without asking DNS."""
    if address == "localhost":
        return True
    try:
        return _unmapped(address).is_loopback
    except ValueError:
        return False


def _is_remote(address: str) -> bool:
    """Whether one end of a connection is another machine's.

    What is no address, such as a Unix socket's or an in-process client's, is not.
    """
    try:
        return not _unmapped(address).is_loopback
    except ValueError:
        return False


def _unmapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _is_from(origin: bytes, host: str) -> bool:
    try:
        parts = urlsplit(origin.decode("ascii").lower())
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc == host
