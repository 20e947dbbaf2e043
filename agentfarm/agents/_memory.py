"""What agents remember: the last few things at hand, everything else in the Store."""

from __future__ import annotations

import secrets
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from agentfarm.store import MemoryRecord
from agentfarm.store._recall import rank

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentfarm.store import Store

MAX_CHARS = 4000
_CUT = "\n[… {} characters left out …]"


class Memory:
    """The memory of one project; no other project's is ever seen.

    What is added is at hand for as long as the process lives and it is among the
    newest `short_term`; in a Store it stays, and is searched across restarts. A
    Store opened for reading only is searched and not written.

    Args:
        store: Where it is kept; None for the short term only.
        project: The folder worked in, as a path, or any name. A folder is the same
            project however its absolute path is written.
        short_term: How many memories are kept at hand.

    Attributes:
        project: What the project's memories are filed under.
    """

    def __init__(
        self, store: Store | None, project: Path | str, short_term: int = 50
    ) -> None:
        self.project = _key(project)
        self._store = store
        self._recent: deque[MemoryRecord] = deque(maxlen=short_term)

    async def add(
        self,
        text: str,
        kind: str = "note",
        metadata: Mapping[str, Any] | None = None,
        *,
        memory_id: str | None = None,
    ) -> MemoryRecord:
        """Remember a text; it is durable when this returns, if there is a Store.

        Args:
            text: At most 4000 characters are kept, with a note on the rest.
            kind: What it is, for people and for filters.
            metadata: Whatever belongs to it, as JSON values.
            memory_id: Takes the place of the memory with this id, if there is one;
                a new id if None.

        Raises:
            StoreError: It could not be written; it is at hand all the same.
        """
        now = time.time()
        memory = MemoryRecord(
            memory_id=memory_id or f"{int(now * 1000):013x}-{secrets.token_hex(4)}",
            project=self.project,
            kind=kind,
            text=_bounded(text),
            created_at=now,
            metadata=dict(metadata or {}),
        )
        for old in [m for m in self._recent if m.memory_id == memory.memory_id]:
            self._recent.remove(old)
        self._recent.append(memory)
        if self._store is not None and not self._store.read_only:
            await self._store.add_memory_async(memory)
        return memory

    def recent(self, limit: int | None = None) -> list[MemoryRecord]:
        """What was added since the start, newest first, the newest `limit` of it."""
        return list(reversed(self._recent))[:limit]

    async def search(self, query: str, limit: int = 10) -> list[MemoryRecord]:
        """What shares words with the query, the most words first, then the newest.

        The words decide, without regard to case; there is no sense of meaning.

        Raises:
            StoreError: The Store cannot be read.
        """
        if self._store is None:
            return rank(self.recent(), query)[:limit]
        store = self._store
        return await to_thread.run_sync(
            lambda: store.memories(self.project, query, limit)
        )


def _key(project: Path | str) -> str:
    """The resolved path of a folder; any other name as it is."""
    path = Path(project)
    if isinstance(project, Path) or path.is_absolute():
        return str(path.expanduser().resolve())
    return project


def _bounded(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    kept = MAX_CHARS - len(_CUT) - len(str(len(text)))
    return text[:kept] + _CUT.format(len(text) - kept)
