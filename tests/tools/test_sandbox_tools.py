"""What the code tools hand to a sandbox, and what they tell a model of its answer."""

from collections.abc import Callable

import anyio
import pytest

from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable
from agentfarm.tools import ToolRegistry, sandbox_tools
from agentfarm.tools._sandbox_tools import REPORT
from agentfarm.tools.sandbox._contract import SandboxFile, SandboxResult


class ScriptedSandbox:
    """Answers each run with what a function makes of its command and files."""

    backend = "scripted"
    unenforced = ()

    def __init__(self, answer: Callable | SandboxResult) -> None:
        self.answer = answer
        self.runs: list[tuple] = []

    async def run(self, command=None, *, files=None, timeout_s=None, **more):
        self.runs.append((command, files, timeout_s))
        if isinstance(self.answer, SandboxResult):
            return self.answer
        return await self.answer(command, files)


def tools_over(answer, **options):
    sandbox = ScriptedSandbox(answer)
    registry = ToolRegistry(sandbox_tools(sandbox, **options))

    async def use(name, **arguments):
        return await registry.get(name).call(arguments)

    return use, sandbox


def done(**fields) -> SandboxResult:
    return SandboxResult(**{"exit_code": 0, "duration_s": 0.25, **fields})


def report(cases: str) -> dict[str, SandboxFile]:
    xml = f"<testsuites><testsuite>{cases}</testsuite></testsuites>"
    return {REPORT: SandboxFile(content=xml.encode())}


PASSED = '<testcase classname="t" name="a"/>'
FAILED = '<testcase classname="t" name="b"><failure message="no"/></testcase>'


def test_the_three_tools_have_schemas_that_servers_take():
    tools = sandbox_tools(ScriptedSandbox(done()), timeout_s=7)
    assert [tool.name for tool in tools] == ["run_python", "run_tests", "run_command"]
    for tool in tools:
        assert tool.parameters["type"] == "object"
        assert tool.parameters["additionalProperties"] is False
        assert "7 seconds" in tool.description


class TestWhatGoesIn:
    async def test_source_goes_in_beside_the_workspaces_files(self, tmp_path):
        (tmp_path / "main.py").write_text("theirs")
        use, sandbox = tools_over(done(), workspace=tmp_path)
        await use("run_python", code="print('å')")
        command, files, _ = sandbox.runs[0]
        assert command[0] == "python3"
        assert files[command[1]].content == "print('å')".encode()
        assert files["main.py"].content == b"theirs"
        assert len(files) == 2

    async def test_a_command_is_one_line_for_the_shell(self):
        use, sandbox = tools_over(done())
        await use("run_command", command="ls | wc -l", timeout_s=None)
        assert sandbox.runs == [("ls | wc -l", {}, 60.0)]

    async def test_half_a_character_in_the_source_is_no_crash(self):
        use, sandbox = tools_over(done())
        await use("run_python", code="print('\ud83d')")
        assert sandbox.runs[0][1].popitem()[1].content == b"print('\\ud83d')"

    @pytest.mark.parametrize(
        ("asked", "given"), [(None, 5.0), (2, 2.0), (5, 5.0), (9999, 5.0)]
    )
    async def test_a_timeout_is_capped(self, asked, given):
        use, sandbox = tools_over(done(), timeout_s=5.0)
        await use("run_command", command="x", timeout_s=asked)
        assert sandbox.runs[0][2] == given

    @pytest.mark.parametrize("asked", [0, -1, "9", True])
    async def test_a_timeout_that_is_none_is_refused(self, asked):
        use, sandbox = tools_over(done())
        result = await use("run_command", command="x", timeout_s=asked)
        assert not result.ok
        assert "timeout_s" in result.text
        assert sandbox.runs == []

    @pytest.mark.parametrize(
        ("path", "target"),
        [
            (None, None),
            (".", None),
            ("./", None),
            ("/work", None),
            ("/work/", None),
            ("tests", "./tests"),
            ("./tests/", "./tests"),
            ("/work/tests/test_a.py", "./tests/test_a.py"),
            ("test_a.py::test_x[1-2]", "./test_a.py::test_x[1-2]"),
            ("a/../test_a.py", "./test_a.py"),
            ("--pdb", "./--pdb"),
        ],
    )
    async def test_tests_are_chosen_by_path(self, path, target):
        use, sandbox = tools_over(done(files=report(PASSED)))
        assert (await use("run_tests", path=path)).ok
        command = sandbox.runs[0][0]
        assert command[:3] == ("python3", "-m", "pytest")
        assert command[-1] == (target or f"--junitxml={REPORT}")

    async def test_tests_are_chosen_by_name(self):
        use, sandbox = tools_over(done(files=report(PASSED)))
        await use("run_tests", pattern="-x or not slow")
        assert "-k-x or not slow" in sandbox.runs[0][0]

    @pytest.mark.parametrize(
        "path", ["..", "../x", "/etc", "a/../../x", "x\0y", "a\\b"]
    )
    async def test_a_path_outside_is_refused_with_what_is_there(self, path, tmp_path):
        (tmp_path / "test_a.py").touch()
        use, sandbox = tools_over(done(), workspace=tmp_path)
        result = await use("run_tests", path=path)
        assert not result.ok
        assert "It holds: test_a.py." in result.text
        assert sandbox.runs == []


