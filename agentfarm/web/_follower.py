"""What other processes measured, taken from the Store into this one's statistics."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from agentfarm.errors import StoreError
from agentfarm.events import EventType, RequestRecord

if TYPE_CHECKING:
    from agentfarm.events import Event
    from agentfarm.runtime import Runtime
    from agentfarm.web._metrics import Metrics
    from agentfarm.web._performance import PerformanceFeed

__all__ = ["StoreFollower"]

_log = logging.getLogger("agentfarm.web")

# A request is found by its start and appears at its end: so long may it take.
_LONGEST_REQUEST_S = 3600.0


class StoreFollower:
    """Counts the requests of other processes too, a few seconds late.

    It begins with the newest ones in the Store, as many as the tracker's window
    holds, so that a server which was just started has something to show.

    Args:
        runtime: Its tracker gets the requests; its own are counted already.
        performance: Is told of each.
        metrics: Is told of those that end from now on.
        interval_s: How often the Store is asked.
    """

    def __init__(
        self,
        runtime: Runtime,
        performance: PerformanceFeed,
        metrics: Metrics,
        *,
        interval_s: float = 3.0,
    ) -> None:
        self._runtime = runtime
        self._performance = performance
        self._metrics = metrics
        self._interval_s = interval_s
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._since: float | None = None
        self._subscription = runtime.bus.on(
            self._see,
            EventType.LLM_RESPONSE,
            EventType.LLM_ERROR,
            name="web store follower",
        )

    async def run(self) -> None:
        """Follow the Store until cancelled."""
        try:
            while True:
                await self._take_new()
                await anyio.sleep(self._interval_s)
        finally:
            self._subscription.close()

    async def _take_new(self) -> None:
        store, window = self._runtime.store, self._runtime.tracker.window
        read = partial(store.requests, since=self._since, limit=window)
        try:
            found = await to_thread.run_sync(read)
        except StoreError as error:
            _log.warning("Requests of other processes cannot be read: %s", error)
            return
        is_first, self._since = self._since is None, time.time() - _LONGEST_REQUEST_S
        for record in found:
            if self._is_new(record.request_id):
                self._runtime.tracker.record(record)
                self._performance.note(record)
                if not is_first:
                    self._metrics.observe(record)

    def _see(self, event: Event) -> None:
        record = event.data.get("record")
        if isinstance(record, RequestRecord):
            self._is_new(record.request_id)

    def _is_new(self, request_id: str) -> bool:
        """Whether it was not counted yet; from now on it is."""
        if request_id in self._seen:
            return False
        self._seen[request_id] = None
        while len(self._seen) > 4 * self._runtime.tracker.window:
            self._seen.popitem(last=False)
        return True
