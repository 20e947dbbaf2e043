"""Judgements in files: found by what is there, our own lines of JSON, and spans."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentfarm.errors import RetrievalError
from agentfarm.rag._judgement_documents import load_beir, load_trec
from agentfarm.rag._judgement_lines import (
    json_rows,
    malformed,
    text_field,
    unreadable,
)
from agentfarm.rag._judgements import GoldDocument, GoldSpan, Judgements, Question

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["load_judgements", "load_span_questions", "save_judgements"]


def load_judgements(path: str | Path) -> Judgements:
    """Load judgements by what is there: the way to name them on a command line.

    Args:
        path: Our own ``.jsonl``; a ``.csv`` of questions with spans; a BEIR folder
            (``queries.jsonl`` and ``qrels/``); or a folder with TREC files
            (``qrels*`` and ``*query*`` or ``*topics*``).

    Raises:
        RetrievalError: It is none of these, or malformed.
    """
    path = Path(path).expanduser()
    if path.suffix == ".jsonl":
        return _load_own(path)
    if path.suffix == ".csv":
        return load_span_questions(path)
    if path.is_dir():
        if (path / "queries.jsonl").exists():
            return load_beir(path)
        qrels = sorted(x for x in path.glob("*qrels*") if x.is_file())
        topics = sorted({*path.glob("*quer*"), *path.glob("*topic*")} - set(qrels))
        if len(qrels) == 1 and len(topics) == 1:
            documents = sorted(path.glob("*doc*"))
            return load_trec(
                qrels[0], topics[0], documents=documents[0] if documents else None
            )
    raise RetrievalError(
        f"{path} holds no judgements.",
        remedy="Give a .jsonl file, a .csv of questions with spans, a BEIR folder, or "
        "a folder with one TREC file of qrels and one of topics.",
    )


def save_judgements(judgements: Judgements, path: str | Path) -> None:
    """Write our own format: one question a line, with spans and documents.

    The documents themselves are not written.
    """
    lines = (_as_json(question) for question in judgements)
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def load_span_questions(
    path: str | Path,
    *,
    texts: Mapping[str, str] | None = None,
    source_of: Callable[[str], str] | None = None,
) -> Judgements:
    """Load questions with gold spans, as the package chunking_evaluation keeps them.

    Args:
        path: A CSV with ``question``, ``references`` (JSON: a list of ``content``,
            ``start_index`` and ``end_index``) and ``corpus_id``.
        texts: The documents by `corpus_id`; ``<corpus_id>.md`` or ``.txt`` beside
            the file are read if None.
        source_of: Turns a `corpus_id` into the name that a collection has for it.

    Raises:
        RetrievalError: The file is missing or malformed; the message names the line.
    """
    path = Path(path)
    questions = []
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"question", "references", "corpus_id"} - set(
                reader.fieldnames or ()
            )
            if missing:
                names = ", ".join(sorted(missing))
                raise malformed(
                    f"{path}:1", f"has no column {names}", "question, references"
                )
            for number, row in enumerate(reader, start=1):
                place = f"{path}:{reader.line_num}"
                questions.append(_span_question(str(number), row, place))
    except OSError as error:
        raise unreadable(path, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise malformed(str(path), f"is no CSV in UTF-8: {error}", "commas") from error
    if texts is None:
        sources = {span.source for question in questions for span in question.spans}
        texts = _texts_beside(path, sources)
    found = Judgements(name=path.stem, questions=tuple(questions), texts=dict(texts))
    return found.renamed(source_of) if source_of is not None else found


def _span_question(name: str, row: Mapping[str, Any], place: str) -> Question:
    try:
        references = json.loads(row["references"] or "")
        spans = tuple(
            GoldSpan(
                source=row["corpus_id"],
                start=int(item["start_index"]),
                end=int(item["end_index"]),
                text=item["content"],
            )
            for item in references
        )
        return Question(id=name, text=row["question"] or "", spans=spans)
    except RetrievalError as error:
        raise RetrievalError(f"{place}: {error.message}", remedy=error.remedy) from None
    except (ValueError, TypeError, KeyError) as error:
        wanted = "JSON: a list of content, start_index and end_index"
        raise malformed(
            place, f"has malformed references ({error!r})", wanted
        ) from None


def _texts_beside(path: Path, sources: set[str]) -> dict[str, str]:
    found = {}
    for source in sorted(sources):
        for suffix in ("", ".md", ".txt"):
            file = path.parent / f"{source}{suffix}"
            # A name in a file is not trusted to lead elsewhere.
            if file.is_file() and file.resolve().parent == path.parent.resolve():
                found[source] = file.read_bytes().decode("utf-8")
                break
    return found


def _load_own(path: Path) -> Judgements:
    questions = []
    for place, row in json_rows(path):
        try:
            questions.append(_from_json(row, place))
        except RetrievalError as error:
            where = "" if error.message.startswith(place) else f"{place}: "
            raise RetrievalError(
                f"{where}{error.message}", remedy=error.remedy
            ) from None
    return Judgements(name=path.stem, questions=tuple(questions))


def _from_json(row: Mapping[str, Any], place: str) -> Question:
    known = {"id", "question", "spans", "documents", "synthetic", "metadata"}
    if unknown := sorted(set(row) - known):
        wanted = ", ".join(sorted(known))
        raise malformed(place, f"has an unknown field {unknown[0]!r}", wanted)
    try:
        return Question(
            id=text_field(row, "id", place),
            text=text_field(row, "question", place),
            spans=tuple(GoldSpan(**item) for item in row.get("spans") or ()),
            documents=tuple(
                GoldDocument(**item) for item in row.get("documents") or ()
            ),
            synthetic=bool(row.get("synthetic", False)),
            metadata=row.get("metadata") or {},
        )
    except TypeError as error:
        wanted = "source, start, end, relevance, text"
        raise malformed(place, f"has a malformed judgement ({error})", wanted) from None


def _as_json(question: Question) -> str:
    row: dict[str, Any] = {"id": question.id, "question": question.text}
    if question.spans:
        row["spans"] = [
            {
                "source": span.source,
                "start": span.start,
                "end": span.end,
                **({"relevance": span.relevance} if span.relevance != 1 else {}),
                **({"text": span.text} if span.text is not None else {}),
            }
            for span in question.spans
        ]
    if question.documents:
        row["documents"] = [
            {"source": gold.source, "relevance": gold.relevance}
            for gold in question.documents
        ]
    if question.synthetic:
        row["synthetic"] = True
    if question.metadata:
        row["metadata"] = dict(question.metadata)
    return json.dumps(row, ensure_ascii=False)
