"""GPU tools as programs that misbehave."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from agentfarm.monitoring._gpu_source import Unavailable
from agentfarm.monitoring._gpu_tool import Tools, json_documents


@pytest.fixture
def tools(toolbox):
    made = Tools(toolbox.path)
    yield made
    made.close()


def test_the_output_and_the_status_are_kept_apart(toolbox, tools):
    toolbox.says("amd-smi", "to stdout", code=3, err="to stderr")
    output = tools.run("amd-smi", "metric", timeout_s=10)
    assert (output.stdout, output.stderr) == ("to stdout", "to stderr")
    assert output.returncode == 3
    assert output.reason == "ended with status 3, saying: to stdout"
    assert toolbox.calls("amd-smi") == ["metric"]


def test_a_tool_is_not_there_until_it_is_installed(toolbox, tools):
    with pytest.raises(Unavailable, match="not on PATH"):
        tools.run("rocm-smi", timeout_s=10)
    toolbox.says("rocm-smi", "{}")
    assert tools.run("rocm-smi", timeout_s=10).stdout == "{}"


def test_a_file_that_is_no_program_is_a_reason(toolbox, tools):
    file = toolbox.add("amd-smi", "")
    file.write_bytes(b"\x7fELF, but not really")
    with pytest.raises(Unavailable, match="cannot be run"):
        tools.run("amd-smi", timeout_s=10)


def test_the_environments_path_is_searched_by_default(toolbox, monkeypatch):
    toolbox.says("amd-smi", "found")
    monkeypatch.setenv("PATH", toolbox.path)
    assert Tools().run("amd-smi", timeout_s=10).stdout == "found"


def test_a_hanging_tool_is_killed_with_all_that_it_started(toolbox, tools, ended):
    pids = toolbox.folder / "pids"
    toolbox.add(
        "amd-smi",
        f'/bin/sleep 600 &\necho "$$ $!" > "{pids}"\n/bin/sleep 600',
    )
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"did not end within 1 s"):
        tools.run("amd-smi", timeout_s=1)
    assert time.monotonic() - started < 5
    assert all(ended(int(pid)) for pid in pids.read_text().split())


def test_a_tool_that_closed_its_output_and_hangs_is_killed(toolbox, tools, ended):
    pid = toolbox.folder / "pid"
    toolbox.add("amd-smi", f'echo $$ > "{pid}"\nexec /bin/sleep 600 >&- 2>&-')
    with pytest.raises(Unavailable, match="did not end"):
        tools.run("amd-smi", timeout_s=1)
    assert ended(int(pid.read_text()))


def test_a_tool_that_never_stops_printing_is_killed(toolbox, tools, ended):
    pid = toolbox.folder / "pid"
    toolbox.add("amd-smi", f'echo $$ > "{pid}"\nwhile :; do echo; done')
    with pytest.raises(Unavailable, match="did not end"):
        tools.run("amd-smi", timeout_s=1)
    assert ended(int(pid.read_text()))


def test_a_flood_is_cut_off(toolbox, tools, ended):
    pid = toolbox.folder / "pid"
    toolbox.add("amd-smi", f'echo $$ > "{pid}"\nexec /bin/cat /dev/zero')
    with pytest.raises(Unavailable, match="more than 8 MiB"):
        tools.run("amd-smi", timeout_s=60)
    assert ended(int(pid.read_text()))


def test_a_large_output_on_both_sides_is_read_whole(toolbox, tools):
    toolbox.says("amd-smi", "o" * 300_000, err="e" * 300_000)
    output = tools.run("amd-smi", timeout_s=20)
    assert (len(output.stdout), len(output.stderr)) == (300_000, 300_000)


async def test_closing_ends_a_running_tool_and_starts_no_other(
    toolbox, tools, hear, ended
):
    ready = toolbox.hang("amd-smi")

    outputs = []

    async def run() -> None:
        outputs.append(
            await to_thread.run_sync(lambda: tools.run("amd-smi", timeout_s=60))
        )

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            pid = int(await to_thread.run_sync(hear, ready))
            tools.close()
    assert outputs[0].returncode == -signal.SIGKILL
    assert await to_thread.run_sync(ended, pid)
    with pytest.raises(Unavailable, match="closed"):
        tools.run("amd-smi", timeout_s=10)


def test_nothing_stays_open(toolbox, tools):
    toolbox.says("amd-smi", "[]")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        tools.run("amd-smi", timeout_s=10)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_tool_does_not_take_the_input_of_its_caller(toolbox):
    toolbox.add("amd-smi", "/bin/cat; echo end")
    code = (
        "import sys\n"
        "from agentfarm.monitoring._gpu_tool import Tools\n"
        "print(Tools(sys.argv[1]).run('amd-smi', timeout_s=60).stdout)\n"
        "print(sys.stdin.read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, toolbox.path],
        input="mine",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["end", "mine"]


def test_json_is_found_among_other_lines_and_not_inside_of_json():
    text = 'x\n[1,\n[2]]\n[WARNING] y\n{"a":\n{}} z\n {"b": 1}\n{\n'
    assert list(json_documents(text)) == [[1, [2]], {"a": {}}]
