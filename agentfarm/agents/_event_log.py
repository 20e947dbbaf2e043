"""The events of one workflow, one JSON line each, as they happen."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from agentfarm.events import EventType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentfarm.events import Event, EventBus

# Every token on its own would be most of the file; the whole answer follows anyway.
LEFT_OUT = {EventType.LLM_STREAM_CHUNK, EventType.HEARTBEAT}


class EventLog:
    """Appends a workflow's events to a file, flushed line by line.

    Args:
        path: The file; its folder is made.
        run_id: Whose events.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self._path = path
        self._run_id = run_id

    @contextmanager
    def attached(self, bus: EventBus) -> Iterator[None]:
        """Write what the bus carries until the block ends."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8", buffering=1) as file:
            subscription = bus.on(lambda event: self._write(event, file), name="log")
            try:
                yield
            finally:
                subscription.close()

    def _write(self, event: Event, file: TextIO) -> None:
        if event.run_id == self._run_id and event.type not in LEFT_OUT:
            line = json.dumps(event.to_dict(), ensure_ascii=False, default=str)
            file.write(f"{line}\n")
