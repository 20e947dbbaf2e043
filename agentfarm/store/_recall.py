"""Which memories a question is about."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentfarm.store._records import MemoryRecord

__all__ = ["rank"]


def rank(memories: Iterable[MemoryRecord], query: str) -> list[MemoryRecord]:
    """Those that share a word with the question, the most words first.

    Words are compared without regard to case. Of as many shared words, the order
    of `memories` stands. A question without words gives them all.
    """
    wanted = _words(query)
    if not wanted:
        return list(memories)
    shared = [(len(wanted & _words(memory.text)), memory) for memory in memories]
    hits = [pair for pair in shared if pair[0]]
    return [memory for _, memory in sorted(hits, key=lambda pair: -pair[0])]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", unicodedata.normalize("NFC", text).casefold()))
