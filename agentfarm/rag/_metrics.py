"""How good a ranking is: by documents, by spans, and within a token budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agentfarm.errors import RetrievalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentfarm.rag._judgements import GoldSpan, Question
    from agentfarm.rag._types import Hit

__all__ = ["SpanScores", "document_scores", "ranked_documents", "span_scores"]

Cut = Literal["whole", "partial"]
Ranges = list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanScores:
    """How much of what was asked for a list of chunks holds.

    Attributes:
        recall: Share of the gold characters that some chunk holds.
        precision: Share of the chunks' characters that are gold. What two chunks
            hold alike counts twice among all and once among gold, so overlap costs.
        iou: Gold characters held, by the characters that are gold or held.
        tokens: Of the chunks.
        chunks: How many were looked at.
        is_zero: Whether no gold character was found.
    """

    recall: float
    precision: float
    iou: float
    tokens: int
    chunks: int

    @property
    def is_zero(self) -> bool:
        return self.recall == 0


def span_scores(
    hits: Sequence[Hit],
    gold: Sequence[GoldSpan],
    *,
    k: int | None = None,
    budget_tokens: int | None = None,
    cut: Cut = "whole",
) -> SpanScores:
    """Compare chunks with gold spans, in characters of their sources.

    Args:
        hits: Ranked, the best one first.
        gold: What answers the question; each character counts once.
        k: Look at this many chunks; all if None.
        budget_tokens: Look at chunks until one does not fit any more.
        cut: What happens to that chunk: left out, or shortened to fit.

    Raises:
        RetrievalError: There is no gold span.
    """
    if not gold:
        raise RetrievalError(
            "A question without gold spans has no span recall.",
            remedy="Measure it by documents, or give it spans.",
        )
    picked = [(hit, hit.end, hit.tokens) for hit in hits[:k]]
    if budget_tokens is not None:
        picked = _within(hits[:k], budget_tokens, cut)
    wanted, length = _by_source(gold), 0
    held: dict[str, Ranges] = {}
    for hit, end, _ in picked:
        name = hit.source if hit.source in wanted else hit.document_id
        held.setdefault(name, []).append((hit.start, end))
        length += end - hit.start
    total = sum(_length(_union(ranges)) for ranges in wanted.values())
    found = sum(
        _length(_common(_union(ranges), _union(held.get(source, []))))
        for source, ranges in wanted.items()
    )
    covered = sum(_length(_union(ranges)) for ranges in held.values())
    return SpanScores(
        recall=found / total,
        precision=found / length if length else 0.0,
        iou=found / (total + covered - found),
        tokens=sum(tokens for _, _, tokens in picked),
        chunks=len(picked),
    )


def _within(
    hits: Iterable[Hit], budget_tokens: int, cut: Cut
) -> list[tuple[Hit, int, int]]:
    """Chunks with their end and tokens, in rank order until the budget is full."""
    left, picked = budget_tokens, []
    for hit in hits:
        if hit.tokens <= left:
            picked.append((hit, hit.end, hit.tokens))
            left -= hit.tokens
            continue
        if cut == "partial" and left:
            # By share: where the tokens of a chunk end is not known here.
            end = hit.start + (hit.end - hit.start) * left // hit.tokens
            picked.append((hit, end, left))
        break
    return picked


def _by_source(gold: Sequence[GoldSpan]) -> dict[str, Ranges]:
    found: dict[str, Ranges] = {}
    for span in gold:
        found.setdefault(span.source, []).append((span.start, span.end))
    return found


def _union(ranges: Ranges) -> Ranges:
    merged: Ranges = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _common(one: Ranges, other: Ranges) -> Ranges:
    """What two sorted unions share."""
    shared: Ranges = []
    i = j = 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < end:
            shared.append((start, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return shared


def _length(ranges: Ranges) -> int:
    return sum(end - start for start, end in ranges)


def ranked_documents(hits: Sequence[Hit], known: Iterable[str]) -> list[str]:
    """Documents by their best chunk, each once.

    Args:
        hits: Ranked chunks.
        known: The names that judgements use; a document goes by its source if that
            is among them, else by its id if that is.
    """
    names = set(known)
    ranked: dict[str, None] = {}
    for hit in hits:
        by_id = hit.source not in names and hit.document_id in names
        ranked.setdefault(hit.document_id if by_id else hit.source)
    return list(ranked)


def document_scores(
    ranking: Mapping[str, Sequence[str]],
    questions: Sequence[Question],
    *,
    k: int = 10,
) -> dict[str, dict[str, float]]:
    """Recall, precision, MRR, nDCG and MAP of each question, by ir-measures.

    Args:
        ranking: Document names by question id, the best one first.
        questions: With their judgements; what is not judged is not relevant.
        k: Of recall, precision, MRR and nDCG; MAP looks at the whole ranking.

    Returns:
        By question id the values of ``recall@k``, ``precision@k``, ``mrr@k``,
        ``ndcg@k`` and ``map``. Questions without a relevant document are left out.

    Raises:
        RetrievalError: ir-measures is missing.
    """
    try:
        import ir_measures
        from ir_measures import AP, RR, P, R, nDCG
    except ImportError:
        raise RetrievalError(
            "ir-measures is missing, which computes the figures for documents.",
            remedy="Install it: pip install 'agentfarm[rag]'.",
        ) from None
    measures = {
        R @ k: f"recall@{k}",
        P @ k: f"precision@{k}",
        RR @ k: f"mrr@{k}",
        nDCG @ k: f"ndcg@{k}",
        AP: "map",
    }
    judged = {q.id: q.relevances for q in questions}
    judged = {name: gold for name, gold in judged.items() if max([0, *gold.values()])}
    # A question for which nothing was found is 0 and not missing.
    scores = {name: dict.fromkeys(measures.values(), 0.0) for name in judged}
    qrels = [
        ir_measures.Qrel(name, source, relevance)
        for name, gold in judged.items()
        for source, relevance in gold.items()
    ]
    run = [
        # The measures sort by score, so the rank is told as one.
        ir_measures.ScoredDoc(name, source, -float(rank))
        for name in judged
        for rank, source in enumerate(ranking.get(name, ()))
    ]
    if not run:
        return scores
    for value in ir_measures.iter_calc(list(measures), qrels, run):
        scores[value.query_id][measures[value.measure]] = float(value.value)
    return scores
