"""Suites come from names, files and code; an error names the place."""

import json

import pytest

from agentfarm.errors import EvalError
from agentfarm.evals import Suite, exact, load_suite, numeric, suite_names

TOML = """
name = "capitals"
system = "Be brief."
temperature = 0.5
max_tokens = 16
scorer = "includes"

[[tasks]]
id = "france"
prompt = "The capital of France?"
target = "Paris"
metadata = { category = "geography" }

[[tasks]]
id = "sum"
prompt = "2 + 2?"
target = 4
scorer = { name = "numeric", tolerance = 0.5 }
"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_toml_file_is_a_suite(tmp_path):
    suite = load_suite(write(tmp_path / "x.toml", TOML))
    assert (suite.name, suite.system, suite.temperature) == (
        "capitals",
        "Be brief.",
        0.5,
    )
    assert [task.id for task in suite.tasks] == ["france", "sum"]
    assert suite.tasks[0].metadata == {"category": "geography"}
    assert suite.tasks[1].scorer == numeric(tolerance=0.5)


def test_a_json_file_is_a_suite_and_is_named_after_its_file(tmp_path):
    task = {
        "id": "a",
        "messages": [
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "3"},
        ],
        "target": ["4", "four"],
        "scorer": "exact",
    }
    path = write(tmp_path / "mine.json", json.dumps({"tasks": [task]}))
    suite = load_suite(str(path))
    assert suite.name == "mine"
    assert [turn.content for turn in suite.tasks[0].messages] == ["1", "2", "3"]
    assert suite.tasks[0].targets == ("4", "four")


def test_a_jsonl_file_has_a_task_per_line(tmp_path):
    rows = [
        {"id": f"t{n}", "prompt": "?", "target": "x", "scorer": "exact"}
        for n in range(3)
    ]
    text = "\n\n".join(json.dumps(row) for row in rows) + "\n"
    suite = load_suite(write(tmp_path / "many.jsonl", text))
    assert suite.name == "many"
    assert [task.id for task in suite.tasks] == ["t0", "t1", "t2"]
    assert suite.tasks[0].scorer == exact()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.toml", "name = ", "x.toml is not valid TOML"),
        ("x.toml", "name = 'x'", "x.toml holds no list of tasks"),
        ("x.toml", TOML.replace('prompt = "2', 'promt = "2'), "x.toml:14 has an unk"),
        ("x.toml", TOML.replace("target = 4", "target = 'x'"), "x.toml:14: Task 'sum'"),
        ("x.toml", TOML.replace("target = 4", ""), "x.toml:14: Task 'sum' has no targ"),
        ("x.toml", TOML.replace('"numeric"', '"numerik"'), "no scorer 'numerik'"),
        ("x.toml", TOML.replace('"sum"', '"france"'), "more than once: france"),
        ("x.toml", TOML.replace('"sum"', "7"), "x.toml:14 has id = 7. Write a text"),
        ("x.toml", TOML.replace("0.5\n", "true\n", 1), "has temperature = True"),
        ("x.toml", TOML.replace('scorer = "includes"', ""), "x.toml:8 has no scorer"),
        ("x.json", '{"tasks": [\n}', "line 2 column 1"),
        ("x.json", '{"tasks": [3]}', "x.json, task 1 is no table"),
        ("x.json", "[]", "holds no list of tasks"),
        ("x.json", '{"tasks": []}', "has no tasks"),
        ("x.jsonl", '{"id": "a"}\n{"id"}\n', "x.jsonl:2 is not valid JSON"),
        ("x.jsonl", '\n{"id": "a"}\n', "x.jsonl:2 has no scorer"),
        ("x.jsonl", '{"id"\n', "x.jsonl:1 is not valid JSON"),
        (
            "x.jsonl",
            '\n{"id": "a", "scorer": "exact", "messages": [{"role": "x"}]}',
            "x.jsonl:2: {'role': 'x'} is no message",
        ),
        (
            "x.jsonl",
            '{"id": "a", "prompt": "?", "scorer": "choice", "choices": [1, 2]}',
            "x.jsonl:1: A choice is no text",
        ),
    ],
)
def test_an_error_names_the_file_and_the_place(tmp_path, name, text, words):
    with pytest.raises(EvalError) as caught:
        load_suite(write(tmp_path / name, text))
    assert words in str(caught.value)
    assert caught.value.remedy


def test_a_misspelt_field_is_guessed(tmp_path):
    path = write(tmp_path / "x.toml", TOML.replace("prompt", "promt"))
    with pytest.raises(EvalError, match="Did you mean prompt"):
        load_suite(path)


def test_a_missing_or_binary_file_is_an_error(tmp_path):
    with pytest.raises(EvalError, match="cannot be read"):
        load_suite(tmp_path / "no.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(EvalError, match="not UTF-8"):
        load_suite(tmp_path / "b.toml")


def test_code_gives_a_suite_or_makes_one(tmp_path):
    code = """
from agentfarm.evals import Suite, Task, exact

MINE = Suite(name="mine", tasks=(Task(id="a", prompt="?", target="x", scorer=exact()),))
NUMBER = 3

def make():
    return MINE
"""
    path = write(tmp_path / "code.py", code)
    assert load_suite(f"{path}:MINE").name == "mine"
    assert load_suite(f"{path}:make").name == "mine"
    assert load_suite("agentfarm.evals.suites.smoke:SUITE").name == "smoke"
    for place, words in [
        (f"{path}:NUMBER", "is a int and no Suite"),
        (f"{path}:nothing", "has no attribute 'nothing'"),
        ("no_such_module_here:x", "cannot be imported"),
        (f"{tmp_path}/none.py:x", "cannot be imported"),
    ]:
        with pytest.raises(EvalError, match=words):
            load_suite(place)


def test_built_in_suites_have_names():
    assert "smoke" in suite_names()
    assert isinstance(load_suite("smoke"), Suite)
    with pytest.raises(EvalError, match="Did you mean smoke"):
        load_suite("smok")
