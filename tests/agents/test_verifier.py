"""What the verifier finds in a folder, by real tools in a real sandbox."""

import json

import anyio
import pytest

from agentfarm.agents._checks import Check, _judge_tests, checks_of
from agentfarm.agents._verifier import Verification, VerifierAgent
from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable
from agentfarm.events import EventBus, EventType
from agentfarm.tools._sandbox_tools import REPORT
from agentfarm.tools.sandbox import DockerSandbox, SandboxFile, SandboxResult

GOOD = {
    "calc.py": "def add(a: int, b: int) -> int:\n    return a + b\n",
    "shop/__init__.py": "from shop.cart import Cart\n",
    "shop/cart.py": "class Cart:\n    pass\n",
    "tests/test_calc.py": (
        "from calc import add\n\n\ndef test_add() -> None:\n    assert add(1, 2) == 3\n"
    ),
}


@pytest.fixture
def work(tmp_path):
    """Lay files into a folder, by name."""
    folder = tmp_path / "work"

    def lay(files):
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return folder

    return lay


@pytest.fixture
async def sandbox(engine, sandbox_image):
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=2) as sandbox:
        yield sandbox


@pytest.fixture
def verify(sandbox, work):
    """The verification of some files, and its checks by name."""

    async def verify(files, timeout_s=60.0):
        found = await VerifierAgent(sandbox, timeout_s=timeout_s).verify(work(files))
        return found, {check.name: check for check in found.checks}

    return verify


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def places(check):
    return [(each["file"], each["line"]) for each in check.findings]


@pytest.mark.docker
async def test_good_work_passes_every_check_and_stays_as_it_is(verify, work):
    found, by_name = await verify(GOOD)
    assert found.ok
    assert list(by_name) == ["syntax", "imports", "tests", "lint", "types"]
    assert {name: check.status for name, check in by_name.items()} == dict.fromkeys(
        by_name, "passed"
    )
    assert by_name["syntax"].detail == "4 files."
    assert by_name["imports"].detail == "3 modules."
    assert by_name["tests"].data["passed"] == 1
    assert found.evidence() == "Passed: syntax, imports, tests, lint, types."
    assert tree(work({})) == GOOD


@pytest.mark.docker
async def test_every_file_that_does_not_compile_is_named(verify):
    found, by_name = await verify(
        {
            "a.py": "def f(:\n    pass\n",
            "pkg/b.py": "x = 1\nif x\n    pass\n",
            "c.py": "fine = True\n",
            "d.py": "x = '\x00'\n",
        }
    )
    assert not found.ok
    syntax = by_name["syntax"]
    assert syntax.detail == "3 files of 4 cannot be compiled."
    assert [each["file"] for each in syntax.findings] == ["a.py", "d.py", "pkg/b.py"]
    assert {("a.py", 1), ("pkg/b.py", 2)} <= set(places(syntax))
    evidence = found.evidence()
    assert evidence.startswith("syntax failed: 3 files of 4")
    assert "a.py:1: SyntaxError: invalid syntax in: def f(:" in evidence
    assert "imports" not in evidence, "what does not compile is enough to know"


@pytest.mark.docker
async def test_each_module_is_imported_by_itself(verify):
    files = {
        "missing.py": "x = 1\nimport requests\n",
        "broken.py": "def f():\n    raise ValueError('no')\nf()\n",
        "indirect.py": "import broken\n",
        "pkg/__init__.py": "",
        "pkg/inner.py": "from pkg.none import thing\n",
        "app/main.py": "from helper import x\n",
        "app/helper.py": "x = 1\n",
        "src/lib/__init__.py": "from lib.core import x\n",
        "src/lib/core.py": "x = 1\n",
        "gone.py": "import os\nos._exit(0)\n",
        "script.py": "import sys\nprint(input())\n",
        "ends.py": "import sys\nsys.exit(3)\n",
        "threads.py": (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        ),
        "odd.py": (
            "class E(Exception):\n    def __str__(self):\n        raise OSError\nraise E\n"
        ),
        "json.py": "raise RuntimeError('never loaded by the checks themselves')\n",
        "setup.py": "raise SystemExit('no')\n",
        "test_x.py": "raise ValueError('a test is for pytest')\n",
        "pkg/__main__.py": "raise ValueError('to be run')\n",
    }
    with anyio.fail_after(50):
        found, by_name = await verify(files)
    imports = by_name["imports"]
    messages = {each["file"]: each["message"] for each in imports.findings}
    assert messages == {
        "missing.py": "ModuleNotFoundError: No module named 'requests'",
        "broken.py": "ValueError: no",
        "pkg/inner.py": "ModuleNotFoundError: No module named 'pkg.none'",
        "gone.py": "its import ended the process, with status 0",
        "odd.py": "E: (its text cannot be shown)",
    }
    assert ("missing.py", 2) in places(imports)
    assert places(imports).count(("broken.py", 2)) == 2, "the one that imports it too"
    notes = {each["file"]: each["message"] for each in imports.data["notes"]}
    assert notes["script.py"].startswith("EOFError")
    assert notes["ends.py"] == "SystemExit: 3"
    assert "of its own" in notes["json.py"]
    assert len(notes) == 3
    assert not found.ok
    assert "missing.py:2: ModuleNotFoundError: No module named 'requests'" in (
        found.evidence(3000)
    )


