"""Ask a retriever every question, and say how good its answers are."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentfarm.errors import RetrievalError
from agentfarm.rag._comparison import Comparison, Interval, bootstrap_interval
from agentfarm.rag._metrics import document_scores, ranked_documents, span_scores

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from agentfarm.rag._judgements import Judgements, Question
    from agentfarm.rag._metrics import Cut
    from agentfarm.rag._types import Hit, Retriever

__all__ = ["QuestionScores", "RetrievalReport", "evaluate_retrieval"]

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionScores:
    """One question's values.

    Attributes:
        id: Of the question.
        text: The question.
        synthetic: Whether a model made it up.
        values: By metric; a metric that does not apply is missing.
        hits: How many chunks were retrieved.
        latency_s: Wall time of the retrieval.
    """

    id: str
    text: str
    synthetic: bool
    values: Mapping[str, float]
    hits: int
    latency_s: float


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """How good a retriever is on some judgements.

    Attributes:
        name: What was measured, for tables and legends.
        judgements: Their name.
        k: Of the metrics at k.
        budget_tokens: Of the metrics within a budget.
        questions: One by one.
        metrics: Mean and bootstrap interval over questions, by metric.
        zero_hits: Questions with gold spans of which the first k chunks hold
            nothing.
        zero_hits_in_budget: The same for the chunks that fit the budget.
        judged_by_spans: How many questions have gold spans.
    """

    name: str
    judgements: str
    k: int
    budget_tokens: int
    questions: tuple[QuestionScores, ...] = field(repr=False)
    metrics: Mapping[str, Interval]
    zero_hits: int
    zero_hits_in_budget: int
    judged_by_spans: int

    def frame(self) -> pd.DataFrame:
        """One row per question: its values, ``hits`` and ``latency_s``."""
        import pandas as pd

        rows = [
            {
                "question_id": question.id,
                "question": question.text,
                "synthetic": question.synthetic,
                **{name: question.values.get(name, math.nan) for name in self.metrics},
                "hits": question.hits,
                "latency_s": question.latency_s,
            }
            for question in self.questions
        ]
        return pd.DataFrame(rows)

    def summary_frame(self) -> pd.DataFrame:
        """One row per metric: mean, ends of the interval and number of questions."""
        import pandas as pd

        rows = [
            {
                "retriever": self.name,
                "metric": name,
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "questions": interval.count,
            }
            for name, interval in self.metrics.items()
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """All but the single questions, as JSON values."""
        return {
            "name": self.name,
            "judgements": self.judgements,
            "questions": len(self.questions),
            "synthetic_questions": sum(q.synthetic for q in self.questions),
            "k": self.k,
            "budget_tokens": self.budget_tokens,
            "zero_hits": self.zero_hits,
            "zero_hits_in_budget": self.zero_hits_in_budget,
            "judged_by_spans": self.judged_by_spans,
            "metrics": {
                name: {
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "questions": interval.count,
                }
                for name, interval in self.metrics.items()
            },
        }

    def compare(
        self, other: RetrievalReport, *, metric: str | None = None, seed: int = 0
    ) -> Comparison:
        """Compare with another report on the questions that both have.

        Args:
            other: Of another configuration.
            metric: Which; recall within the budget if None, or nDCG where there
                are no spans.
            seed: Of the random permutations and resamples.

        Raises:
            RetrievalError: No question has the metric in both.
        """
        metric = metric or self.main_metric
        theirs = {question.id: question for question in other.questions}
        pairs = [
            (mine, theirs[mine.id])
            for mine in self.questions
            if mine.id in theirs
            and metric in mine.values
            and metric in theirs[mine.id].values
        ]
        if not pairs:
            known = sorted(set(self.metrics) & set(other.metrics))
            raise RetrievalError(
                f"{self.name} and {other.name} share no question with {metric}.",
                remedy=f"Both have: {', '.join(known) or 'nothing'}.",
            )
        if different := [a.id for a, b in pairs if a.text != b.text]:
            raise RetrievalError(
                f"{self.name} and {other.name} mean different questions by "
                f"{different[0]!r}.",
                remedy="Compare reports on the same judgements.",
            )
        names = (self.name, other.name)
        if self.name == other.name:
            names = (f"{self.name} (1)", f"{other.name} (2)")
        return Comparison.of(
            metric=metric,
            names=names,
            questions=[(mine.id, mine.text) for mine, _ in pairs],
            values=(
                [mine.values[metric] for mine, _ in pairs],
                [their.values[metric] for _, their in pairs],
            ),
            notes=self._comparison_notes(other, len(pairs)),
            seed=seed,
        )

    def _comparison_notes(self, other: RetrievalReport, count: int) -> list[str]:
        notes = []
        asked = {q.id for q in self.questions} | {q.id for q in other.questions}
        if left := len(asked) - count:
            notes.append(f"{left} questions are left out: only one has a value.")
        return notes

    @property
    def main_metric(self) -> str:
        """Recall within the budget, or nDCG where there are no spans."""
        budget = f"recall_in_{self.budget_tokens}_tokens"
        return budget if budget in self.metrics else f"ndcg@{self.k}"

    def __rich__(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(self._title()), title_justify="left", box=box.SIMPLE_HEAD
        )
        for index, name in enumerate(_COLUMNS):
            table.add_column(name, justify="right" if index else "left")
        for cells in self._cells():
            table.add_row(*(Text(cell) for cell in cells))
        return Group(table, *(Text(line) for line in self._notes()))

    def _repr_html_(self) -> str:
        def row(tag: str, cells: tuple[str, ...]) -> str:
            tags = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{tags}</tr>"

        rows = "".join(row("td", cells) for cells in self._cells())
        notes = "".join(f"<p>{html.escape(line)}</p>" for line in self._notes())
        return (
            f"<div><p><b>{html.escape(self._title())}</b></p><table>"
            f"<thead>{row('th', _COLUMNS)}</thead><tbody>{rows}</tbody></table>"
            f"{notes}</div>"
        )

    def _title(self) -> str:
        return f"{self.name} on {self.judgements}, {len(self.questions)} questions"

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                name,
                f"{interval.mean:.3f}",
                f"{interval.low:.3f} to {interval.high:.3f}",
                str(interval.count),
            )
            for name, interval in self.metrics.items()
        ]

    def _notes(self) -> list[str]:
        notes = []
        if self.judged_by_spans:
            notes.append(
                f"Nothing of the answer: {self.zero_hits} of {self.judged_by_spans} "
                f"questions in the first {self.k} chunks, {self.zero_hits_in_budget} "
                f"within {self.budget_tokens} tokens."
            )
        if made_up := sum(question.synthetic for question in self.questions):
            notes.append(
                f"{made_up} questions are synthetic: the figures are too high."
            )
        return notes


_COLUMNS = ("metric", "mean", "95 % interval", "questions")


async def evaluate_retrieval(
    retriever: Retriever,
    judgements: Judgements,
    *,
    k: int = 10,
    budget_tokens: int = 1000,
    n_results: int | None = None,
    cut: Cut = "whole",
    where: Mapping[str, Any] | None = None,
    name: str | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> RetrievalReport:
    """Ask every question and compare what comes back with the judgements.

    Questions are asked one after the other, so latencies are of an idle index.

    Args:
        retriever: What to measure.
        judgements: Questions with what answers them.
        k: Of recall, precision, MRR and nDCG.
        budget_tokens: Of recall within a budget.
        n_results: How many chunks to retrieve; enough for `k` documents and the
            budget if None: ten times `k`, at least 100.
        cut: What happens to the chunk that does not fit the budget any more.
        where: Passed to the retriever.
        name: Of the report; the retriever's if None.
        seed: Of the bootstrap.
        on_progress: Called with the questions done and all of them.

    Raises:
        RetrievalError: The retriever fails, a setting is below 1, or no question
            has anything relevant.
    """
    for label, value in (("k", k), ("budget_tokens", budget_tokens)):
        if value < 1:
            raise RetrievalError(
                f"evaluate_retrieval() got {label}={value}.", remedy="Use 1 or more."
            )
    n_results = max(10 * k, 100) if n_results is None else n_results
    found: dict[str, list[Hit]] = {}
    took_s: dict[str, float] = {}
    for done, question in enumerate(judgements, start=1):
        start = time.perf_counter()
        found[question.id] = await retriever.retrieve(
            question.text, n_results=n_results, where=where
        )
        took_s[question.id] = time.perf_counter() - start
        if on_progress is not None:
            on_progress(done, len(judgements))
    values = _document_values(found, judgements, k)
    zeros = {"k": 0, "budget": 0}
    for question in judgements:
        if question.spans:
            values[question.id] |= _span_values(
                found[question.id], question, k, budget_tokens, cut, zeros
            )
    return RetrievalReport(
        name=name or retriever.name,
        judgements=judgements.name,
        k=k,
        budget_tokens=budget_tokens,
        questions=tuple(
            QuestionScores(
                id=question.id,
                text=question.text,
                synthetic=question.synthetic,
                values=values[question.id],
                hits=len(found[question.id]),
                latency_s=took_s[question.id],
            )
            for question in judgements
        ),
        metrics=_intervals(values, judgements.name, seed),
        zero_hits=zeros["k"],
        zero_hits_in_budget=zeros["budget"],
        judged_by_spans=sum(bool(question.spans) for question in judgements),
    )


def _document_values(
    found: Mapping[str, list[Hit]], judgements: Judgements, k: int
) -> dict[str, dict[str, float]]:
    """By question; empty for one without a relevant document."""
    ranking = {
        question.id: ranked_documents(found[question.id], question.relevances)
        for question in judgements
    }
    scores: dict[str, dict[str, float]] = {question.id: {} for question in judgements}
    # Where all spans lie in one source, finding that source says nothing.
    sources = {name for question in judgements for name in question.relevances}
    if len(sources) > 1 or any(question.documents for question in judgements):
        scores |= document_scores(ranking, judgements.questions, k=k)
    return scores


def _span_values(
    hits: list[Hit],
    question: Question,
    k: int,
    budget_tokens: int,
    cut: Cut,
    zeros: dict[str, int],
) -> dict[str, float]:
    first = span_scores(hits, question.spans, k=k)
    within = span_scores(hits, question.spans, budget_tokens=budget_tokens, cut=cut)
    zeros["k"] += first.is_zero
    zeros["budget"] += within.is_zero
    return {
        f"span_recall@{k}": first.recall,
        f"span_precision@{k}": first.precision,
        f"span_iou@{k}": first.iou,
        f"recall_in_{budget_tokens}_tokens": within.recall,
        f"precision_in_{budget_tokens}_tokens": within.precision,
        f"iou_in_{budget_tokens}_tokens": within.iou,
    }


def _intervals(
    values: Mapping[str, Mapping[str, float]], name: str, seed: int
) -> dict[str, Interval]:
    columns: dict[str, list[float]] = {}
    for of_question in values.values():
        for metric, value in of_question.items():
            columns.setdefault(metric, []).append(value)
    if not columns:
        raise RetrievalError(
            f"Nothing is relevant to any question of {name!r}.",
            remedy="Give questions with spans or relevant documents.",
        )
    return {
        metric: bootstrap_interval(column, seed=seed)
        for metric, column in columns.items()
    }
