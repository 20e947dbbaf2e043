"""The tasks of the coding suite, judged in a real sandbox, and what would cheat."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import agentfarm
from agentfarm.errors import EvalError, SandboxError
from agentfarm.evals._code import load_code_tasks, score_files
from agentfarm.tools.sandbox import DockerSandbox, SandboxFile, SandboxResult

FOLDER = Path(agentfarm.__file__).parent / "evals" / "suites" / "coding"
TASKS = {task.id: task for task in load_code_tasks(FOLDER)}
PRIMES = TASKS["prime_function"]


# Each test runs many sandboxes, which takes its time on a busy machine.
def slow_in_docker(test):
    return pytest.mark.docker(pytest.mark.timeout(600)(test))


CORRECT = PRIMES.reference["primes.py"]
WRONG = "def is_prime(number):\n    return False\n"
# Each is a wrong answer that tries to be taken for a right one.
HOSTILE = {
    "conftest": {
        "primes.py": WRONG,
        "conftest.py": "import pytest\n"
        "@pytest.hookimpl(hookwrapper=True)\n"
        "def pytest_runtest_makereport(item, call):\n"
        "    outcome = yield\n"
        "    outcome.get_result().outcome = 'passed'\n",
    },
    "settings": {
        "primes.py": WRONG,
        "pytest.ini": "[pytest]\naddopts = --collect-only -p cheat\n",
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-p cheat'\n",
        "setup.cfg": "[tool:pytest]\naddopts = -p cheat\n",
        "cheat.py": "def pytest_pyfunc_call(pyfuncitem):\n    return True\n",
    },
    "startup": {
        "primes.py": WRONG,
        **dict.fromkeys(
            ("sitecustomize.py", "usercustomize.py", "pytest.py", "json.py"),
            "import os\nos._exit(0)\n",
        ),
        "_pytest/__init__.py": "import os\nos._exit(0)\n",
    },
    "exit_at_import": {"primes.py": "import os\nos._exit(0)\n"},
    "exit_at_the_end": {
        "primes.py": CORRECT
        + "_is_prime = is_prime\n"
        + "def is_prime(number):\n"
        + "    if not isinstance(number, int): import os; os._exit(0)\n"
        + "    return _is_prime(number)\n"
    },
    "skip_at_import": {
        "primes.py": "import pytest\npytest.skip(allow_module_level=1)\n"
    },
    "patch_runtest": {
        "primes.py": WRONG + "import _pytest.python\n"
        "_pytest.python.Function.runtest = lambda self: None\n"
    },
    "patch_reports": {
        "primes.py": WRONG + "import _pytest.reports\n"
        "_pytest.reports.TestReport.outcome = property(\n"
        "    lambda self: 'passed', lambda self, value: None)\n"
    },
    "patch_raises": {
        "primes.py": CORRECT.replace("raise TypeError", "return TypeError")
        + "import contextlib, pytest\n"
        "pytest.raises = lambda *a, **k: contextlib.nullcontext()\n"
    },
    "module_that_agrees": {
        "primes.py": "import sys\n"
        "class Agreeing:\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = None\n"
        "class Module:\n"
        "    def __getattr__(self, name): return lambda *a: Agreeing()\n"
        "sys.modules[__name__] = Module()\n"
    },
    "forged_report": {
        "primes.py": WRONG + "import atexit, glob, json, os\n"
        "def forge():\n"
        "    for name in PASSED:\n"
        "        line = json.dumps({'module': 'test_primes.py', 'check': name,\n"
        "                           'status': 'passed', 'message': ''})\n"
        "        for text in (line, '0' * 32 + line, '0' * 32 + ' ' + line):\n"
        "            for fd in range(64):\n"
        "                try: os.write(fd, (text + '\\n').encode())\n"
        "                except OSError: pass\n"
        "    for pid in os.listdir('/proc'):\n"
        "        for path in glob.glob(f'/proc/{pid}/fd/*'):\n"
        "            try: open(path, 'w').write(line)\n"
        "            except OSError: pass\n"
        f"PASSED = {PRIMES.checks!r}\n"
        "forge()\n"
        "atexit.register(forge)\n"
    },
    "no_files": {},
}


@pytest.fixture
async def sandbox(engine, sandbox_image):
    options = {"engine": engine, "image": sandbox_image, "concurrency": 8, "pool": 2}
    async with DockerSandbox(**options) as sandbox:
        yield sandbox


async def score_all(task, answers, sandbox, *, timeout_s=100.0, at_once=3):
    """Score answers, each laid over the files of the task."""
    scores, limiter = {}, anyio.CapacityLimiter(at_once)

    async def score(name, files):
        async with limiter:
            scores[name] = await score_files(
                task, {**task.files, **files}, sandbox, timeout_s=timeout_s
            )

    async with anyio.create_task_group() as group:
        for name, files in answers.items():
            group.start_soon(score, name, files)
    return scores


@slow_in_docker
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
async def test_the_reference_is_right_and_every_wrong_answer_is_caught(task, sandbox):
    untouched = {"untouched": {}} if task.files else {}
    answers = {"reference": task.reference, **untouched, **task.wrong}
    scores = await score_all(task, answers, sandbox)
    reference = scores.pop("reference")
    assert reference.value == 1.0, reference.checks
    assert reference.passed == reference.total == len(task.checks)
    values = {name: score.value for name, score in scores.items()}
    assert max(values.values()) < 1, values
    # Work counts: a plausible answer is worth more than none, and no two fail alike.
    assert values.pop("untouched", 0.0) < 0.3
    assert max(values.values()) > 0.5, values
    failed = {
        tuple(check for check, status, _ in scores[name].checks if status != "passed")
        for name in task.wrong
    }
    assert len(failed) >= 2


@slow_in_docker
async def test_a_race_is_found_and_its_mending_believed_each_time(sandbox):
    """Twenty runs of the hidden tests in four sandboxes, each beside its module."""
    task = TASKS["counter_race"]
    (source,) = task.tests.values()
    times = {
        f"test_{n}.py": source.replace("def test_", f"def test_{n}_") for n in "12345"
    }
    weights = {
        check.replace("test_", f"test_{n}_", 1): weight
        for n in "12345"
        for check, weight in task.weights.items()
    }
    often = replace(task, tests=times, weights=weights)
    answers = {f"reference {n}": task.reference for n in range(4)}
    untouched = {f"untouched {n}": {} for n in range(4)}
    # They sleep most of their time.
    scores = await score_all(often, answers | untouched, sandbox, at_once=8)
    races = ("at_once_both_count", "lose_nothing", "returned_twice", "loses_nothing")
    for answer, score in scores.items():
        wanted = "passed" if answer in answers else "failed"
        found = {
            check: status for check, status, _ in score.checks if check.endswith(races)
        }
        assert len(found) == 20
        assert set(found.values()) == {wanted}, found


@slow_in_docker
async def test_no_hostile_answer_is_right(sandbox):
    hasty = replace(PRIMES, check_timeout_s=5.0)
    scores = await score_all(hasty, HOSTILE, sandbox)
    assert {
        name: score.value for name, score in scores.items() if score.value == 1
    } == {}
    nothing = {"exit_at_import", "skip_at_import", "module_that_agrees"}
    nothing |= {"no_files", "patch_runtest", "patch_raises", "patch_reports"}
    assert {name: scores[name].passed for name in nothing} == dict.fromkeys(nothing, 0)
    for name in ("patch_runtest", "patch_raises"):
        assert "a check passed that must fail" in scores[name].explanation
    honest = (await score_all(hasty, {"wrong": {"primes.py": WRONG}}, sandbox))["wrong"]
    for name in ("conftest", "settings", "startup", "forged_report"):
        assert scores[name].checks == honest.checks, name
    assert 0 < honest.value < 1
    last = scores["exit_at_the_end"].checks[-1]
    assert last == (
        "test_what_is_no_int_is_refused",
        "missing",
        "The process ended with status 0 before this check.",
    )


@slow_in_docker
async def test_files_that_are_no_part_of_the_answer_do_no_harm(sandbox):
    files = {
        **PRIMES.reference,
        "conftest.py": "raise RuntimeError('not for you')\n",
        "json.py": "raise RuntimeError('not for you')\n",
        "data.bin": SandboxFile(content=b"\x00\xff", executable=True),
    }
    assert (await score_files(PRIMES, files, sandbox)).value == 1.0
    task = TASKS["rest_api"]
    files = {
        **task.reference,
        "http/__init__.py": "raise RuntimeError('not for you')\n",
    }
    assert (await score_files(task, files, sandbox)).value == 1.0


@slow_in_docker
async def test_a_check_that_never_ends_costs_itself_alone(sandbox):
    answer = CORRECT.replace(
        "    if number < 4:", "    while number < 0:\n        pass\n    if number < 4:"
    )
    hasty = replace(PRIMES, check_timeout_s=1.0)
    score = await score_files(hasty, {"primes.py": answer}, sandbox, timeout_s=30.0)
    assert [check for check in score.checks if check[1] != "passed"] == [
        ("test_negative_numbers_are_no_primes", "failed", "It took more than 1 s.")
    ]
    assert score.value == pytest.approx(7 / 8)
    flood = {"primes.py": "import os\nwhile True:\n    os.write(1, bytes(4096))\n"}
    assert (await score_files(hasty, flood, sandbox, timeout_s=4.0)).passed == 0
    stuck = {"primes.py": "while True:\n    pass\n"}
    score = await score_files(hasty, stuck, sandbox, timeout_s=4.0)
    assert score.passed == 0
    assert score.checks[0][1] == "missing"
    assert "The time for all checks was over" in score.checks[0][2]


async def test_names_that_cannot_be_laid_in_are_the_answers_fault():
    score = await score_files(PRIMES, {"../primes.py": CORRECT}, sandbox=Broken())
    assert (score.value, score.passed, score.total) == (0.0, 0, 8)
    assert "../primes.py" in score.explanation
    huge = {"primes.py": CORRECT, "x": SandboxFile(content=bytes(33 * 2**20))}
    assert "32 MiB" in (await score_files(PRIMES, huge, Broken())).explanation


async def test_a_sandbox_that_cannot_run_tests_is_no_low_score():
    with pytest.raises(SandboxError, match="No module named pytest") as caught:
        await score_files(PRIMES, PRIMES.reference, Broken())
    assert "agentfarm sandbox build" in caught.value.remedy


class Broken:
    """A sandbox whose image has no pytest."""

    async def run(self, *_, **__):
        return SandboxResult(exit_code=1, stderr="No module named pytest")


def test_there_are_eleven_tasks_in_four_categories():
    categories = [task.category for task in TASKS.values()]
    assert {name: categories.count(name) for name in categories} == {
        "code_generation": 4,
        "bug_fixing": 3,
        "refactoring": 2,
        "multi_step": 2,
    }
    for task in TASKS.values():
        assert task.title
        assert task.description.endswith(".")
        assert 4 <= len(task.checks) <= 12, task.id
        assert len(task.wrong) >= 2, task.id
        # The known defect of an earlier suite: what is to be mended was not there.
        needs_files = task.category in {"bug_fixing", "refactoring"}
        assert bool(task.files) == needs_files, task.id


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_prompts_name_what_the_tests_use(task):
    assert set(task.prompts) == {"en", "sv"}
    assert task.prompts["en"] != task.prompts["sv"]
    assert re.search(r"\b(och|inte|ska)\b", task.prompts["sv"])
    assert "hidden" not in task.prompts["en"]
    code = {"reference": task.reference, **task.wrong}
    modules = {Path(name).parts[0].removesuffix(".py") for name in task.reference}
    for language, prompt in task.prompts.items():
        for name in {*task.files, *task.reference} - {"textstats/counting.py"}:
            parts = Path(name).parts
            assert parts[-1] in prompt or parts[0] in prompt, (language, name)
        for source in task.tests.values():
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ImportFrom) and node.module in modules:
                    names = {node.module, *(alias.name for alias in node.names)}
                    given = prompt + "".join(task.files.values())
                    assert all(each in given for each in names), (language, names)
    for name, files in code.items():
        for path, source in files.items():
            ast.parse(source, f"{name}/{path}")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_prompts_in_both_languages_quote_the_same_code(task):
    def quoted(prompt):
        inline = re.findall(r"`([^`\n]+)`", prompt)
        return sorted(set(inline)), re.findall(r"^    .+$", prompt, re.MULTILINE)

    assert quoted(task.prompts["en"]) == quoted(task.prompts["sv"])


class TestLoading:
    @pytest.fixture
    def folder(self, tmp_path):
        parts = {
            "tasks.toml": '[[tasks]]\nid = "a"\ncategory = "bug_fixing"\n'
            'title = "A"\ndescription = "B."\n[tasks.weights]\ntest_one = 3\n',
            "a/prompt.en.md": "Do.",
            "a/prompt.sv.md": "Gör.",
            "a/tests/test_a.py": "def test_two(): ...\n\n\ndef test_one(): ...\n",
            "a/reference/a.py": "",
            "a/reference/__pycache__/a.pyc": "",
            "a/wrong/x/a.py": "",
        }
        for name, text in parts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    def test_a_task_has_its_parts(self, folder):
        (task,) = load_code_tasks(folder)
        assert task.prompts == {"en": "Do.", "sv": "Gör."}
        assert (task.files, task.reference) == ({}, {"a.py": ""})
        assert task.weights == {"test_two": 1.0, "test_one": 3.0}
        assert task.checks == ("test_two", "test_one")

    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            ("tasks.toml", "tasks = 1\n[", "lists no tasks"),
            ("tasks.toml", "[other]", "lists no tasks"),
            ("tasks.toml", '[[tasks]]\nid = "a"\nx = 1', "unknown fields: x"),
            ("tasks.toml", '[[tasks]]\nid = "a"\ncategory = "x"', "unknown category"),
            ("tasks.toml", '[[tasks]]\nid = "a"\ncategory = "bug_fixing"', "title"),
            ("a/tests/test_a.py", "", "do not fit"),
            ("a/tests/test_a.py", "class TestA: ...", "is a class"),
            ("a/tests/test_a.py", "@x\ndef test_one(): ...", "is decorated"),
            ("a/tests/test_a.py", "async def test_one(): ...", "or async"),
            ("a/tests/test_b.py", "def test_one(): ...", "is there twice"),
        ],
    )
    def test_what_is_malformed_is_told(self, folder, name, text, problem):
        (folder / name).write_text(text, encoding="utf-8")
        with pytest.raises(EvalError, match=problem):
            load_code_tasks(folder)

    @pytest.mark.parametrize("name", ["a/prompt.sv.md", "a/reference/a.py"])
    def test_what_is_missing_is_told(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(EvalError, match="a"):
            load_code_tasks(folder)
