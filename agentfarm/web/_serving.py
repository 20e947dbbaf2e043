"""From settings to a running server: tokens, socket, runtime, app and uvicorn."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import uvicorn
from anyio import to_thread

from agentfarm.errors import ConfigError
from agentfarm.runtime import open_runtime
from agentfarm.web._access import WILDCARDS, Access, is_loopback
from agentfarm.web._tokens import load_tokens
from agentfarm.web.server import create_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi import FastAPI

    from agentfarm.config import Settings
    from agentfarm.web._tokens import Tokens

__all__ = ["AppServer", "Started", "listen", "serve"]

# Then connections are cut that do not end by themselves.
_GRACE_S = 3
_LARGEST_MESSAGE = 64 * 1024
_KEEP_ALIVE_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """What to tell people about a server that has just started.

    Attributes:
        url: Where to find it.
        needs_token: Whether everybody needs a token.
        made: The tokens, where they were made at this start; None else.
        token_path: Where they are kept.
    """

    url: str
    needs_token: bool
    made: Tokens | None
    token_path: Path


async def serve(settings: Settings, announce: Callable[[Started], object]) -> None:
    """Serve until the process is told to end.

    Args:
        settings: Where to listen and whom to let in is in ``settings.web``.
        announce: Gets told when people can come.

    Raises:
        ConfigError: The address cannot be listened on, or the tokens cannot be used.
        StoreError: The Store cannot be opened.
    """
    web, path = settings.web, settings.web_token_path
    needs_token = Access(web, None).needs_token
    tokens, made = None, False
    if needs_token:
        tokens, made = await to_thread.run_sync(load_tokens, path)
    sock = await to_thread.run_sync(listen, web.host, web.port)
    with contextlib.closing(sock):
        async with open_runtime(settings) as runtime:
            await runtime.sampler()
            app = create_app(runtime, tokens=tokens, follow_store=True)
            url = f"http://{_shown(web.host)}:{sock.getsockname()[1]}/"
            announce(
                Started(
                    url=url,
                    needs_token=needs_token,
                    made=tokens if made else None,
                    token_path=path,
                )
            )
            await AppServer(app, sock).run_until_stopped()


def _shown(host: str) -> str:
    """The address that a person would open, for the one that is listened on."""
    if host in WILDCARDS:
        return _own_address() or "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _own_address() -> str | None:
    """An IPv4 address by which others know this machine."""
    found = (
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family == socket.AF_INET
    )
    return next((each for each in found if not is_loopback(each)), None)


def listen(host: str, port: int) -> socket.socket:
    """Take the address, so that nobody else can.

    Raises:
        ConfigError: It is taken, or it is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as stack:
            made = stack.enter_context(socket.socket(family, kind, protocol))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(2048)
            stack.pop_all()
            return made
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"The server cannot listen on {host}, port {port}: {error.strerror}.",
            remedy="Another program, perhaps another `agentfarm serve`, listens there: "
            "stop it, or choose another one with --port."
            if taken
            else "Use an address of this machine: agentfarm serve --host ADDRESS",
        ) from error


class AppServer(uvicorn.Server):
    """Serves an app on a socket that listens already.

    Args:
        app: What `create_app` made.
        sock: Where; see `listen`. It is closed at the end.
    """

    def __init__(self, app: FastAPI, sock: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                # Its lines would show tokens, which stand in addresses once.
                access_log=False,
                log_level="warning",
                log_config=None,
                # What a proxy says of a client is not to be believed by default.
                proxy_headers=False,
                server_header=False,
                ws_max_size=_LARGEST_MESSAGE,
                # Compressing each message anew for each client would cost the most.
                ws_per_message_deflate=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._sock = sock

    async def run_until_stopped(self) -> None:
        """Serve until `should_exit` is set or the process is told to end."""
        with contextlib.closing(self._sock):
            await self.serve(sockets=[self._sock])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the wish to stop, and nothing more.

        uvicorn raises them again at its end, when others have not closed yet.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
