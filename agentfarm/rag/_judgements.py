"""What is right: the passages and documents that answer a question.

A judgement is a span of a source, not a chunk of an index, so it holds whatever the
chunking. Collections that judge whole documents are kept as such.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agentfarm.errors import RetrievalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["GoldDocument", "GoldSpan", "Judgements", "Question", "spans_of"]

_SHOWN = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldSpan:
    """A passage that answers a question: ``text_of_source[start:end]``.

    Attributes:
        source: The document's name or id.
        start: Offset of its first character.
        end: Offset after its last character.
        relevance: How good it is; above 0.
        text: The passage, where known; it shows when a source has changed.

    Raises:
        RetrievalError: The span is empty, or its text has another length.
    """

    source: str
    start: int
    end: int
    relevance: int = 1
    text: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise RetrievalError(
                f"A span of {self.source!r} reaches from {self.start} to {self.end}.",
                remedy="Let it start at 0 or later and end after its start.",
            )
        if self.relevance < 1:
            raise RetrievalError(
                f"A span of {self.source!r} has relevance {self.relevance}.",
                remedy="Leave out what is not relevant.",
            )
        if self.text is not None and len(self.text) != self.end - self.start:
            raise RetrievalError(
                f"A span of {self.source!r} is {self.end - self.start} characters "
                f"long and its text {len(self.text)}: {self.text[:_SHOWN]!r}.",
                remedy="Count offsets in characters, not in bytes.",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldDocument:
    """A whole document that was judged for a question.

    Attributes:
        source: The document's name or id.
        relevance: How good it is; 0 or less is not relevant.
    """

    source: str
    relevance: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question with what answers it.

    Attributes:
        id: Unique among the judgements.
        text: In words.
        spans: Passages that answer it.
        documents: Documents judged as a whole.
        synthetic: Whether a model made it up; such a question resembles its source
            more than people's questions do, so figures come out too high.
        metadata: Whatever else is worth keeping, as JSON values.

    Raises:
        RetrievalError: Id or text is blank, or a document is judged twice.
    """

    id: str
    text: str
    spans: tuple[GoldSpan, ...] = ()
    documents: tuple[GoldDocument, ...] = ()
    synthetic: bool = False
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", tuple(self.spans))
        object.__setattr__(self, "documents", tuple(self.documents))
        if not self.id.strip() or not self.text.strip():
            raise RetrievalError(
                f"A question has the id {self.id!r} and the text "
                f"{self.text[:_SHOWN]!r}.",
                remedy="Give it both.",
            )
        counts = Counter(gold.source for gold in self.documents)
        if double := [source for source, count in counts.items() if count > 1]:
            raise RetrievalError(
                f"Question {self.id!r} judges {double[0]!r} more than once.",
                remedy="Keep one judgement of each document.",
            )

    @property
    def relevances(self) -> dict[str, int]:
        """Relevance by document; a document with a gold span is as good as that."""
        found = {gold.source: gold.relevance for gold in self.documents}
        for span in self.spans:
            found[span.source] = max(span.relevance, found.get(span.source, 0))
        return found


