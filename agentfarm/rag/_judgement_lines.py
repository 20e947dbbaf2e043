"""Read files of judgements line by line, and say where one is malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentfarm.errors import RetrievalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def numbered_lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, with their place for error messages."""
    # Only real line ends: a text may hold others, such as U+2028.
    for number, line in enumerate(read_text(Path(path)).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.rstrip("\r")


def json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for place, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problem = f"is not valid JSON: {error.msg}, column {error.colno}"
            raise malformed(place, problem, "one JSON object a line") from None
        if not isinstance(row, dict):
            raise malformed(
                place, f"is a {type(row).__name__}", "one JSON object a line"
            )
        yield place, row


def text_field(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise malformed(place, f"has {key} = {value!r}", f"a text as {key}")
    return value


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise malformed(str(path), f"is not UTF-8: {error.reason}", "UTF-8") from error


def unreadable(path: Path, error: OSError) -> RetrievalError:
    return RetrievalError(
        f"{path} cannot be read: {error.strerror}.", remedy="Check the path."
    )


def malformed(place: str, problem: str, wanted: str) -> RetrievalError:
    return RetrievalError(f"{place} {problem}.", remedy=f"Wanted: {wanted}.")
