"""Judgements: what they refuse, how they survive edits, and their files."""

import json

import pytest

from agentfarm.errors import RetrievalError
from agentfarm.rag import (
    GoldDocument,
    GoldSpan,
    Judgements,
    Question,
    load_beir,
    load_judgements,
    load_span_questions,
    load_trec,
    save_beir,
    save_judgements,
    save_trec,
    spans_of,
)

TEXTS = {
    "pumps.md": "The pump stops at 40 °C. It starts again at 35 °C.",
    "fans.md": "Fans turn at 1200 rpm. 🌀 Then they rest.",
}


def span(source: str, words: str, **values) -> GoldSpan:
    start = TEXTS[source].index(words)
    return GoldSpan(
        source=source, start=start, end=start + len(words), text=words, **values
    )


@pytest.fixture
def judgements() -> Judgements:
    return Judgements(
        name="house",
        questions=(
            Question(
                id="q1",
                text="When does the pump stop?",
                spans=(span("pumps.md", "stops at 40 °C", relevance=2),),
            ),
            Question(
                id="q2",
                text="What turns?",
                documents=(
                    GoldDocument(source="fans.md", relevance=3),
                    GoldDocument(source="pumps.md", relevance=0),
                ),
                synthetic=True,
                metadata={"model": "m"},
            ),
        ),
        texts=TEXTS,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: GoldSpan(source="a", start=3, end=3),
        lambda: GoldSpan(source="a", start=-1, end=3),
        lambda: GoldSpan(source="a", start=0, end=3, relevance=0),
        lambda: GoldSpan(source="a", start=0, end=5, text="é!"),
        lambda: Question(id=" ", text="What?"),
        lambda: Question(id="1", text=""),
        lambda: Question(
            id="1",
            text="What?",
            documents=(GoldDocument(source="a"), GoldDocument(source="a")),
        ),
        lambda: Judgements(name="none", questions=()),
        lambda: Judgements(name="two", questions=(Question(id="1", text="?"),) * 2),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_remedy(make):
    with pytest.raises(RetrievalError) as raised:
        make()
    assert raised.value.remedy


def test_a_document_is_as_relevant_as_its_best_span(judgements):
    first, second = judgements
    assert first.relevances == {"pumps.md": 2}
    assert second.relevances == {"fans.md": 3, "pumps.md": 0}
    assert judgements.has_spans
    assert judgements.has_documents


def test_spans_are_checked_against_their_sources(judgements):
    judgements.check()
    with pytest.raises(RetrievalError, match=r"q1: there is no document 'pumps\.md'"):
        judgements.check({"fans.md": TEXTS["fans.md"]})
    changed = {**TEXTS, "pumps.md": "A " + TEXTS["pumps.md"]}
    with pytest.raises(RetrievalError, match=r"says .* not 'stops at 40"):
        judgements.check(changed)
    with pytest.raises(RetrievalError, match="has 3 characters"):
        judgements.check({**TEXTS, "pumps.md": "The"})


def test_spans_follow_their_text_when_a_source_was_edited(judgements):
    edited = {**TEXTS, "pumps.md": "New. " + TEXTS["pumps.md"] + " It stops at 40 °C."}
    moved, lost = judgements.located(edited)
    assert lost == []
    moved.check()
    (found,) = moved.questions[0].spans
    assert found.start == judgements.questions[0].spans[0].start + 5
    gone, lost = judgements.located({**TEXTS, "pumps.md": "Nothing left."})
    assert [question.id for question in gone] == ["q2"]
    assert len(lost) == 1
    assert lost[0].startswith("q1: ")


def test_quotes_become_spans():
    (found,) = spans_of(TEXTS, ["🌀 Then"])
    assert TEXTS["fans.md"][found.start : found.end] == "🌀 Then"
    with pytest.raises(RetrievalError, match="No document says 'Pipes'"):
        spans_of(TEXTS, ["Pipes"])


def test_a_sample_is_drawn_by_its_seed_and_keeps_the_order():
    many = Judgements(
        name="many",
        questions=tuple(Question(id=f"{n:03}", text="?") for n in range(50)),
    )
    ids = [question.id for question in many.sample(10, seed=3)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 10
    assert ids == [question.id for question in many.sample(10, seed=3)]
    assert ids != [question.id for question in many.sample(10, seed=4)]
    assert many.sample(99) is many


def test_our_own_format_keeps_everything(judgements, tmp_path):
    path = tmp_path / "house.jsonl"
    save_judgements(judgements, path)
    found = load_judgements(path)
    assert found.questions == judgements.questions
    assert found.name == "house"


def test_trec_keeps_documents(judgements, tmp_path):
    qrels, topics = tmp_path / "qrels", tmp_path / "queries.trec"
    save_trec(judgements, qrels, topics)
    (tmp_path / "doc-text.trec").write_text(
        "<DOC>\n<DOCNO>fans.md</DOCNO>\nFans turn.\n</DOC>\n", encoding="utf-8"
    )
    found = load_judgements(tmp_path)
    assert [q.relevances for q in found] == [q.relevances for q in judgements]
    assert [q.text for q in found] == [q.text for q in judgements]
    assert found.texts == {"fans.md": "Fans turn."}
    spaced = judgements.renamed(lambda source: f"my {source}")
    with pytest.raises(RetrievalError, match="TREC cannot carry"):
        save_trec(spaced, qrels, topics)


def test_beir_keeps_documents_and_texts(judgements, tmp_path):
    save_beir(judgements, tmp_path / "house")
    found = load_judgements(tmp_path / "house")
    assert [q.relevances for q in found] == [q.relevances for q in judgements]
    assert found.texts == TEXTS
    assert found.name == "house"


def test_questions_with_spans_are_read_with_the_documents_beside_them(tmp_path):
    words = "starts again"
    start = TEXTS["pumps.md"].index(words)
    reference = {"content": words, "start_index": start, "end_index": start + 12}
    quoted = json.dumps([reference]).replace('"', '""')
    path = tmp_path / "questions.csv"
    path.write_text(
        f'question,references,corpus_id\nWhen again?,"{quoted}",pumps\n',
        encoding="utf-8",
    )
    (tmp_path / "pumps.md").write_text(TEXTS["pumps.md"], encoding="utf-8")
    found = load_span_questions(path, source_of=lambda name: f"{name}.md")
    found.check()
    assert found.texts == {"pumps.md": TEXTS["pumps.md"]}
    path.write_text(path.read_text().replace(",pumps", ",../pumps"), encoding="utf-8")
    inner = tmp_path / "inner"
    inner.mkdir()
    path.rename(inner / "questions.csv")
    assert load_span_questions(inner / "questions.csv").texts == {}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("own.jsonl", '{"id": "1", "question": "a"}\n{"id": 2}\n', r"own\.jsonl:2 has"),
        ("own.jsonl", "{\n", r"own\.jsonl:1 is not valid JSON"),
        ("own.jsonl", "[]\n", r"own\.jsonl:1 is a list"),
        (
            "own.jsonl",
            '{"id": "1", "question": "a", "answer": 1}\n',
            "unknown field 'answer'",
        ),
        (
            "own.jsonl",
            '{"id": "1", "question": "a", "spans": [{"from": 1}]}\n',
            "malformed judgement",
        ),
        (
            "own.jsonl",
            (
                '{"id": "1", "question": "a", "spans": '
                '[{"source": "x", "start": 4, "end": 2}]}\n'
            ),
            r"own\.jsonl:1: A span of 'x'",
        ),
        ("q.csv", "question,corpus_id\n", "no column references"),
        ("q.csv", "question,references,corpus_id\na,[{}],b\n", r"q\.csv:2 has malf"),
        ("other.txt", "", "holds no judgements"),
    ],
)
def test_malformed_files_are_named_by_their_line(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RetrievalError, match=said) as raised:
        load_judgements(path)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("qrels", "topics", "said"),
    [
        ("1 0 d\n", "1\twhat\n", r"qrels:1 has 3 fields"),
        ("1 0 d high\n", "1\twhat\n", "has the relevance 'high'"),
        ("1 0 d 1\n\n1 0 d 1\n", "1\twhat\n", r"qrels:3 judges 'd' for '1' again"),
        ("7 0 d 1\n", "1\twhat\n", "judges 1 queries that are not there, e.g. '7'"),
        ("1 0 d 1\n", "1 what\n", r"topics:1 has no tab"),
        ("1 0 d 1\n", "<top><num>1</num></top>\n", "without number or title"),
    ],
)
def test_malformed_trec_files_are_named_by_their_line(tmp_path, qrels, topics, said):
    (tmp_path / "qrels").write_text(qrels, encoding="utf-8")
    (tmp_path / "topics").write_text(topics, encoding="utf-8")
    with pytest.raises(RetrievalError, match=said):
        load_trec(tmp_path / "qrels", tmp_path / "topics")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(RetrievalError, match=r"queries\.jsonl cannot be read"):
        load_beir(tmp_path)
