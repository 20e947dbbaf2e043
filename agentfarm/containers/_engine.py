"""A Docker engine, connected at the first use, whose failures are ours."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from agentfarm.containers import _failures
from agentfarm.containers._info import EngineInfo, read_info

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType

DEFAULT_URL = "unix:///var/run/docker.sock"

_CONNECTIONS = 64  # kept open for threads; one that attaches holds one for its run
_GONE = 404
_CONFLICT = 409


class Engine:
    """The way to a Docker engine; cheap to make, safe to share between threads.

    It connects at the first use, and anew at the first use after `close`.

    Args:
        url: ``unix:///path``, or ``tcp://host:port`` without TLS; the engine's own
            socket if None.
        timeout_s: Longest wait for an answer, in seconds.
    """

    def __init__(self, url: str | None = None, *, timeout_s: float = 30.0) -> None:
        self._address = _normal(url or DEFAULT_URL)
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: Any = None

    def __repr__(self) -> str:
        return f"Engine({self.url!r})"

    @property
    def url(self) -> str:
        """The engine's address, without credentials."""
        return _failures.without_credentials(self._address)

    @property
    def socket_path(self) -> str | None:
        """The engine's Unix socket; None where it is reached otherwise."""
        scheme, _, path = self._address.partition("://")
        return path if scheme == "unix" else None

    @property
    def api(self) -> Any:
        """The SDK's `docker.APIClient`; use it within `calls`.

        Raises:
            SandboxUnavailable: The SDK is not installed, or the engine is not
                there, not allowed, or does not answer.
        """
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        try:
            from docker.api import APIClient
        except ImportError as error:
            raise _failures.sdk_missing(error) from error
        self._knock()
        try:
            return APIClient(
                base_url=self._address,
                version="auto",
                timeout=self.timeout_s,
                max_pool_size=_CONNECTIONS,
            )
        except _failures.vendor_errors() as error:
            raise _failures.connecting(error, self.url, self.timeout_s) from error

    def _knock(self) -> None:
        """See whether a Unix socket can be connected to; the SDK leaks one if not."""
        if self.socket_path is None:
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(self.timeout_s)
            try:
                probe.connect(self.socket_path)
            except OSError as error:
                raise _failures.connecting(error, self.url, self.timeout_s) from error

    @contextmanager
    def calls(self, what: str, *, ignore: Collection[int] = ()) -> Iterator[Any]:
        """Wrap requests so that only our errors come out.

        ``with engine.calls("start a container") as api: api.start(container)``

        Args:
            what: What is tried, a verb and its object, for the message.
            ignore: HTTP statuses that are no failure: they end the block.

        Yields:
            The SDK's client.

        Raises:
            SandboxUnavailable: The engine cannot be reached, or has no such image.
            SandboxTimeout: It did not answer in time.
            SandboxError: It refused.
        """
        api = self.api
        try:
            yield api
        except _failures.vendor_errors() as error:
            if _failures.status_of(error) not in ignore:
                raise _failures.calling(
                    error, what, self.url, self.timeout_s
                ) from error

    def info(self) -> EngineInfo:
        """Ask the engine what it is and what it can do.

        Raises:
            SandboxUnavailable: It cannot be reached.
            SandboxTimeout: It did not answer in time.
        """
        with self.calls("read what it can do") as api:
            info, version = api.info(), api.version()
        return read_info(self.url, self.socket_path, info, version)

    def kill(self, container_id: str) -> bool:
        """Kill a container; one that is gone or not running is done already.

        Returns:
            Whether it was running.

        Raises:
            SandboxError: The engine refused, is gone or did not answer.
        """
        what = f"kill the container {container_id}"
        with self.calls(what, ignore=(_GONE, _CONFLICT)) as api:
            api.kill(container_id)
            return True
        return False

    def remove_container(self, container_id: str) -> bool:
        """Kill and remove a container and its nameless volumes; returns when gone.

        Returns:
            Whether this call removed it; False where it was gone, or where someone
            else was at it, e.g. the engine for ``auto_remove``.

        Raises:
            SandboxError: The engine refused, is gone or did not answer.
        """
        what = f"remove the container {container_id}"
        with self.calls(what, ignore=(_GONE, _CONFLICT)) as api:
            api.remove_container(container_id, force=True, v=True)
            return True
        # A conflict is a removal under way: its volumes are in use until it ends.
        with self.calls(what, ignore=(_GONE,)) as api:
            api.wait(container_id, condition="removed", timeout=self.timeout_s)
        return False

    def remove_volume(self, name: str) -> bool:
        """Remove a volume; one that is gone or in use is left.

        Returns:
            Whether this call removed it.

        Raises:
            SandboxError: The engine refused, is gone or did not answer.
        """
        what = f"remove the volume {name}"
        with self.calls(what, ignore=(_GONE, _CONFLICT)) as api:
            api.remove_volume(name)
            return True
        return False

    def remove_network(self, network_id: str) -> bool:
        """Remove a network; one that is gone or in use is left.

        Returns:
            Whether this call removed it.

        Raises:
            SandboxError: The engine refused, is gone or did not answer.
        """
        what = f"remove the network {network_id}"
        # 403 is what engines say of a network that has a container.
        with self.calls(what, ignore=(403, _GONE, _CONFLICT)) as api:
            api.remove_network(network_id)
            return True
        return False

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _normal(url: str) -> str:
    """Give a Unix socket its one form, ``unix:///path``; leave other addresses."""
    if url.startswith("/"):
        return f"unix://{url}"
    parts = urlsplit(url)
    if parts.scheme not in {"unix", "http+unix"}:
        return url
    path = PurePosixPath("/", f"{parts.netloc}{unquote(parts.path)}".lstrip("/"))
    return f"unix://{path}"