@pytest.mark.docker
async def test_a_module_that_never_ends_is_a_note(verify):
    with anyio.fail_after(50):
        _, by_name = await verify(
            {"a.py": "while True: pass\n", "b.py": "x = 1\n"}, timeout_s=20
        )
    imports = by_name["imports"]
    assert imports.status == "passed"
    (note,) = imports.data["notes"]
    assert note["file"] == "a.py"
    assert "still running" in note["message"]


@pytest.mark.docker
async def test_failing_tests_are_counted_and_placed(verify):
    found, by_name = await verify(
        {
            **GOOD,
            "tests/test_more.py": (
                "from calc import add\n"
                "def test_one(): assert add(1, 1) == 2\n"
                "def test_two():\n    x = add(2, 2)\n    assert x == 5\n"
            ),
        }
    )
    tests = by_name["tests"]
    assert (tests.status, tests.detail) == (
        "failed",
        "2 passed, 1 failed, 0 errors, 0 skipped.",
    )
    assert places(tests) == [("tests/test_more.py", 5)]
    evidence = found.evidence()
    assert "tests/test_more.py:5: tests.test_more::test_two: assert 4 == 5" in evidence
    assert "lint" not in evidence


@pytest.mark.docker
@pytest.mark.parametrize(
    ("source", "status", "says"),
    [
        ("import os\ndef test_x(): os._exit(0)\n", "failed", "no test counts"),
        ("", "skipped", "No test was run"),
        ("import nothing\n", "failed", "1 errors"),
        ("def test_x():\n    while True: pass\n", "failed", "did not end within 12 s"),
    ],
)
async def test_tests_that_did_not_run_never_pass(verify, source, status, says):
    found, by_name = await verify({"test_x.py": source}, timeout_s=12)
    assert by_name["tests"].status == status
    assert says in by_name["tests"].detail
    assert found.ok == (status != "failed")


@pytest.mark.docker
async def test_an_opinion_does_not_block_and_an_undefined_name_does(verify):
    found, by_name = await verify(
        {"a.py": "import os\ndef f(x: int) -> str:\n    return x\n"}
    )
    assert found.ok
    assert (by_name["lint"].status, by_name["lint"].blocking) == ("failed", False)
    assert places(by_name["lint"]) == [("a.py", 1)]
    assert (by_name["types"].status, by_name["types"].blocking) == ("failed", False)
    assert places(by_name["types"]) == [("a.py", 3)]
    assert "lint failed, which does not block: 1 finding." in found.evidence()
    found, by_name = await verify({"a.py": "import os\ndef f():\n    return nope\n"})
    assert not found.ok
    assert by_name["lint"].blocking
    assert by_name["lint"].findings[0]["message"] == "undefined name 'nope'"
    assert by_name["types"].detail == "No function has annotations."


@pytest.mark.docker
async def test_the_work_does_not_choose_how_it_is_judged(verify):
    found, by_name = await verify(
        {
            "a.py": "def f(x: int) -> str:\n    return x + nope\n",
            "mypy.ini": "[mypy]\nignore_errors = True\n",
            "setup.cfg": "[mypy]\nignore_errors = True\n",
            "pyflakes.py": "import sys\nsys.exit(0)\n",
            "mypy.py": "import sys\nsys.exit(0)\n",
        }
    )
    assert not found.ok
    assert ("a.py", 2) in places(by_name["lint"])
    assert ("a.py", 2) in places(by_name["types"])


@pytest.mark.docker
async def test_a_workspace_without_python_skips_and_says_why(verify):
    found, by_name = await verify({"index.html": "<p>"})
    assert found.ok
    assert {check.status for check in by_name.values()} == {"skipped"}
    assert "There are no Python files." in found.evidence()


