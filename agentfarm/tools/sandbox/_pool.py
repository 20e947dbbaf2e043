"""Containers that are ready before they are needed, each for one run."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from agentfarm.errors import AgentFarmError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentfarm.tools.sandbox._container import Container


class Pool:
    """Up to `size` ready containers, made anew in the background.

    Args:
        make: Makes one; blocks until it is ready.
        size: How many to keep; 0 keeps none.
    """

    def __init__(self, make: Callable[[], Container], size: int) -> None:
        self._make = make
        self._size = size
        self._lock = threading.Lock()
        self._ready: deque[Container] = deque()
        self._filling: threading.Thread | None = None
        self._closed = False

    def take(self, needed_until: float) -> Container | None:
        """A ready container that lives until then (epoch seconds), or None.

        Nobody else ever gets it. The pool begins to make the next one.
        """
        while True:
            with self._lock:
                container = self._ready.popleft() if self._ready else None
            self.fill()
            if container is None:
                return None
            if container.expires_at > needed_until and container.is_waiting():
                return container
            container.end()

    def fill(self) -> None:
        """Begin to make what is missing, unless that is under way."""
        with self._lock:
            if self._filling is None and not self._is_full():
                self._filling = threading.Thread(
                    target=self._fill, name="agentfarm-sandbox-pool", daemon=True
                )
                self._filling.start()

    def wait_full(self) -> None:
        """Wait until the filling that is under way has ended."""
        filling = self._filling
        if filling is not None:
            filling.join()

    def close(self) -> None:
        """End every ready container, and the one being made when it is ready."""
        with self._lock:
            self._closed = True
            ready, self._ready = self._ready, deque()
        for container in ready:
            container.end()
        self.wait_full()

    def _is_full(self) -> bool:
        return self._closed or len(self._ready) >= self._size

    def _fill(self) -> None:
        while True:
            with self._lock:
                if self._is_full():
                    self._filling = None
                    return
            try:
                container = self._make()
            except AgentFarmError:
                # The next run meets the same trouble and says so.
                with self._lock:
                    self._filling = None
                return
            with self._lock:
                if not self._closed:
                    self._ready.append(container)
                    continue
            container.end()
