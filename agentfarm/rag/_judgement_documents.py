"""Judgements of whole documents in files: TREC and BEIR."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from agentfarm.errors import RetrievalError
from agentfarm.rag._judgement_lines import (
    json_rows,
    malformed,
    numbered_lines,
    read_text,
    text_field,
)
from agentfarm.rag._judgements import GoldDocument, Judgements, Question

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["load_beir", "load_trec", "save_beir", "save_trec"]

_TOPIC = re.compile(r"<top>(.*?)(?:</top>|(?=<top>)|\Z)", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"<num>\s*(?:number:)?\s*([^\s<]+)", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*(?:topic:)?\s*([^<]*)", re.IGNORECASE)
_DOC = re.compile(r"<doc>(.*?)</doc>", re.DOTALL | re.IGNORECASE)
_DOCNO = re.compile(r"<docno>\s*(.*?)\s*</docno>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][a-z0-9]*>", re.IGNORECASE)


def load_trec(
    qrels: str | Path, topics: str | Path, *, documents: str | Path | None = None
) -> Judgements:
    """Load TREC judgements of documents.

    Args:
        qrels: Lines of topic, iteration, document and relevance.
        topics: ``<top>`` elements with ``<num>`` and ``<title>``, or lines of id,
            tab and text.
        documents: ``<DOC>`` elements with ``<DOCNO>``, to bring the texts along.

    Raises:
        RetrievalError: A file is missing or malformed; the message names the line.
    """
    judged: dict[str, dict[str, int]] = {}
    for place, line in numbered_lines(qrels):
        parts = line.split()
        if len(parts) != 4:
            raise malformed(
                place, f"has {len(parts)} fields", "topic 0 document relevance"
            )
        _judge(judged, parts[0], parts[2], parts[3], place)
    texts = _trec_documents(Path(documents)) if documents is not None else {}
    return _by_document(Path(qrels).stem, _topics(Path(topics)), judged, texts, qrels)


def save_trec(judgements: Judgements, qrels: str | Path, topics: str | Path) -> None:
    """Write TREC files; of spans only their documents are kept.

    Raises:
        RetrievalError: An id holds blanks, which the format cannot carry.
    """
    lines, tops = [], []
    for question in judgements:
        for source, relevance in question.relevances.items():
            if any(len(text.split()) != 1 for text in (question.id, source)):
                raise RetrievalError(
                    f"TREC cannot carry the ids {question.id!r} and {source!r}.",
                    remedy="Rename them without blanks, see Judgements.renamed.",
                )
            lines.append(f"{question.id} 0 {source} {relevance}\n")
        title = " ".join(question.text.replace("<", " ").split())
        tops.append(
            f"<top>\n<num>{question.id}</num><title>\n{title}\n</title>\n</top>\n"
        )
    Path(qrels).write_text("".join(lines), encoding="utf-8")
    Path(topics).write_text("".join(tops), encoding="utf-8")


def load_beir(folder: str | Path, *, split: str = "test") -> Judgements:
    """Load a BEIR collection: ``queries.jsonl``, ``qrels/<split>.tsv`` and corpus.

    Args:
        folder: Of the collection; ``corpus.jsonl`` may be absent.
        split: Which judgements.

    Raises:
        RetrievalError: A file is missing or malformed; the message names the line.
    """
    folder = Path(folder)
    queries = {
        text_field(row, "_id", place): text_field(row, "text", place)
        for place, row in json_rows(folder / "queries.jsonl")
    }
    texts = {}
    if (folder / "corpus.jsonl").exists():
        for place, row in json_rows(folder / "corpus.jsonl"):
            title = str(row.get("title") or "")
            body = text_field(row, "text", place)
            texts[text_field(row, "_id", place)] = f"{title}\n{body}" if title else body
    qrels = folder / "qrels" / f"{split}.tsv"
    judged: dict[str, dict[str, int]] = {}
    for number, (place, line) in enumerate(numbered_lines(qrels)):
        parts = line.split("\t")
        if number == 0 and parts[-1].strip() == "score":
            continue
        if len(parts) != 3:
            raise malformed(place, f"has {len(parts)} fields", "query, document, score")
        _judge(judged, parts[0], parts[1], parts[2].strip(), place)
    return _by_document(folder.name, queries, judged, texts, qrels)


def save_beir(
    judgements: Judgements, folder: str | Path, *, split: str = "test"
) -> None:
    """Write a BEIR folder; of spans only their documents are kept."""
    folder = Path(folder)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    queries = [{"_id": q.id, "text": q.text} for q in judgements]
    corpus = [
        {"_id": source, "title": "", "text": text}
        for source, text in judgements.texts.items()
    ]
    for name, rows in (("queries", queries), ("corpus", corpus)):
        lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    lines = "".join(
        f"{question.id}\t{source}\t{relevance}\n"
        for question in judgements
        for source, relevance in question.relevances.items()
    )
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / f"{split}.tsv").write_text(head + lines, encoding="utf-8")


def _by_document(
    name: str,
    queries: Mapping[str, str],
    judged: Mapping[str, Mapping[str, int]],
    texts: Mapping[str, str],
    qrels: str | Path,
) -> Judgements:
    """Join both; queries without judgement are left out, the other way is an error."""
    if strangers := sorted(set(judged) - set(queries)):
        raise RetrievalError(
            f"{qrels} judges {len(strangers)} queries that are not there, "
            f"e.g. {strangers[0]!r}.",
            remedy="Give the topics that belong to these judgements.",
        )
    questions = tuple(
        Question(
            id=query_id,
            text=text,
            documents=tuple(
                GoldDocument(source=source, relevance=relevance)
                for source, relevance in judged[query_id].items()
            ),
        )
        for query_id, text in queries.items()
        if query_id in judged
    )
    return Judgements(name=name, questions=questions, texts=texts)


def _judge(
    judged: dict[str, dict[str, int]],
    query: str,
    document: str,
    relevance: str,
    place: str,
) -> None:
    of_query = judged.setdefault(query, {})
    if document in of_query:
        raise malformed(
            place, f"judges {document!r} for {query!r} again", "one judgement"
        )
    try:
        of_query[document] = int(relevance)
    except ValueError:
        wanted = "a whole number as relevance"
        raise malformed(place, f"has the relevance {relevance!r}", wanted) from None


def _topics(path: Path) -> dict[str, str]:
    text = read_text(path)
    found: dict[str, str] = {}
    if "<top>" not in text.lower():
        for place, line in numbered_lines(path):
            name, tab, words = line.partition("\t")
            if not tab:
                raise malformed(place, "has no tab", "id, tab, text")
            found[name.strip()] = words.strip()
        return found
    for match in _TOPIC.finditer(text):
        place = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        number, title = _NUMBER.search(match[1]), _TITLE.search(match[1])
        if number is None or title is None or not title[1].strip():
            raise malformed(
                place, "has a topic without number or title", "<num> and <title>"
            )
        if number[1] in found:
            raise malformed(
                place, f"has the topic {number[1]} again", "each topic once"
            )
        found[number[1]] = " ".join(title[1].split())
    return found


def _trec_documents(path: Path) -> dict[str, str]:
    text = read_text(path)
    found = {}
    for match in _DOC.finditer(text):
        name = _DOCNO.search(match[1])
        if name is None:
            line = text.count("\n", 0, match.start()) + 1
            raise malformed(
                f"{path}:{line}", "has a document without number", "<DOCNO>"
            )
        found[name[1]] = _TAG.sub("", _DOCNO.sub("", match[1])).strip()
    return found
