"""Suites and tasks refuse what cannot be run, and hash what decides a score."""

import pytest

from agentfarm.errors import EvalError
from agentfarm.evals import (
    Score,
    Suite,
    Task,
    choice,
    exact,
    includes,
    json_schema,
    numeric,
    regex,
)
from agentfarm.llm import Message


def task(**fields):
    return Task(
        **{"id": "a", "prompt": "Say a", "target": "a", "scorer": exact(), **fields}
    )


def suite(*tasks, **fields):
    return Suite(**{"name": "s", "tasks": tasks or (task(),), **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": ""}, "has the id ''"),
        ({"id": " a"}, "has the id ' a'"),
        ({"id": "a\nb"}, "not printable"),
        ({"prompt": " "}, "'a' has no prompt"),
        ({"messages": (Message(role="user", content="x"),)}, "both a prompt and"),
        ({"target": None}, "has no target"),
        ({"target": " "}, "has no target"),
        ({"target": ("x", "")}, "has no target"),
        ({"target": object()}, "not JSON"),
        ({"metadata": {"x": {1, 2}}}, "not JSON"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"scorer": "exact"}, "not callable"),
        ({"scorer": regex(), "target": "("}, "does not compile"),
        ({"scorer": numeric(), "target": "five"}, "not one number"),
        ({"scorer": numeric(), "target": "1 2"}, "not one number"),
        ({"scorer": choice(), "choices": ("x", "y"), "target": "C"}, "is no choice"),
        ({"scorer": choice(), "choices": ("x",), "target": "A"}, "fewer than two"),
        ({"choices": ("x", " ")}, "blank choice"),
        ({"scorer": json_schema(), "target": None}, "neither a JSON schema nor"),
        ({"scorer": json_schema({"type": "nonsense"})}, "JSON schema that is not"),
    ],
)
def test_a_malformed_task_names_itself_and_the_problem(fields, words):
    with pytest.raises(EvalError) as caught:
        task(**fields)
    assert words in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tasks": ()}, "has no tasks"),
        ({"tasks": (task(), task(), task(id="b"))}, "more than once: a"),
        ({"name": " "}, "has the name"),
        ({"temperature": -1}, "temperature=-1"),
        ({"max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_a_malformed_suite_says_what_is_wrong(fields, words):
    with pytest.raises(EvalError, match=words):
        Suite(**{"name": "s", "tasks": (task(),), **fields})


def test_the_conversation_has_system_question_and_lettered_choices():
    one = task(prompt="Which?", choices=("red", "blue"), target="B", scorer=choice())
    turns = one.conversation("Be brief.")
    assert [turn.role for turn in turns] == ["system", "user"]
    assert turns[0].content == "Be brief."
    assert turns[1].content == "Which?\nA) red\nB) blue"


def test_a_task_overrides_the_suites_system_turn_and_can_have_none():
    assert task(system="Mine").conversation("Suite")[0].content == "Mine"
    assert [turn.role for turn in task(system="").conversation("Suite")] == ["user"]


def test_given_messages_are_sent_as_they_are():
    talk = (
        Message(role="user", content="1"),
        Message(role="assistant", content="2"),
        Message(role="user", content="3"),
    )
    assert task(prompt="", messages=talk).conversation() == talk


def test_targets_are_texts():
    assert task(target=5).targets == ("5",)
    assert task(target=["x", "y"]).targets == ("x", "y")
    assert task(target={"a": 1}, scorer=json_schema()).targets == ('{"a": 1}',)


@pytest.mark.parametrize(
    "other",
    [
        suite(task(prompt="Say b")),
        suite(task(target="b")),
        suite(task(id="b")),
        suite(task(scorer=includes())),
        suite(task(scorer=exact(ignore_case=False))),
        suite(task(max_tokens=3)),
        suite(task(system="x")),
        suite(task(response_schema={"type": "object"})),
        suite(max_tokens=3),
        suite(system="x"),
        suite(task(), task(id="b")),
    ],
)
def test_whatever_decides_the_score_changes_the_hash(other):
    assert other.suite_hash != suite().suite_hash


def test_what_does_not_decide_the_score_leaves_the_hash():
    same = suite(task(metadata={"x": 1}), name="other", description="x", temperature=1)
    assert same.suite_hash == suite().suite_hash
    assert len(same.suite_hash) == 16


def test_own_scorers_are_told_apart_by_their_place():
    def one(context):
        return Score(value=1)

    def two(context):
        return Score(value=1)

    hashes = {suite(task(scorer=scorer)).suite_hash for scorer in (one, two, exact())}
    assert len(hashes) == 3


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_score_lies_between_0_and_1(value):
    with pytest.raises(EvalError, match="outside 0 to 1"):
        Score(value=value)