class TestWhatIsSaid:
    async def test_the_end_and_both_streams(self):
        use, _ = tools_over(done(exit_code=3, stdout="out\n", stderr="err\n"))
        result = await use("run_command", command="x")
        assert not result.ok
        assert result.text == ("Exit code 3 after 0.25 s.\nstdout:\nout\nstderr:\nerr")
        assert result.data["exit_code"] == 3

    async def test_silence(self):
        use, _ = tools_over(done())
        result = await use("run_command", command="x")
        assert (result.ok, result.text) == (
            True,
            "Exit code 0 after 0.25 s.\nIt printed nothing.",
        )

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"exit_code": None, "timed_out": True}, "its timeout of 5 s"),
            ({"oom_killed": True}, "out of memory"),
            ({"stdout_truncated": True}, "more than the sandbox keeps"),
            ({"stderr_truncated": True}, "more than the sandbox keeps"),
        ],
    )
    async def test_what_the_sandbox_noticed(self, fields, said):
        use, _ = tools_over(done(**fields), timeout_s=5.0)
        assert said in (await use("run_command", command="x")).text

    async def test_unenforced_limits_are_said_once(self):
        use, _ = tools_over(done(unenforced=("memory",)))
        first = await use("run_command", command="x")
        second = await use("run_python", code="x")
        assert "cannot enforce: memory" in first.text
        assert "memory" not in second.text

    @pytest.mark.parametrize(
        ("stdout", "stderr", "left_out"),
        [(100, 0, 0), (101, 0, 1), (500, 500, 900), (500, 10, 410), (10, 500, 410)],
    )
    async def test_long_output_keeps_both_ends(self, stdout, stderr, left_out):
        answer = done(stdout="▒" * stdout, stderr="█" * stderr)
        use, _ = tools_over(answer, output_chars=100)
        text = (await use("run_command", command="x")).text
        shown = text.count("▒") + text.count("█")
        assert shown == min(100, stdout + stderr)
        told = [int(line.split()[1]) for line in text.splitlines() if "[…" in line]
        assert sum(told) == left_out

    async def test_ends_of_output_are_its_own(self):
        use, _ = tools_over(done(stdout="begin" + "x" * 999 + "end"), output_chars=20)
        text = (await use("run_command", command="x")).text
        assert "begin" in text
        assert text.endswith("end")

    async def test_changes_of_the_workspace(self, tmp_path):
        (tmp_path / "old").touch()
        answer = done(
            files={"new": SandboxFile(content=b"x")},
            deleted=("old",),
            omitted={"link": "not a regular file"},
        )
        use, _ = tools_over(answer, workspace=tmp_path)
        result = await use("run_command", command="x")
        assert "Written to the workspace: new." in result.text
        assert "Deleted from the workspace: old." in result.text
        assert "Not written to the workspace: link (not a regular file)." in result.text
        assert [path.name for path in tmp_path.iterdir()] == ["new"]
        assert result.data["written"] == ["new"]
        assert result.data["deleted"] == ["old"]

    async def test_a_sandbox_that_refuses_is_a_result(self):
        async def refuse(command, files):
            raise SandboxError("The file name 'x' is absolute.")

        use, _ = tools_over(refuse)
        result = await use("run_command", command="x")
        assert (result.ok, result.text) == (False, "The file name 'x' is absolute.")

    @pytest.mark.parametrize("kind", [SandboxUnavailable, SandboxTimeout])
    async def test_a_machine_that_fails_is_no_fault_of_the_code(self, kind):
        async def fail(command, files):
            raise kind("gone")

        use, _ = tools_over(fail)
        with pytest.raises(kind):
            await use("run_command", command="x")


