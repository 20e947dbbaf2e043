"""Metrics against sums by hand, and a report on a retriever that is known."""

import json
import math

import pytest
from rich.console import Console

from agentfarm.errors import RetrievalError
from agentfarm.rag import (
    GoldDocument,
    GoldSpan,
    Hit,
    Judgements,
    Question,
    Retriever,
    document_scores,
    evaluate_retrieval,
    span_scores,
)


def hit(source: str, start: int, end: int, tokens: int = 10, number: int = 0) -> Hit:
    return Hit(
        chunk_id=number,
        document_id=f"id-{source}",
        source=source,
        text="x" * (end - start),
        start=start,
        end=end,
        tokens=tokens,
        score=1.0,
    )


def gold(source: str, start: int, end: int) -> GoldSpan:
    return GoldSpan(source=source, start=start, end=end)


class Fixed:
    """Finds what it was told to find."""

    name = "fixed"

    def __init__(self, answers: dict[str, list[Hit]]) -> None:
        self._answers = answers
        self.asked: list[tuple[str, int, object]] = []

    async def retrieve(self, query, *, n_results, where=None):
        self.asked.append((query, n_results, where))
        return self._answers[query][:n_results]


def test_spans_are_counted_by_characters():
    hits = [hit("a", 0, 100), hit("a", 80, 180), hit("b", 0, 50)]
    found = span_scores(hits, [gold("a", 90, 130), gold("a", 120, 200)])
    # Gold is 90..200; held of it 90..180; chunks are 250 characters, 230 different.
    assert found.recall == pytest.approx(90 / 110)
    assert found.precision == pytest.approx(90 / 250)
    assert found.iou == pytest.approx(90 / (110 + 230 - 90))
    assert (found.tokens, found.chunks, found.is_zero) == (30, 3, False)
    first = span_scores(hits, [gold("a", 90, 130)], k=1)
    assert first.recall == pytest.approx(10 / 40)
    assert span_scores(hits, [gold("c", 0, 5)]).is_zero
    assert span_scores([], [gold("a", 0, 5)]).precision == 0


def test_a_source_may_go_by_the_documents_id():
    assert span_scores([hit("a", 0, 9)], [gold("id-a", 0, 9)]).recall == 1


def test_a_budget_takes_chunks_in_order_until_one_does_not_fit():
    hits = [hit("a", 0, 100, 60), hit("a", 100, 200, 50), hit("a", 200, 210, 5)]
    wanted = [gold("a", 0, 210)]
    whole = span_scores(hits, wanted, budget_tokens=100)
    assert (whole.chunks, whole.tokens, whole.recall) == (1, 60, 100 / 210)
    part = span_scores(hits, wanted, budget_tokens=100, cut="partial")
    assert (part.chunks, part.tokens, part.recall) == (2, 100, 180 / 210)
    full = span_scores(hits, wanted, budget_tokens=115)
    assert (full.chunks, full.recall) == (3, 1.0)


def test_questions_without_spans_have_no_span_recall():
    with pytest.raises(RetrievalError, match="without gold spans"):
        span_scores([hit("a", 0, 9)], [])


