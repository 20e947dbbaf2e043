"""The session that notebook 02 replays: one model in every role, written by hand.

The embedded model is too small to work as an agent, so a notebook on a machine without
another model shows this. Its first version of the program has a fault that its own
tests find, which the verifier reports and the executor mends.
"""

from __future__ import annotations

import json

from agentfarm.llm import Usage
from agentfarm.llm.testing import Answer

TASK = (
    "Write wordcount.py with a function count(text) that returns a dict of the number of "
    "lines, words and characters, and tests for it in test_wordcount.py."
)

PLAN = {
    "summary": "First the function, then tests that pin down words, lines and the empty text.",
    "interface": False,
    "steps": [
        {
            "id": "1",
            "title": "Write wordcount.py",
            "detail": "count(text) returns lines, words and characters.",
            "depends_on": [],
        },
        {
            "id": "2",
            "title": "Write test_wordcount.py",
            "detail": "Cover several spaces in a row, several lines and the empty text.",
            "depends_on": ["1"],
        },
    ],
}

FIRST = '''\
"""Count the lines, words and characters of a text."""


def count(text: str) -> dict[str, int]:
    """Return how many lines, words and characters a text has."""
    return {
        "lines": len(text.split("\\n")),
        "words": len(text.split(" ")),
        "characters": len(text),
    }
'''
MENDED = FIRST.replace('text.split("\\n")', "text.splitlines()").replace(
    'text.split(" ")', "text.split()"
)
TESTS = """\
from wordcount import count


def test_words_are_separated_by_any_white_space():
    assert count("one  two\\nthree")["words"] == 3


def test_lines():
    assert count("one\\ntwo\\n")["lines"] == 2


def test_an_empty_text_has_nothing():
    assert tuple(count("").values()) == (0, 0, 0)
"""
REVIEW = {
    "verdict": "approve",
    "summary": "Small, clear and tested.",
    "findings": [
        {
            "severity": "minor",
            "file": "wordcount.py",
            "line": 5,
            "message": "Say in the docstring that words are separated by any white space.",
        }
    ],
}


def answer(request) -> Answer:
    """What the model of the session says to a request."""
    agent = request.context.agent
    asked = request.messages[1].content
    written = request.messages[-1].content.startswith("Result of")
    if agent == "planner":
        return _said(request, "Two small steps will do.", json.dumps(PLAN))
    if agent == "reviewer":
        return _said(request, "The checks pass; is it readable?", json.dumps(REVIEW))
    if written:
        return _said(request, "", json.dumps({"final": _summary(asked)}))
    if "must be mended" in asked:
        thought = (
            "split(' ') counts empty words, and the last line break one line more."
        )
        return _said(request, thought, _writes("wordcount.py", MENDED))
    if "Write test_wordcount.py\n" in asked.rpartition("step")[2]:
        thought = "Odd white space and the empty text are where counting goes wrong."
        return _said(request, thought, _writes("test_wordcount.py", TESTS))
    thought = "A dict of three numbers, each from one expression."
    return _said(request, thought, _writes("wordcount.py", FIRST))


def _summary(asked: str) -> str:
    if "must be mended" in asked:
        return "count() now splits at any white space, and an empty text has no line."
    if "Write test_wordcount.py\n" in asked.rpartition("step")[2]:
        return "Three tests: white space, lines, and the empty text."
    return "count() is in wordcount.py."


def _writes(path: str, content: str) -> str:
    arguments = {"path": path, "content": content}
    return json.dumps({"tool": "write_file", "arguments": arguments})


def _said(request, thought: str, text: str) -> Answer:
    """An answer at the pace of a model on a small card, its tokens estimated."""
    asked = sum(len(message.content) for message in request.messages)
    return Answer(
        reasoning=tuple(f"{word} " for word in thought.split()),
        chunks=tuple(text[start : start + 8] for start in range(0, len(text), 8)),
        first_delay_s=0.25,
        gap_s=0.02,
        usage=Usage(
            input_tokens=asked // 4,
            output_tokens=(len(thought) + len(text)) // 4,
            estimated=True,
        ),
    )
