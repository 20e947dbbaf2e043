"""Blocking runs in threads of their own, awaited, bounded in number and interruptible."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Stopped(Exception):  # a signal, not an error
    """The caller has gone; the run ends here."""


class Stop:
    """Tells a thread, from outside, to come to an end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: list[Callable[[], None]] = []
        self._stopped = False

    def now(self) -> None:
        """Stop; calls every action that was left with `on_stop`, once."""
        with self._lock:
            self._stopped = True
            actions, self._actions = self._actions, []
        for action in actions:
            action()

    def on_stop(self, action: Callable[[], None]) -> None:
        """Have `action` called at the stop.

        Raises:
            Stopped: It has come already.
        """
        with self._lock:
            if self._stopped:
                raise Stopped
            self._actions.append(action)

    @property
    def stopped(self) -> bool:
        """Whether the stop has come."""
        return self._stopped


class Slots:
    """How many runs go on at once; the others wait for their turn."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._turn = threading.Condition()

    def acquire(self, stop: Stop) -> None:
        """Wait for a free slot.

        Raises:
            Stopped: The stop came first.
        """
        stop.on_stop(self._wake)
        with self._turn:
            self._turn.wait_for(lambda: self._free > 0 or stop.stopped)
            if stop.stopped:
                raise Stopped
            self._free -= 1

    def release(self) -> None:
        """Give a slot back."""
        with self._turn:
            self._free += 1
            self._turn.notify_all()

    def _wake(self) -> None:
        with self._turn:
            self._turn.notify_all()


async def in_thread(work: Callable[[Stop], T], name: str) -> T:
    """Await `work` in a daemon thread; a cancellation stops it and waits for its end.

    The thread is a daemon, so that a run in progress never keeps a dying
    interpreter alive, and belongs to no event loop.
    """
    stop, done = Stop(), Future[T]()

    def target() -> None:
        try:
            done.set_result(work(stop))
        except BaseException as error:  # noqa: BLE001 - the awaiting side raises it
            done.set_exception(error)

    threading.Thread(target=target, name=name, daemon=True).start()
    ended = asyncio.wrap_future(done)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        stop.now()
        await _settled(ended)
        raise


async def _settled(future: asyncio.Future[T]) -> None:
    """Wait for the end, even where the caller is cancelled again and again."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    future.exception()
