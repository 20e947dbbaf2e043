"""The built-in suite `smoke`: its make-up, and its score on the real tiny model."""

import importlib.util
import json

import pytest

from agentfarm.evals import ScoreContext, load_suite, run
from agentfarm.evals._scoring import scorer_name
from agentfarm.llm import ChatResponse, Message, Timing, Usage

# An answer to each task that a person would give.
RIGHT = {
    "add": "5",
    "subtract": "63",
    "word-problem": "Tom has 7 apples.",
    "count-letters": "3",
    "capital": "Paris",
    "formula": "H2O",
    "no": "No",
    "yes": "Yes.",
    "copy": "good morning",
    "opposite": "cold",
    "plural": "mice",
    "spanish": "casa",
    "sort": "1, 2, 3",
    "iso-date": "2024-03-05",
    "find-year": "1932",
    "choose-planet": "A",
    "choose-animal": "B) dog",
    "json-person": json.dumps({"name": "Anna", "age": 31}),
    "json-colours": json.dumps({"colours": ["red", "green", "blue"]}),
    "json-sentiment": json.dumps({"sentiment": "positive"}),
}


def judge(task, text):
    response = ChatResponse(
        message=Message(role="assistant", content=text),
        model="m",
        provider="fake",
        host="",
        finish_reason="stop",
        usage=Usage(),
        timing=Timing(started_at=0),
    )
    return task.scorer(ScoreContext(task=task, text=text, response=response)).value


def test_smoke_has_twenty_varied_short_tasks():
    suite = load_suite("smoke")
    assert len(suite) == 20
    kinds = {scorer_name(task.scorer) for task in suite.tasks}
    assert kinds == {"exact", "includes", "regex", "numeric", "choice", "json_schema"}
    assert len({task.metadata["category"] for task in suite.tasks}) >= 10
    assert all(len(task.prompt) < 120 for task in suite.tasks)
    assert all((task.max_tokens or suite.max_tokens) <= 48 for task in suite.tasks)
    assert any(task.response_schema for task in suite.tasks)


@pytest.mark.parametrize("task", load_suite("smoke").tasks, ids=lambda task: task.id)
def test_a_persons_answer_is_right_and_nonsense_is_wrong(task):
    assert judge(task, RIGHT[task.id]) == 1
    assert judge(task, "purple 99 elephants") == 0


@pytest.mark.real_model
async def test_the_tiny_model_can_partly_do_it(settings, require):
    if importlib.util.find_spec("xllamacpp") is None:
        require("xllamacpp", "pip install 'agentfarm[local]'")
    result = await run("smoke", model="embedded", settings=settings, progress=False)
    assert result.errors == 0, result.to_dict()
    assert len(result.samples) == len(result.requests) == 20
    assert 0.3 <= (result.score or 0) <= 0.8, result
    for sample in result.samples:
        assert sample.input_tokens
        assert sample.output_tokens
        assert 0 < sample.ttft_s <= sample.latency_s