@pytest.mark.docker
async def test_the_result_is_an_event(sandbox, work):
    bus = EventBus()
    found = await VerifierAgent(sandbox).verify(work(GOOD), bus=bus, run_id="run-1")
    (event,) = bus.history(EventType.VERIFICATION)
    assert (event.run_id, event.agent) == ("run-1", "verifier")
    assert event.data == found.to_dict()
    assert Verification.from_dict(json.loads(json.dumps(event.data))) == found


class ScriptedSandbox:
    """Answers with one result, or fails with one error."""

    def __init__(self, answer):
        self.answer = answer
        self.at_once = self.most_at_once = 0

    async def run(self, command, *, files, timeout_s, collect):
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await anyio.wait_all_tasks_blocked()
        self.at_once -= 1
        if isinstance(self.answer, SandboxError):
            raise self.answer
        return self.answer


async def test_checks_run_at_once(work):
    sandbox = ScriptedSandbox(SandboxResult(exit_code=None, timed_out=True))
    found = await VerifierAgent(sandbox, timeout_s=7).verify(work(GOOD))
    assert sandbox.most_at_once == 5
    statuses = {check.name: check.status for check in found.checks}
    assert statuses == {
        "syntax": "failed",
        "imports": "failed",
        "tests": "failed",
        "lint": "skipped",
        "types": "skipped",
    }
    assert {check.detail for check in found.checks} == {"It did not end within 7 s."}


@pytest.mark.parametrize("kind", [SandboxUnavailable, SandboxTimeout])
async def test_a_machine_at_fault_is_an_error(work, kind):
    with pytest.raises(kind, match="no engine"):
        await VerifierAgent(ScriptedSandbox(kind("no engine"))).verify(work(GOOD))


async def test_a_refused_run_is_a_failed_check(work):
    sandbox = ScriptedSandbox(SandboxError("too big"))
    found = await VerifierAgent(sandbox).verify(work(GOOD))
    assert not found.ok
    assert {check.detail for check in found.checks} == {"too big"}


async def test_a_workspace_that_cannot_be_read_is_a_failed_check(work):
    folder = work({"a.py": "", "A.py": ""})
    found = await VerifierAgent(ScriptedSandbox(None)).verify(folder)
    assert not found.ok
    assert "cannot be beside" in found.evidence()


@pytest.mark.parametrize(
    ("name", "tool"), [("tests", "pytest"), ("lint", "pyflakes"), ("types", "mypy")]
)
async def test_a_tool_that_is_not_there_is_a_skipped_check(work, name, tool):
    said = f"/usr/bin/python3: No module named {tool}\n"
    answer = SandboxResult(exit_code=1, stderr=said)
    found = await VerifierAgent(ScriptedSandbox(answer)).verify(work(GOOD))
    check = next(check for check in found.checks if check.name == name)
    assert (check.status, check.detail) == ("skipped", f"The sandbox has no {tool}.")


def test_a_forged_report_is_not_believed():
    report = b'<testsuites><testcase name="a"/></testsuites>'
    files = {REPORT: SandboxFile(content=report)}
    check = _judge_tests(SandboxResult(exit_code=1, files=files))
    assert check.status == "failed"
    assert "pytest ended with status 1" in check.detail
    assert _judge_tests(SandboxResult(exit_code=0, files=files)).status == "passed"


def test_tests_that_were_all_skipped_prove_nothing():
    report = b'<testsuites><testcase name="a"><skipped/></testcase></testsuites>'
    files = {REPORT: SandboxFile(content=report)}
    check = _judge_tests(SandboxResult(exit_code=0, files=files))
    assert (check.status, check.detail.startswith("No test was run")) == (
        "skipped",
        True,
    )


def findings(number, message="m" * 300):
    return [{"file": "a.py", "line": n, "message": message} for n in range(1, number)]


def test_evidence_keeps_its_budget_and_gives_each_check_its_share():
    checks = tuple(
        Check(name=name, status="failed", detail="x", data={"findings": findings(50)})
        for name in ("imports", "tests", "lint")
    )
    verification = Verification(checks=checks)
    for tokens in (0, 10, 100, 500, 2000):
        text = verification.evidence(tokens)
        assert len(text) <= 4 * tokens
    for name in ("imports", "tests", "lint"):
        assert f"{name} failed" in text
    assert "characters left out" in text


def test_annotations_decide_about_types():
    def wanted(source):
        file = SandboxFile(content=source.encode())
        return not isinstance(checks_of({"a.py": file}, 10)[4], Check)

    assert wanted("def f(x: int):\n    pass\n")
    assert wanted("def f() -> int:\n    pass\n")
    assert not wanted("def f(x, y=1):\n    pass\n")
    assert not wanted("x = 1\n")
    assert not wanted("def " * 50_000)
