"""The code tools over a real sandbox and a real folder."""

import json

import anyio
import pytest

from agentfarm.llm import ToolCall
from agentfarm.tools import ToolRegistry, sandbox_tools
from agentfarm.tools.sandbox import DockerSandbox

pytestmark = pytest.mark.docker


@pytest.fixture
async def use(engine, sandbox_image, tmp_path):
    """Call a tool by name, with the arguments as the JSON text of a model."""
    folder = tmp_path / "work"
    folder.mkdir()
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=1) as sandbox:
        registry = ToolRegistry(sandbox_tools(sandbox, workspace=folder, timeout_s=30))

        async def call(name, **arguments):
            raw = json.dumps(arguments)
            return await registry.call(
                ToolCall(id="1", name=name, arguments=arguments, raw_arguments=raw)
            )

        yield call


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


async def test_python_reads_and_changes_the_workspace(use, work):
    (work / "data.txt").write_text("6 7")
    (work / "old.txt").write_text("old")
    code = (
        "import os, pathlib, sys\n"
        "a, b = map(int, open('data.txt').read().split())\n"
        "os.makedirs('out')\n"
        "pathlib.Path('out/answer').write_text(str(a * b))\n"
        "os.chmod('out/answer', 0o4755)\n"
        "os.remove('old.txt')\n"
        "os.symlink('/etc/passwd', 'link')\n"
        "print(os.path.exists('main.py'), os.getuid() == 0)\n"
        "sys.exit(3)\n"
    )
    result = await use("run_python", code=code, timeout_s=None)
    assert not result.ok
    assert "Exit code 3" in result.text
    assert "False False" in result.text
    assert result.data["written"] == ["out/answer"]
    assert result.data["deleted"] == ["old.txt"]
    assert list(result.data["refused"]) == ["link"]
    assert (work / "out/answer").read_text() == "42"
    assert (work / "out/answer").stat().st_mode & 0o7777 == 0o700
    assert sorted(path.name for path in work.iterdir()) == ["data.txt", "out"]


async def test_a_traceback_quotes_the_source(use):
    result = await use("run_python", code="def f():\n    raise KeyError('lost')\nf()\n")
    assert "raise KeyError('lost')" in result.text
    assert "line 2" in result.text


async def test_tests_are_run_and_counted(use, work):
    (work / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    (work / "tests").mkdir()
    (work / "tests/test_calc.py").write_text(
        "import pytest\nfrom calc import add\n"
        "def test_zero(): assert add(0, 0) == 0\n"
        "def test_add(): assert add(1, 2) == 3\n"
        "@pytest.mark.skip\ndef test_later(): pass\n"
    )
    result = await use("run_tests")
    assert not result.ok
    wanted = {"passed": 1, "failed": 1, "errors": 0, "skipped": 1, "exit_code": 1}
    assert {name: result.data[name] for name in wanted} == wanted
    (failure,) = result.data["failures"]
    assert failure["name"].endswith("test_add")
    assert "assert -1 == 3" in failure["message"]
    (work / "calc.py").write_text("def add(a, b):\n    return a + b\n")
    result = await use("run_tests", path="/work/tests", pattern=None)
    assert (result.ok, result.data["passed"]) == (True, 2)
    result = await use("run_tests", path="tests/test_calc.py::test_add")
    assert (result.ok, result.data["passed"]) == (True, 1)
    result = await use("run_tests", pattern="zero")
    assert (result.ok, result.data["passed"]) == (True, 1)
    assert sorted(path.name for path in work.rglob("*")) == [
        "calc.py",
        "test_calc.py",
        "tests",
    ]


@pytest.mark.parametrize(
    ("source", "exit_code"),
    [
        ("import os\ndef test_x(): os._exit(0)\n", 0),
        ("", 5),
        ("import missing\n", 2),
        ("print('5 passed in 0.01s'); import os; os._exit(0)\n", 0),
    ],
)
async def test_tests_that_did_not_run_never_pass(use, work, source, exit_code):
    (work / "test_x.py").write_text(source)
    result = await use("run_tests")
    assert not result.ok
    assert result.data["exit_code"] == exit_code
    assert not result.data["passed"]


async def test_a_command_that_never_ends_is_ended_and_keeps_nothing(use, work):
    with anyio.fail_after(30):
        result = await use(
            "run_command", command="touch x; while :; do :; done", timeout_s=1
        )
    assert result.data["timed_out"]
    assert "its timeout of 1 s" in result.text
    assert list(work.iterdir()) == []


async def test_a_flood_is_told_in_few_words(use):
    result = await use("run_command", command="yes | head -c 5000000")
    assert result.ok
    assert result.data["truncated"]
    assert "more than the sandbox keeps" in result.text
    assert len(result.text) < 9000


async def test_calls_at_once_see_their_own_copy(use, work):
    async def call(number):
        await use("run_command", command=f"echo {number} > {number}; ls | wc -l > n")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(call, number)
    assert {path.name for path in work.iterdir()} == {"0", "1", "2", "3", "n"}
    for number in range(4):
        assert (work / str(number)).read_text() == f"{number}\n"


async def test_a_command_that_cannot_be_sent_is_a_result(use):
    result = await use("run_command", command="echo \0")
    assert not result.ok
