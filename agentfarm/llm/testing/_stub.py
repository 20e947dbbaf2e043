"""A real TCP server on this machine that speaks both wire formats."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import anyio

from agentfarm.llm._messages import ModelInfo
from agentfarm.llm.testing import _listing
from agentfarm.llm.testing._http import ClientGoneError, Connection, RequestHead
from agentfarm.llm.testing._log import StubRequest, redacted
from agentfarm.llm.testing._play import Play, send_whole
from agentfarm.llm.testing._refusal import error_body
from agentfarm.llm.testing._script import Reply
from agentfarm.llm.testing._wire import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from agentfarm.llm.testing._script import WireName

__all__ = ["StubServer"]

Scripted: TypeAlias = str | Reply
_CHAT: dict[str, WireName] = {
    "/v1/chat/completions": "openai",
    "/api/chat": "ollama",
}


class StubServer:
    """A scripted LLM server on 127.0.0.1, in this process and loop.

    It speaks OpenAI's format (``/v1/chat/completions``, ``/v1/models``,
    ``/health``, ``/props``) and Ollama's (``/api/chat``, ``tags``, ``ps``,
    ``show``, ``pull``, ``version``). Every chunk is a write of its own, stamped
    when it is sent, and a client that leaves is noticed at once.

    Example::

        async with StubServer(Reply("Hi there", gap_s=0.01), "bye") as stub:
            provider = OpenAIProvider(stub.url)
            ...
            assert stub.chats[0].body["temperature"] == 0

    Args:
        replies: What the chat requests get, one each, in order.
        default: What they get when `replies` are used up.
        respond: Decides the reply from the request; wins over both.
        models: Models to offer; a name stands for a `ModelInfo`.
        context_length: Of the context that overflows and truncation report.
        api_key: Refuse requests that do not carry it.
        speaks: Answer 404 for the other format, as real servers do.

    Attributes:
        requests: Every request, oldest first.
        queue, default, models: May be changed at any time.
        ready: Set it to False for 503 ``Loading model`` on every path.
        pull_progress: Lines of the answer to ``/api/pull``; one with ``error``
            ends it.
        pull_gap_s: Wait between them.
        max_active: Most chat requests that were in flight at once.
    """

    def __init__(
        self,
        *replies: Scripted,
        default: Scripted = "ok",
        respond: Callable[[StubRequest], Scripted] | None = None,
        models: Sequence[str | ModelInfo] = ("stub",),
        context_length: int = 2048,
        api_key: str | None = None,
        speaks: Literal["both", "ollama", "openai"] = "both",
    ) -> None:
        self.queue: deque[Scripted] = deque(replies)
        self.default = default
        self.models = [
            ModelInfo(name=model, context_length=context_length, loaded=True)
            if isinstance(model, str)
            else model
            for model in models
        ]
        self.requests: list[StubRequest] = []
        self.ready = True
        self.pull_progress = _listing.default_pull()
        self.pull_gap_s = 0.0
        self.active = 0
        self.max_active = 0
        self._respond = respond
        self._context_length = context_length
        self._api_key = api_key
        self._speaks = speaks
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self._changed: anyio.Event | None = None

    @property
    def port(self) -> int:
        """The port that the system chose.

        Raises:
            RuntimeError: The server is not running.
        """
        if self._server is None:
            raise RuntimeError("The stub is not running: use `async with`, or start.")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def chats(self) -> list[StubRequest]:
        """Requests to the chat endpoints, oldest first."""
        return [request for request in self.requests if request.path in _CHAT]

    async def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._serve, self._tasks), "127.0.0.1", 0
        )
        return self

    async def aclose(self) -> None:
        """Stop listening and cut all connections.

        Raises:
            ExceptionGroup: The stub itself failed on some request.
        """
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._failures:
            raise ExceptionGroup("The stub server failed.", self._failures)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def wait_until(
        self, condition: Callable[[StubServer], bool], *, timeout_s: float = 5.0
    ) -> None:
        """Wait until `condition` holds, e.g. ``lambda stub: stub.active == 2``.

        Checked when a request arrives, headers or a piece are sent, and an answer
        is over.

        Raises:
            TimeoutError: It did not hold in time.
        """
        with anyio.fail_after(timeout_s):
            while not condition(self):
                self._changed = self._changed or anyio.Event()
                await self._changed.wait()

    async def _serve(self, connection: Connection) -> None:
        """Answer the requests of one connection, one after the other."""
        self._connections.add(connection)
        try:
            with suppress(ClientGoneError):
                while await self._answer(connection, await connection.read_request()):
                    pass
        except Exception as error:  # noqa: BLE001  shown to the user by aclose
            self._failures.append(error)
        finally:
            connection.cut()
            self._connections.discard(connection)
            self._tasks.discard(asyncio.current_task())

    async def _answer(self, connection: Connection, head: RequestHead) -> bool:
        record = StubRequest(
            method=head.method,
            path=head.path,
            headers=redacted(head.headers),
            body=json.loads(head.body) if head.body else None,
            received_at=head.received_at,
            client_port=connection.client_port,
            on_change=self._tell,
        )
        self.requests.append(record)
        chat = head.path in _CHAT
        self.active += chat
        self.max_active = max(self.max_active, self.active)
        self._tell()
        try:
            goes_on = await self._dispatch(connection, record, head)
        except ClientGoneError:
            record.end(connection.lost_at)
            raise
        else:
            record.end(None)
            return goes_on
        finally:
            self.active -= chat
            self._tell()

    async def _dispatch(
        self, connection: Connection, record: StubRequest, head: RequestHead
    ) -> bool:
        wire: WireName = "ollama" if head.path.startswith("/api/") else "openai"
        key = head.headers.get("authorization", "").removeprefix("Bearer ")
        refused = self._refused(wire, record, key)
        if refused is not None:
            record.status = refused[0]
            send_whole(connection, error_body(wire, *refused), refused[0])
            return True
        if head.path in _CHAT:
            record.reply = self._next_reply(record)
            fault = record.reply.fault
            if fault is not None and wire not in fault.wires:
                raise ValueError(f"{fault.name} does not exist in {wire}'s format.")
            play = Play(
                connection,
                record,
                record.reply,
                wire,
                context_length=self._context_length,
                key=key,
            )
            return await play.run()
        if head.path == "/api/pull":
            return await self._pull(connection, record)
        record.status = 200
        send_whole(connection, to_json(self._listing(record)))
        return True

    def _refused(
        self, wire: WireName, record: StubRequest, key: str
    ) -> tuple[int, str, str] | None:
        """Why this request gets an error whatever the script says."""
        if not self.ready:
            return 503, "Loading model", "unavailable_error"
        if self._api_key is not None and key != self._api_key:
            return 401, "Invalid API Key", "authentication_error"
        known = record.path in {*_CHAT, "/api/pull"} or self._listing(record)
        spoken = self._speaks in {"both", wire}
        if known and spoken:
            return None
        if spoken and record.path == "/api/show":
            return 404, f"model '{record.body.get('model')}' not found", ""
        return 404, "File Not Found", "not_found_error"

    def _next_reply(self, record: StubRequest) -> Reply:
        if self._respond is not None:
            scripted = self._respond(record)
        else:
            scripted = self.queue.popleft() if self.queue else self.default
        return Reply(scripted) if isinstance(scripted, str) else scripted

    def _listing(self, record: StubRequest) -> dict[str, Any] | None:
        """The answer of an endpoint that describes the server."""
        models = self.models
        if record.path == "/api/show":
            name = str((record.body or {}).get("model", ""))
            model = _listing.find(models, name)
            return None if model is None else _listing.ollama_show(model)
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "/health": lambda: {"status": "ok"},
            "/v1/models": lambda: _listing.openai_models(models),
            "/props": lambda: _listing.props(models),
            "/api/tags": lambda: _listing.ollama_tags(models),
            "/api/ps": lambda: _listing.ollama_ps(models),
            "/api/version": lambda: {"version": "0.0.0-stub"},
        }
        answer = answers.get(record.path)
        return None if answer is None else answer()

    async def _pull(self, connection: Connection, record: StubRequest) -> bool:
        headers = {
            "Content-Type": "application/x-ndjson",
            "Transfer-Encoding": "chunked",
        }
        record.begin(connection.send_head(200, headers))
        for index, line in enumerate(self.pull_progress):
            await connection.pause(self.pull_gap_s if index else 0.0)
            connection.send_chunk(to_json(line) + b"\n")
        connection.send_chunk(b"")
        name = str((record.body or {}).get("model", ""))
        done = self.pull_progress[-1].get("status") == "success"
        if done and _listing.find(self.models, name) is None:
            self.models.append(ModelInfo(name=name))
        return True

    def _tell(self) -> None:
        # Made by whoever waits, so that a chunk costs nothing where nobody does.
        if self._changed is not None:
            self._changed.set()
            self._changed = None
