"""What a retriever is, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Hit", "Retriever"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A chunk that a retriever found.

    Attributes:
        chunk_id: The chunk's number, unique in its index.
        document_id: Its document's id.
        source: The document's name as it was given when it was added.
        text: The chunk, verbatim.
        start: Offset of the chunk in the document's text, characters.
        end: Offset after its last character.
        tokens: Its length in tokens of the embedding model.
        score: What the retriever ranked by; greater is better.
        scores: The score of each part that had a say, e.g. ``dense`` (cosine, -1 to
            1), ``lexical`` (BM25), ``fusion``, ``rerank``.
        ranks: The rank in each part, from 1; a part that did not find it is missing.
        metadata: Of its document.
    """

    chunk_id: int
    document_id: str
    source: str
    text: str
    start: int
    end: int
    tokens: int
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Retriever(Protocol):
    """Ranks the chunks of one collection for a query."""

    @property
    def name(self) -> str:
        """For tables and legends, e.g. ``hybrid``."""
        ...

    async def retrieve(
        self,
        query: str,
        *,
        n_results: int,
        where: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """The best chunks, the best one first, ties in a fixed order.

        Args:
            query: In words.
            n_results: At most this many.
            where: Only chunks of documents whose metadata equal all of these.

        Raises:
            RetrievalError: It cannot be searched; the message says what to do.
        """
        ...