def test_document_metrics_are_those_of_the_formulas():
    questions = [
        Question(
            id="1",
            text="?",
            documents=(
                GoldDocument(source="a", relevance=2),
                GoldDocument(source="b", relevance=1),
                GoldDocument(source="z", relevance=0),
            ),
        ),
        Question(id="2", text="?", documents=(GoldDocument(source="a"),)),
        Question(id="3", text="?", documents=(GoldDocument(source="a", relevance=0),)),
    ]
    scores = document_scores({"1": ["x", "b", "z", "a"]}, questions, k=3)
    assert set(scores) == {"1", "2"}
    first = scores["1"]
    assert first["recall@3"] == pytest.approx(1 / 2)
    assert first["precision@3"] == pytest.approx(1 / 3)
    assert first["mrr@3"] == pytest.approx(1 / 2)
    assert first["map"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert first["ndcg@3"] == pytest.approx(1 / math.log2(3) / ideal)
    assert set(scores["2"].values()) == {0.0}


@pytest.fixture
def judgements() -> Judgements:
    return Judgements(
        name="house",
        questions=(
            Question(id="1", text="first", spans=(gold("a", 0, 100),)),
            Question(id="2", text="second", spans=(gold("b", 0, 100),), synthetic=True),
        ),
    )


@pytest.fixture
def fixed() -> Fixed:
    answers = [hit("b", 0, 50, 60), hit("a", 0, 100, 60)]
    return Fixed({"first": answers, "second": answers})


async def test_a_report_has_means_questions_and_what_was_missed(fixed, judgements):
    assert isinstance(fixed, Retriever)
    done = []
    report = await evaluate_retrieval(
        fixed,
        judgements,
        k=1,
        budget_tokens=100,
        where={"kind": "manual"},
        on_progress=lambda *counts: done.append(counts),
    )
    assert done == [(1, 2), (2, 2)]
    assert fixed.asked == [
        ("first", 100, {"kind": "manual"}),
        ("second", 100, {"kind": "manual"}),
    ]
    assert report.metrics["span_recall@1"].mean == 0.25
    assert report.metrics["recall_in_100_tokens"].mean == 0.25
    assert report.metrics["mrr@1"].mean == 0.5
    assert (report.zero_hits, report.zero_hits_in_budget) == (1, 1)
    assert report.main_metric == "recall_in_100_tokens"
    frame = report.frame()
    assert list(frame["recall_in_100_tokens"]) == [0.0, 0.5]
    assert list(frame["synthetic"]) == [False, True]
    assert list(report.summary_frame()["questions"]) == [2] * len(report.metrics)
    assert json.loads(json.dumps(report.to_dict()))["synthetic_questions"] == 1
    console = Console(width=100, record=True)
    console.print(report)
    shown = console.export_text()
    assert "fixed on house, 2 questions" in shown
    assert "1 of 2 questions in the first 1 chunks" in shown
    assert "1 questions are synthetic" in shown


async def test_names_are_escaped_in_html(fixed, judgements):
    report = await evaluate_retrieval(fixed, judgements, name="<script>")
    assert "<script>" not in report._repr_html_()
    assert "&lt;script&gt;" in report._repr_html_()


async def test_two_reports_are_compared_question_by_question(fixed, judgements):
    better = Fixed({"first": [hit("a", 0, 100)], "second": [hit("b", 0, 100)]})
    one = await evaluate_retrieval(better, judgements, name="better", budget_tokens=100)
    two = await evaluate_retrieval(fixed, judgements, budget_tokens=100)
    found = one.compare(two)
    assert (found.metric, found.wins, found.losses) == ("recall_in_100_tokens", 2, 0)
    assert found.difference.mean == pytest.approx(0.75)
    assert (found.p_value, found.is_exact) == (0.5, True)
    frame = found.frame()
    assert list(frame["question_id"]) == ["1", "2"]
    assert list(frame["difference"]) == [1.0, 0.5]
    with pytest.raises(RetrievalError, match="share no question with speed"):
        one.compare(two, metric="speed")
    other = Judgements(
        name="x", questions=(Question(id="1", text="else", spans=(gold("a", 0, 9),)),)
    )
    alien = await evaluate_retrieval(
        Fixed({"else": [hit("a", 0, 9)]}), other, budget_tokens=100
    )
    with pytest.raises(RetrievalError, match="different questions by '1'"):
        one.compare(alien)


@pytest.mark.parametrize("setting", ["k", "budget_tokens"])
async def test_settings_below_one_are_refused(fixed, judgements, setting):
    with pytest.raises(RetrievalError, match=f"{setting}=0"):
        await evaluate_retrieval(fixed, judgements, **{setting: 0})


async def test_judgements_in_which_nothing_is_relevant_are_refused(fixed):
    empty = Judgements(name="empty", questions=(Question(id="1", text="first"),))
    with pytest.raises(RetrievalError, match="Nothing is relevant"):
        await evaluate_retrieval(fixed, empty)
