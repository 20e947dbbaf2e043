"""What each scorer takes for right, and what it does not."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from agentfarm.errors import EvalError
from agentfarm.evals import (
    ScoreContext,
    Task,
    choice,
    exact,
    includes,
    json_schema,
    numeric,
    regex,
)
from agentfarm.evals._scorers import make_scorer
from agentfarm.llm import ChatResponse, Message, Timing, Usage


def judge(scorer, text, target=None, **fields):
    task = Task(id="t", prompt="?", target=target, scorer=scorer, **fields)
    response = ChatResponse(
        message=Message(role="assistant", content=text),
        model="m",
        provider="fake",
        host="",
        finish_reason="stop",
        usage=Usage(),
        timing=Timing(started_at=0),
    )
    return scorer(ScoreContext(task=task, text=text.strip(), response=response))


@pytest.mark.parametrize(
    ("text", "target", "value"),
    [
        ("Paris", "Paris", 1),
        (' "paris." ', "Paris", 1),
        ("**Paris**\n", "Paris", 1),
        ("New   York", "new york", 1),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER P}aris", "Paris", 1),
        ("Straße", "STRASSE", 1),
        ("It is Paris", "Paris", 0),
        ("", "Paris", 0),
        ("-5", "5", 0),
        ("!", "?", 0),
        ("b", ["a", "b"], 1),
    ],
)
def test_exact(text, target, value):
    assert judge(exact(), text, target).value == value


def test_exact_can_be_strict():
    assert judge(exact(ignore_case=False), "paris", "Paris").value == 0
    assert judge(exact(trim=False), "Paris.", "Paris").value == 0


@pytest.mark.parametrize(
    ("text", "target", "value"),
    [
        ("The capital is Paris.", "paris", 1),
        ("Parisian", "Paris", 0),
        ("comparison, Paris", "Paris", 1),
        ("It is C++.", "C++", 1),
        ("It is C+++", "C++", 1),
        ("new\nyork", "New York", 1),
        ("I know", "no", 0),
        ("x", ["x", "y"], 1),
    ],
)
def test_includes(text, target, value):
    assert judge(includes(), text, target).value == value


def test_includes_can_want_all_and_parts_of_words():
    both = ["red", "blue"]
    assert judge(includes(need_all=True), "red and blue", both).value == 1
    half = judge(includes(need_all=True), "red", both)
    assert half.value == 0
    assert "blue" in half.explanation
    assert judge(includes(whole_words=False), "東京です", "東京").value == 1


def test_regex_takes_its_pattern_or_the_targets():
    found = judge(regex(r"\d{4}"), "in 1932 or so")
    assert (found.value, found.answer) == (1, "1932")
    assert judge(regex(full=True), "in 1932", r"\d{4}").value == 0
    assert judge(regex(full=True), " 1932\n", [r"x", r"\d{4}"]).value == 1
    assert judge(regex(), "YES", "yes").value == 0
    assert judge(regex(ignore_case=True), "YES", "yes").value == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("The answer is 5.", 5),
        ("2 + 3 = 5", 5),
        ("$1,234.50", 1234.5),
        ("1,234,567", 1234567),
        ("1e3", 1000),
        ("1.5E-3 m", 0.0015),
        ("3/4", 0.75),
        ("x=-7", -7),
        ("\N{MINUS SIGN}7", -7),
        ("+7", 7),
        ("5-3", 3),
        (".5", 0.5),
        ("50%", 50),
        ("12km", 12),
        ("about ...42", 42),
        ("1, 2, 3", 3),
        ("1,2,3", 3),
        ("**42**", 42),
        (r"$\boxed{42}$", 42),
        ("on 1/2/2024", 2024),
        ("12 of H2O", 12),
        ("7 and 1e999", 7),
        ("8 and 1/0", 8),
    ],
)
def test_numeric_reads_the_last_number(text, number):
    assert judge(numeric(), text, number).value == 1
    assert judge(numeric(), text, number + 1).value == 0


@pytest.mark.parametrize("text", ["", "five", "H2O", "nan", "inf"])
def test_numeric_without_a_number_is_wrong(text):
    assert judge(numeric(), text, 5).value == 0


def test_numeric_picks_and_tolerates_what_it_is_told():
    assert judge(numeric(pick="first"), "5 or 6", 5).value == 1
    assert judge(numeric(pick="only"), "5 or 6", 6).value == 0
    assert judge(numeric(pick="only"), "it is 6", 6).value == 1
    assert judge(numeric(tolerance=0.1), "3.2", 3.14).value == 1
    assert judge(numeric(tolerance=0.1), "3.3", 3.14).value == 0
    assert judge(numeric(relative=0.01), "1009", 1000).value == 1
    assert judge(numeric(relative=0.01), "1011", 1000).value == 0
    assert judge(numeric(), "0.1", "1/10").value == 1
    assert judge(numeric(), "7", [6, 7]).value == 1


@pytest.mark.parametrize(
    ("scorer", "target", "text"),
    [
        (numeric(), 5, "1," * 50_000 + "x"),
        (numeric(), 5, "1," + "234," * 30_000 + "5"),
        (numeric(), 5, "9" * 100_000 + "/"),
        (numeric(), 5, "1/" * 50_000),
        (choice(), "A", "A " * 50_000),
        (choice(), "A", "answer" + " " * 100_000 + "x"),
        (choice(), "A", "answer" + " is" * 50_000),
        (choice(), "A", "answer A " * 20_000),
        (json_schema(), {"a": 1}, "[" * 100_000),
        (json_schema(), {"a": 1}, "```x\n" * 30_000),
        (includes(), "b", "aa" * 50_000),
    ],
)
def test_a_hostile_answer_costs_little_time(scorer, target, text):
    start = time.process_time()
    judge(scorer, text, target)
    assert time.process_time() - start < 1.0


COLOURS = ("red", "green", "light blue", "a cat")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("B) green", "B"),
        ("b: green", "B"),
        ("B - it is green", "B"),
        ("B green", "B"),
        ("B\nbecause it is", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is (b).", "B"),
        ("Answer: b", "B"),
        ("answer: A", "A"),
        ("I choose option C", "C"),
        (r"$\boxed{C}$", "C"),
        ("The answer is A. Wait, no: the answer is C.", "C"),
        ("A) red\n\nThe correct answer is C) light blue.", "C"),
        ("It must be (D) then", "D"),
        ("I think it is B because grass is", "B"),
        ("light blue", "C"),
        ("The sky is light blue, I'd say", "C"),
        ("A cat is what I see", "D"),
        ("The answer is a cat", "D"),
        ("The answer is b because of grass", "B"),
        ("A and B are wrong. The answer is C.", "C"),
        ("B, because grass is", "B"),
    ],
)
def test_choice_reads_the_letter(text, letter):
    score = judge(choice(), text, letter, choices=COLOURS)
    assert (score.value, score.answer) == (1, letter)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A dog is nice",
        "I am not sure",
        "A or B",
        "(A) and (B)",
        "The answer is A or B.",
        "The answer is (A) and (B)",
        "A) red\nB) green\nC) light blue",
        "red or green",
        "Zebra",
        "E",
        "Because",
        "That's a hard one",
        "The answer is a mystery",
    ],
)
def test_choice_sees_no_letter_where_none_is_chosen(text):
    score = judge(choice(), text, "A", choices=COLOURS)
    assert (score.value, score.answer) == (0, "")


def test_choice_takes_the_targets_text_and_works_without_choices():
    assert judge(choice(), "B", "green", choices=COLOURS).value == 1
    assert judge(choice("ABCDE"), "e)", "E").value == 1
    assert judge(choice(), "C", "B").value == 0
    # A choice that reads like a letter is meant by its text.
    assert judge(choice(), "C", "A", choices=("B", "C", "A")).value == 1


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Anna", "age": 31}',
        '```json\n{"name": "Anna", "age": 31}\n```',
        'Here you are: {"age": 31, "name": "anna.", "x": 0} Good?',
        'Not {this} but {"name": "Anna", "age": 31}',
    ],
)
def test_json_schema_finds_the_json(text):
    target = {"name": "Anna", "age": 31}
    assert judge(json_schema(), text, target, response_schema=PERSON).value == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Anna is 31", "no JSON"),
        ('{"name": "Anna", "age": "31"}', "$.age"),
        ('{"name": "Anna", "age": 32}', "age is 32, not 31"),
        ('{"name": "Anna"}', "'age' is a required property"),
        ("[1]", "is not of type 'object'"),
    ],
)
def test_json_schema_says_what_is_wrong(text, words):
    target = {"name": "Anna", "age": 31}
    score = judge(json_schema(PERSON), text, target)
    assert score.value == 0
    assert words in score.explanation


def test_json_schema_gives_partial_credit():
    target = {"name": "Anna", "age": 31}
    score = judge(json_schema(PERSON, partial=True), '{"name":"Anna","age":3}', target)
    assert score.value == pytest.approx(2 / 3)
    assert judge(json_schema(partial=True), "[1, 2]", [1, 2]).value == 1


@pytest.mark.parametrize(
    ("target", "text", "value"),
    [
        ({"ok": True}, '{"ok": 1}', 0),
        ({"ok": 1}, '{"ok": true}', 0),
        ({"n": 1}, '{"n": 1.0}', 1),
        ({"n": [1, 2]}, '{"n": [1, 2]}', 1),
        ({"n": [1, 2]}, '{"n": [2, 1]}', 0),
        ({"o": {"a": 1}}, '{"o": {"a": 1}}', 1),
        ({"o": {"a": 1}}, '{"o": {"a": 1, "b": 2}}', 0),
        ({"n": None}, '{"n": null}', 1),
        ({"n": None}, "{}", 0),
        ([1], '"1"', 0),
    ],
)
def test_json_values_are_compared_by_type(target, text, value):
    assert judge(json_schema(), text, target).value == value


def test_a_remote_schema_is_not_fetched():
    hits = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        remote = {"$ref": f"http://127.0.0.1:{server.server_port}/schema.json"}
        try:
            with pytest.raises(Exception, match="schema"):
                judge(json_schema(remote), "{}")
        finally:
            server.shutdown()
            thread.join()
    assert hits == []


def test_scorers_are_built_from_names():
    assert make_scorer("exact") == exact()
    assert make_scorer({"name": "numeric", "tolerance": 0.5}) == numeric(tolerance=0.5)
    for spec, words in [
        ("exakt", "no scorer 'exakt'"),
        ({"tolerance": 1}, "no scorer None"),
        ({"name": "exact", "tolerance": 1}, "exact cannot be built"),
        ({"name": "numeric", "pick": "best"}, "pick='best'"),
        ({"name": "numeric", "tolerance": -1}, "tolerance=-1"),
        ({"name": "choice", "letters": "aA"}, "letters='aA'"),
    ]:
        with pytest.raises(EvalError, match=words):
            make_scorer(spec)
