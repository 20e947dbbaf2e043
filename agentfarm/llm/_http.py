"""HTTP to LLM servers: connections, the phases of a request, and their limits.

The only module that knows httpx, so that another client can take its place.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import msgspec

from agentfarm.config import TimeoutSettings
from agentfarm.errors import ProviderError, ProviderTimeout
from agentfarm.llm._http_errors import Origin, shorten, status_error, timeout_error
from agentfarm.llm._watch import StreamWatch

if TYPE_CHECKING:
    from agentfarm.llm._clock import StreamClock

_LONGEST_LINE_BYTES = 64 * 2**20
_LONGEST_ERROR_BYTES = 64 * 2**10
_DRAIN_S = 0.05
# llama.cpp closes a connection that was idle for 5 s; leave before it does.
_KEEPALIVE_S = 4.0


class HttpHost:
    """One LLM server: opens requests on kept-alive connections.

    Proxies from the environment are used for https only: a model on this machine
    or on the local network must not be looked for behind a proxy.

    Args:
        origin: Whom errors are about.
        headers: Sent with every request.
        auth: User and password from the URL.
        timeouts: Limits of a request that brings none of its own.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeouts: TimeoutSettings,
    ) -> None:
        self.origin = origin
        self.timeouts = timeouts
        # A compressed stream is held back until a block is full.
        self._headers = {"Accept-Encoding": "identity", **(headers or {})}
        self._auth = auth
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def client(self) -> httpx.AsyncClient:
        """The client of the running loop; connections belong to one loop.

        Making the first one takes 0.1 s: call this before a clock starts.
        """
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            encrypted = self.origin.host.startswith("https")
            self._client = httpx.AsyncClient(
                headers=self._headers,
                auth=self._auth,
                trust_env=encrypted,
                # Reading the certificates takes 20 ms that plain http can save.
                verify=encrypted,
                limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_S),
            )
            self._loop = loop
            _load_backend()
        return self._client

    async def open(
        self,
        url: str,
        body: Any,
        *,
        clock: StreamClock,
        timeouts: TimeoutSettings | None = None,
        model: str | None = None,
    ) -> StreamedReply:
        """Post `body` as JSON and wait for the headers of a streamed answer.

        Close what is returned, in a `finally`.

        Raises:
            ProviderError: Or the leaf that fits; no connection stays open.
        """
        limits = timeouts or self.timeouts
        response = await self._send(url, body, limits, clock.origin, model=model)
        reply = StreamedReply(
            response, origin=self.origin, clock=clock, limits=limits, model=model
        )
        if response.is_success:
            return reply
        try:
            raise await reply.refusal()
        finally:
            await reply.aclose()

    async def _send(
        self,
        url: str,
        body: Any,
        limits: TimeoutSettings,
        started: float,
        *,
        model: str | None = None,
    ) -> httpx.Response:
        """Send a request; return when the headers of its answer are there."""
        client = self.client()
        request = client.build_request(
            "GET" if body is None else "POST",
            url,
            content=None if body is None else msgspec.json.encode(body),
            headers=None if body is None else {"Content-Type": "application/json"},
            timeout=httpx.Timeout(None, connect=limits.connect_s),
        )
        phase, limit_s = _first_limit(limits)
        try:
            async with asyncio.timeout(
                None if limit_s is None else limit_s - (time.perf_counter() - started)
            ):
                return await _send_anew(client, request)
        except TimeoutError:
            raise self._timeout(phase, limit_s, model) from None
        except httpx.ConnectTimeout:
            raise self._timeout("connect", limits.connect_s, model) from None
        except httpx.ConnectError as error:
            raise self.origin.error(
                ProviderError,
                f"Cannot connect to {self.origin.host}: {_cause(error)}.",
                model=model,
                remedy=self.origin.start_remedy,
                retryable=True,
            ) from error
        except httpx.HTTPError as error:
            raise self.origin.error(
                ProviderError,
                f"{self.origin.host} closed the connection before it answered "
                f"({_cause(error)}).",
                model=model,
                remedy="Look into the server's log.",
                retryable=True,
            ) from None  # httpx's own text may quote a header

    def _timeout(
        self, phase: str, limit_s: float | None, model: str | None
    ) -> ProviderTimeout:
        return timeout_error(self.origin, phase, limit_s or 0.0, model=model)

    async def ask(
        self, url: str, body: Any = None, *, timeout_s: float | None = 10.0
    ) -> Any:
        """Decoded JSON of a GET, or of a POST where there is a `body`.

        Raises:
            ProviderError: No answer, not 2xx, or not JSON.
        """
        started = time.perf_counter()
        limits = TimeoutSettings(
            connect_s=self.timeouts.connect_s, first_token_s=None, total_s=timeout_s
        )
        response = await self._send(url, body, limits, started)
        try:
            async with asyncio.timeout(timeout_s):
                content = await response.aread()
        except TimeoutError:
            raise self._timeout("total", timeout_s, None) from None
        except httpx.HTTPError as error:
            raise self.origin.error(
                ProviderError,
                f"{self.origin.host} broke off its answer: {_cause(error)}.",
                retryable=True,
            ) from None
        finally:
            await response.aclose()
        if not response.is_success:
            raise status_error(
                self.origin, response.status_code, response.headers, content
            )
        try:
            return msgspec.json.decode(content) if content else None
        except msgspec.DecodeError:
            raise self.origin.error(
                ProviderError,
                f"{url} answered something that is not JSON: {shorten(content)!r}.",
                status_code=response.status_code,
                remedy=f"Is this really a server of kind {self.origin.kind!r}?",
            ) from None

    async def aclose(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()


class StreamedReply:
    """The body of an answer, line by line, each stamped as it left the socket.

    It is read as fast as the consumer takes it, so a consumer that pauses between
    chunks delays the stamps of what follows, but never that of the first token.

    Attributes:
        at: `time.perf_counter()` when the last lines arrived.
        beat: Set it after each token: the inter-token limit then starts anew.
        ended: Whether the last line came without a newline, at the end.
        is_json: Whether the server sends one JSON document and not a stream.
    """

    def __init__(
        self,
        response: httpx.Response,
        *,
        origin: Origin,
        clock: StreamClock,
        limits: TimeoutSettings,
        model: str | None,
    ) -> None:
        self.at = time.perf_counter()
        self.beat = False
        self.ended = False
        media = response.headers.get("content-type", "").partition(";")[0].strip()
        self.is_json = media.lower() == "application/json"
        self._response = response
        self._origin = origin
        self._clock = clock
        self._model = model
        encoding = response.headers.get("content-encoding", "identity").lower()
        raw = encoding in ("", "identity")
        self._body = response.aiter_raw() if raw else response.aiter_bytes()
        self._next = self._body.__anext__
        self._tail = b""
        self._watch = StreamWatch(limits, clock.origin, lambda: _cut(response))

    async def read(self) -> list[bytes] | None:
        """Wait for more whole lines, without their newline; None at the end.

        Splitting bytes at newlines cuts no UTF-8 character.

        Raises:
            ProviderTimeout: No token, or not the whole answer, came in time.
            ProviderError: The connection broke. Both carry the partial text.
        """
        watch = self._watch
        if self.beat:
            self.beat = False
            watch.restart(time.perf_counter())
        watch.waiting = True
        try:
            data = await self._next()
        except StopAsyncIteration:
            if watch.expired:
                raise self._expired() from None
            self.ended = True
            rest, self._tail = self._tail, b""
            return [rest] if rest else None
        except httpx.HTTPError as error:
            if watch.expired:
                raise self._expired() from None
            raise self.cut(_cause(error)) from error
        finally:
            self.at = time.perf_counter()
            watch.waiting = False
        lines = (self._tail + data if self._tail else data).split(b"\n")
        self._tail = lines.pop()
        if len(self._tail) > _LONGEST_LINE_BYTES:
            raise self.failure("sent a line without end")
        return lines

    async def read_whole(self, limit_bytes: int = _LONGEST_LINE_BYTES) -> bytes:
        """The rest of the body, for an answer that is no stream."""
        parts: list[bytes] = []
        size = 0
        while (lines := await self.read()) is not None and size < limit_bytes:
            parts += lines
            size += sum(map(len, lines))
        return b"\n".join(parts)

    async def refusal(self) -> ProviderError:
        """The error for an answer that is not 2xx; reads its body."""
        status, headers = self._response.status_code, self._response.headers
        try:
            body = await self.read_whole(_LONGEST_ERROR_BYTES)
        except ProviderError:
            body = b""
        return status_error(self._origin, status, headers, body, model=self._model)

    async def drain(self) -> None:
        """Read past the last line, so that the connection can be used again.

        The end is normally here already; a server that dawdles is cut off.
        """
        with suppress(StopAsyncIteration, TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(_DRAIN_S):
                while True:
                    await self._next()

    async def aclose(self) -> None:
        """Let go of the connection: closes it at once where the answer goes on."""
        self._watch.stop()
        # The server must see the disconnect also where the consumer is cancelled.
        with anyio.CancelScope(shield=True), suppress(httpx.HTTPError, OSError):
            await self._response.aclose()

    def cut(self, detail: str = "") -> ProviderError:
        """The error for an answer without its end."""
        detail = f" ({detail})" if detail else ""
        return self.failure(
            f"cut the answer off after {self._clock.chunks} chunks{detail}",
            retryable=True,
            remedy="Look into the server's log; the partial text is kept.",
        )

    def failure(
        self, did: str, *, retryable: bool = False, remedy: str | None = None
    ) -> ProviderError:
        """An error that says what the server `did`, with the partial text."""
        return self._origin.error(
            ProviderError,
            f"{self._origin.host} {did}.",
            model=self._model,
            remedy=remedy,
            retryable=retryable,
            partial_text=self._clock.partial_text,
        )

    def _expired(self) -> ProviderTimeout:
        assert self._watch.expired  # noqa: S101  callers have looked
        phase, limit_s = self._watch.expired
        return timeout_error(
            self._origin,
            phase,
            limit_s,
            model=self._model,
            partial_text=self._clock.partial_text,
        )


def _load_backend() -> None:
    """Import now what anyio imports at the first connection, in 40 ms."""
    anyio.current_effective_deadline()
    getattr(anyio, "connect_tcp")  # noqa: B009  it loads when it is looked at
    for name in ("anyio.streams.tls", "anyio.to_thread"):
        import_module(name)


async def _send_anew(
    client: httpx.AsyncClient, request: httpx.Request
) -> httpx.Response:
    """Send; again where a kept connection turns out to have ended.

    A server may close an idle connection at the very moment it is used again, and
    llama.cpp does so at times. Nothing was answered then, so the request is sent
    on another connection, and in the end on a new one, whose failure counts.
    """
    while True:
        connected = False

        async def trace(event: str, _info: object) -> None:
            nonlocal connected
            connected = connected or event.startswith("connection.connect_tcp")

        request.extensions["trace"] = trace
        try:
            return await client.send(request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if connected:
                raise


def _first_limit(limits: TimeoutSettings) -> tuple[str, float | None]:
    """The phase that ends first while no token has come, and its limit."""
    first_s, total_s = limits.first_token_s, limits.total_s
    if total_s is not None and (first_s is None or total_s < first_s):
        return "total", total_s
    return "first token", first_s


def _cut(response: httpx.Response) -> None:
    """Shut the socket below `response`: a read that waits on it ends at once."""
    stream = response.extensions.get("network_stream")
    sock = None if stream is None else stream.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _cause(error: BaseException) -> str:
    """The deepest cause in words, e.g. "Connection refused"."""
    # httpcore drops the chain for a broken read and keeps the cause as an argument.
    while below := error.__cause__ or next(
        (arg for arg in error.args if isinstance(arg, BaseException)), None
    ):
        error = below
    if isinstance(error, BaseExceptionGroup):
        return _cause(error.exceptions[0])
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    text = error.strerror if isinstance(error, OSError) and error.strerror else ""
    return shorten(text or str(error) or type(error).__name__).rstrip(".")