@dataclass(frozen=True, kw_only=True)
class Judgements:
    """Questions with their answers, to measure retrieval by.

    Attributes:
        name: For tables and legends.
        questions: In a fixed order.
        texts: The documents by source, where the collection brings them along.

    Raises:
        RetrievalError: There is no question, or two share an id.
    """

    name: str
    questions: tuple[Question, ...]
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "questions", tuple(self.questions))
        if not self.questions:
            raise RetrievalError(
                f"The judgements {self.name!r} hold no question.",
                remedy="Check that topics and judgements share their ids.",
            )
        counts = Counter(question.id for question in self.questions)
        if double := [name for name, count in counts.items() if count > 1]:
            raise RetrievalError(
                f"The judgements {self.name!r} use an id more than once: "
                f"{', '.join(double[:5])}.",
                remedy="Ids are what results are joined by; make them unique.",
            )

    def __len__(self) -> int:
        return len(self.questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    @property
    def has_spans(self) -> bool:
        """Whether any question is judged by spans."""
        return any(question.spans for question in self.questions)

    @property
    def has_documents(self) -> bool:
        """Whether any question has a relevant document."""
        return any(max(q.relevances.values(), default=0) > 0 for q in self.questions)

    def renamed(self, source_of: Callable[[str], str]) -> Judgements:
        """The same with other names of the sources, e.g. as a collection has them."""
        return replace(
            self,
            questions=tuple(_renamed(item, source_of) for item in self.questions),
            texts={source_of(source): text for source, text in self.texts.items()},
        )

    def sample(self, count: int, *, seed: int = 0) -> Judgements:
        """At most `count` questions, drawn by `seed`, in their order."""
        if count >= len(self.questions):
            return self
        import numpy as np

        draw = np.random.default_rng(seed)
        picked = sorted(draw.choice(len(self.questions), size=count, replace=False))
        return replace(self, questions=tuple(self.questions[i] for i in picked))

    def check(self, texts: Mapping[str, str] | None = None) -> None:
        """Make sure that every span lies in its source and says what it said.

        Args:
            texts: The documents by source; those of the judgements if None.

        Raises:
            RetrievalError: A source is missing, or has changed; the first few
                questions are named.
        """
        texts = self.texts if texts is None else texts
        problems = [
            f"{question.id}: {problem}"
            for question in self.questions
            for span in question.spans
            if (problem := _problem(span, texts))
        ]
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise RetrievalError(
                f"{len(problems)} spans of {self.name!r} do not fit the documents: "
                f"{'; '.join(problems[:3])}{more}.",
                remedy="Measure with the documents that were judged, or mend the "
                "spans with `located`.",
            )

    def located(self, texts: Mapping[str, str]) -> tuple[Judgements, list[str]]:
        """Spans moved to where their text is now, after sources were edited.

        A text that occurs several times is taken where it is nearest to its old
        place. A question whose spans are all lost is dropped.

        Returns:
            The judgements, and a sentence for each span that was lost.

        Raises:
            RetrievalError: No question is left.
        """
        lost: list[str] = []
        kept = []
        for question in self.questions:
            spans = []
            for span in question.spans:
                moved = _moved(span, texts.get(span.source, ""))
                if moved is None:
                    lost.append(f"{question.id}: {_problem(span, texts)}")
                else:
                    spans.append(moved)
            if spans or not question.spans:
                kept.append(replace(question, spans=tuple(spans)))
        return replace(self, questions=tuple(kept), texts=dict(texts)), lost


def _renamed(question: Question, source_of: Callable[[str], str]) -> Question:
    return replace(
        question,
        spans=tuple(replace(x, source=source_of(x.source)) for x in question.spans),
        documents=tuple(
            replace(x, source=source_of(x.source)) for x in question.documents
        ),
    )


def _problem(span: GoldSpan, texts: Mapping[str, str]) -> str | None:
    """Why a span does not fit; None where it does."""
    text = texts.get(span.source)
    if text is None:
        return f"there is no document {span.source!r}"
    if span.end > len(text):
        return (
            f"{span.source!r} has {len(text)} characters, the span ends at {span.end}"
        )
    if span.text is not None and text[span.start : span.end] != span.text:
        return (
            f"{span.source!r} says {text[span.start : span.end][:_SHOWN]!r} at "
            f"{span.start}, not {span.text[:_SHOWN]!r}"
        )
    return None


def _moved(span: GoldSpan, text: str) -> GoldSpan | None:
    if span.text is None:
        return span if span.end <= len(text) else None
    places = list(_places(text, span.text))
    if not places:
        return None
    start = min(places, key=lambda place: (abs(place - span.start), place))
    return replace(span, start=start, end=start + len(span.text))


def _places(text: str, part: str) -> Iterator[int]:
    place = text.find(part)
    while place >= 0:
        yield place
        place = text.find(part, place + 1)


def spans_of(texts: Mapping[str, str], passages: Sequence[str]) -> list[GoldSpan]:
    """Spans of passages that are quoted, wherever they stand first.

    Raises:
        RetrievalError: A passage stands in none of the documents.
    """
    found = []
    for passage in passages:
        for source, text in texts.items():
            if passage and (start := text.find(passage)) >= 0:
                end = start + len(passage)
                found.append(
                    GoldSpan(source=source, start=start, end=end, text=passage)
                )
                break
        else:
            raise RetrievalError(
                f"No document says {passage[:_SHOWN]!r}.",
                remedy="Quote the passage character by character.",
            )
    return found
