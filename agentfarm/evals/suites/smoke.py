"""Twenty small tasks that a tiny model can partly do: does everything work?

The score says little about a model. It shows that prompts, scorers, schemas,
timings and the Store work together, in well under a minute on one CPU core. Each
expected answer is plain to a person.
"""

from __future__ import annotations

from typing import Any

from agentfarm.evals._scorers import (
    choice,
    exact,
    includes,
    json_schema,
    numeric,
    regex,
)
from agentfarm.evals._suite import Suite, Task

_PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_COLOURS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colours": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 3,
            "maxItems": 3,
        }
    },
    "required": ["colours"],
    "additionalProperties": False,
}
_SENTIMENT: dict[str, Any] = {
    "type": "object",
    "properties": {"sentiment": {"enum": ["positive", "negative"]}},
    "required": ["sentiment"],
    "additionalProperties": False,
}


SUITE = Suite(
    name="smoke",
    description="Twenty small tasks that a tiny model can partly do.",
    system="Answer as briefly as you can.",
    max_tokens=24,
    tasks=(
        Task(
            id="add",
            prompt="What is 2 + 3?",
            target=5,
            scorer=numeric(),
            metadata={"category": "arithmetic"},
        ),
        Task(
            id="subtract",
            prompt="What is 100 - 37?",
            target=63,
            scorer=numeric(),
            metadata={"category": "arithmetic"},
        ),
        Task(
            id="word-problem",
            prompt="Tom has 3 apples and buys 4 more. How many apples has Tom now?",
            target=7,
            scorer=numeric(),
            metadata={"category": "arithmetic"},
        ),
        Task(
            id="count-letters",
            prompt="How many letters are in the word 'cat'?",
            target=3,
            scorer=numeric(),
            metadata={"category": "counting"},
        ),
        Task(
            id="capital",
            prompt="What is the capital of France?",
            target="Paris",
            scorer=includes(),
            metadata={"category": "knowledge"},
        ),
        Task(
            id="formula",
            prompt="What is the chemical formula of water?",
            target=r"\bH[2₂]O\b",
            scorer=regex(),
            metadata={"category": "knowledge"},
        ),
        Task(
            id="no",
            prompt="Is ice hot? Answer yes or no.",
            target="no",
            scorer=exact(),
            metadata={"category": "yes-no"},
        ),
        Task(
            id="yes",
            prompt="Do birds have wings? Answer yes or no.",
            target="yes",
            scorer=exact(),
            metadata={"category": "yes-no"},
        ),
        Task(
            id="copy",
            prompt="Say exactly: good morning",
            target="good morning",
            scorer=exact(),
            metadata={"category": "copying"},
        ),
        Task(
            id="opposite",
            prompt="What is the opposite of 'hot'?",
            target="cold",
            scorer=includes(),
            metadata={"category": "words"},
        ),
        Task(
            id="plural",
            prompt="The plural of 'mouse' is",
            target="mice",
            scorer=includes(),
            metadata={"category": "words"},
        ),
        Task(
            id="spanish",
            prompt="What is the Spanish word for 'house'?",
            target="casa",
            scorer=includes(),
            metadata={"category": "translation"},
        ),
        Task(
            id="sort",
            prompt="Sort these numbers: 3, 1, 2",
            target=r"\b1\D+2\D+3\b",
            scorer=regex(),
            metadata={"category": "sorting"},
        ),
        Task(
            id="iso-date",
            prompt="Write the date 5 March 2024 as YYYY-MM-DD.",
            target=r"\b2024-03-05\b",
            scorer=regex(),
            metadata={"category": "format"},
        ),
        Task(
            id="find-year",
            prompt="The bridge was opened in 1932 by the mayor. In which year was it opened?",
            target=1932,
            scorer=numeric(),
            metadata={"category": "extraction"},
        ),
        Task(
            id="choose-planet",
            prompt="Which one is a planet? Answer with the letter.",
            choices=("Mars", "Paris", "Amazon", "Bach"),
            target="A",
            scorer=choice(),
            metadata={"category": "choice"},
        ),
        Task(
            id="choose-animal",
            prompt="Which one is an animal? Answer with the letter.",
            choices=("table", "dog", "stone", "cloud"),
            target="B",
            scorer=choice(),
            metadata={"category": "choice"},
        ),
        Task(
            id="json-person",
            prompt="Anna is 31 years old. Give name and age as JSON.",
            target={"name": "Anna", "age": 31},
            scorer=json_schema(),
            response_schema=_PERSON,
            max_tokens=40,
            metadata={"category": "json"},
        ),
        Task(
            id="json-colours",
            prompt="Give three colours as JSON.",
            scorer=json_schema(),
            response_schema=_COLOURS,
            max_tokens=40,
            metadata={"category": "json"},
        ),
        Task(
            id="json-sentiment",
            prompt="Review: 'A wonderful film, I loved it.' Give the sentiment as JSON.",
            target={"sentiment": "positive"},
            scorer=json_schema(),
            response_schema=_SENTIMENT,
            metadata={"category": "json"},
        ),
    ),
)