class TestTests:
    async def test_counts_come_from_the_report(self):
        answer = done(exit_code=1, files=report(PASSED * 2 + FAILED))
        use, _ = tools_over(answer)
        result = await use("run_tests")
        assert result.text.startswith("2 passed, 1 failed, 0 errors, 0 skipped.\nExit")
        wanted = {"passed": 2, "failed": 1, "errors": 0, "skipped": 0, "exit_code": 1}
        assert {name: result.data[name] for name in wanted} == wanted
        assert result.data["failures"] == [
            {"name": "t::b", "message": "no", "file": None, "line": None}
        ]

    @pytest.mark.parametrize(
        ("exit_code", "files", "ok"),
        [
            (0, report(PASSED), True),
            (0, report(PASSED + FAILED), False),
            (1, report(PASSED), False),
            (0, report(""), False),
            (0, {}, False),
            (0, {REPORT: SandboxFile(content=b"5 passed")}, False),
            (5, report(""), False),
        ],
    )
    async def test_tests_passed_only_if_status_and_report_say_so(
        self, exit_code, files, ok
    ):
        use, _ = tools_over(
            done(exit_code=exit_code, files=files, stdout="5 passed in 0.1s")
        )
        assert (await use("run_tests")).ok is ok

    async def test_no_report_is_none_and_not_zero(self):
        use, _ = tools_over(done(stdout="5 passed"))
        result = await use("run_tests")
        assert result.data["passed"] is result.data["failed"] is None
        assert "no test counts" in result.text

    async def test_the_report_does_not_land_in_the_workspace(self, tmp_path):
        use, _ = tools_over(done(files=report(PASSED)), workspace=tmp_path)
        result = await use("run_tests")
        assert result.data["written"] == []
        assert list(tmp_path.iterdir()) == []

    async def test_a_report_lying_in_the_workspace_is_not_believed(self, tmp_path):
        (tmp_path / REPORT).write_bytes(report(PASSED)[REPORT].content)
        use, sandbox = tools_over(done(), workspace=tmp_path)
        assert not (await use("run_tests")).ok
        assert sandbox.runs[0][1] == {}


class TestAtOnce:
    async def test_runs_overlap_and_their_changes_do_not(self, tmp_path):
        both = anyio.Event()
        running = 0

        async def write(command, files):
            nonlocal running
            running += 1
            if running == 2:
                both.set()
            await both.wait()
            own = SandboxFile(content=command.encode())
            return done(files={command: own, "shared": own})

        use, _ = tools_over(write, workspace=tmp_path)
        results = []

        async def call(command):
            results.append(await use("run_command", command=command))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(call, "a")
                group.start_soon(call, "b")
        assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "shared"}
        first, second = results
        assert first.data["refused"] == {}
        assert list(second.data["refused"]) == ["shared"]
        assert (tmp_path / "shared").read_text() in first.data["written"]

    async def test_nothing_is_written_while_another_holds_the_lock(self, tmp_path):
        lock, started, locked = anyio.Lock(), anyio.Event(), anyio.Event()

        async def write(command, files):
            started.set()
            await locked.wait()
            return done(files={"x": SandboxFile(content=b"x")})

        use, _ = tools_over(write, workspace=tmp_path, lock=lock)

        async def call():
            await use("run_command", command="x")

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await started.wait()
                async with lock:
                    locked.set()
                    await anyio.wait_all_tasks_blocked()
                    assert list(tmp_path.iterdir()) == []
        assert [path.name for path in tmp_path.iterdir()] == ["x"]
