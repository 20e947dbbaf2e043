"""A lock between processes that the kernel frees when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["file_lock", "open_lock", "try_lock"]

_POLL_S = 0.05


@contextmanager
def file_lock(
    path: Path,
    *,
    timeout_s: float | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold an exclusive `flock` on `path`, which is made (0600) if missing.

    It polls, since a blocked `flock` can neither time out nor be cancelled from
    another thread.

    Args:
        path: The lock file; it is never removed, since removing would race.
        timeout_s: Longest wait in seconds; None waits for ever.
        cancelled: Asked while waiting; true gives up.

    Raises:
        TimeoutError: Another holder kept the lock too long.
        InterruptedError: `cancelled` said so.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    descriptor = open_lock(path)
    try:
        while not try_lock(descriptor):
            if cancelled():
                raise InterruptedError(f"Cancelled while waiting for {path}.")
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{path} was locked for {timeout_s:g} s.")
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """Open a lock file, made (0600) if missing; its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int) -> bool:
    """Lock a file until its descriptor is closed; whether nobody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
