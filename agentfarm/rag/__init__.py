"""Retrieval, measured: judgements that survive re-chunking, and what they say."""

from __future__ import annotations

from agentfarm.rag._comparison import (
    Comparison,
    Interval,
    bootstrap_interval,
    permutation_test,
)
from agentfarm.rag._judgement_documents import (
    load_beir,
    load_trec,
    save_beir,
    save_trec,
)
from agentfarm.rag._judgement_files import (
    load_judgements,
    load_span_questions,
    save_judgements,
)
from agentfarm.rag._judgements import (
    GoldDocument,
    GoldSpan,
    Judgements,
    Question,
    spans_of,
)
from agentfarm.rag._measure import QuestionScores, RetrievalReport, evaluate_retrieval
from agentfarm.rag._metrics import SpanScores, document_scores, span_scores
from agentfarm.rag._types import Hit, Retriever

__all__ = [
    "Comparison",
    "GoldDocument",
    "GoldSpan",
    "Hit",
    "Interval",
    "Judgements",
    "Question",
    "QuestionScores",
    "RetrievalReport",
    "Retriever",
    "SpanScores",
    "bootstrap_interval",
    "document_scores",
    "evaluate_retrieval",
    "load_beir",
    "load_judgements",
    "load_span_questions",
    "load_trec",
    "permutation_test",
    "save_beir",
    "save_judgements",
    "save_trec",
    "span_scores",
    "spans_of",
]
