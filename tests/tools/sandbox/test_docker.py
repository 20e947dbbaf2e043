"""Runs on a real Docker engine: what comes back, and that nothing stays."""

import gc
import io
import stat
import tarfile
import time

import anyio
import pytest

from agentfarm.containers import Engine
from agentfarm.errors import SandboxError, SandboxUnavailable
from agentfarm.tools.sandbox import DockerSandbox, Limits, SandboxFile, save
from agentfarm.tools.sandbox._docker import INSTANCE_LABEL

pytestmark = pytest.mark.docker


@pytest.fixture
async def sandbox(engine, sandbox_image):
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=0) as opened:
        yield opened


def containers_of(sandbox):
    """What the engine has of this sandbox, running or not."""
    label = f"{INSTANCE_LABEL}={sandbox._instance}"
    return sandbox.engine.api.containers(all=True, filters={"label": label})


async def until(condition, timeout_s=20.0):
    """Wait for the engine to come to a state that has no event."""
    with anyio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110 - the engine has no event for it
            await anyio.sleep(0.02)


async def test_a_program_runs_and_its_output_and_status_come_back(sandbox):
    result = await sandbox.run(python="import sys; print(6 * 7); sys.exit(3)")
    assert (result.stdout, result.stderr, result.exit_code) == ("42\n", "", 3)
    assert not result.ok
    assert not result.timed_out
    assert not result.oom_killed
    assert not result.truncated
    assert result.backend == "docker"
    assert 0 < result.duration_s < 30
    assert 0 < result.startup_s < 60


async def test_files_go_in_and_what_changed_comes_out(sandbox, tmp_path):
    (tmp_path / "tool.sh").write_text("#!/bin/sh\necho made > out/made.txt\n")
    (tmp_path / "tool.sh").chmod(0o755)
    result = await sandbox.run(
        "mkdir out && ./tool.sh && echo more >> kept.txt && rm gone.txt"
        " && cp tool.sh new.sh && mkdir __pycache__ && touch __pycache__/x.pyc",
        files={
            "tool.sh": tmp_path / "tool.sh",
            "kept.txt": "first\n",
            "same.txt": b"same",
            "gone.txt": SandboxFile(content=b"x"),
        },
    )
    assert result.ok, result.stderr
    assert {name: file.text for name, file in result.files.items()} == {
        "out/made.txt": "made\n",
        "kept.txt": "first\nmore\n",
        "new.sh": (tmp_path / "tool.sh").read_text(),
    }
    assert result.files["new.sh"].executable
    assert not result.files["kept.txt"].executable
    assert result.deleted == ("gone.txt",)
    assert result.omitted == {}


async def test_a_file_written_again_with_the_same_size_is_a_change(sandbox):
    result = await sandbox.run(
        python="import os\n"
        "before = os.stat('a')\n"
        "open('a', 'w').write('2')\n"
        "os.utime('a', ns=(before.st_atime_ns, before.st_mtime_ns))",
        files={"a": "1"},
    )
    assert result.files["a"].text == "2"


async def test_nothing_comes_back_where_nothing_is_asked_for(sandbox):
    result = await sandbox.run("echo 1 > a; rm b", files={"b": "x"}, collect=False)
    assert result.ok
    assert result.files == {}


async def test_stdin_environment_and_folder(sandbox):
    result = await sandbox.run(
        "cat; echo $GREETING $HOME $TMPDIR; pwd", stdin="in\n", env={"GREETING": "hej"}
    )
    assert result.stdout == "in\nhej /work /tmp\n/work\n"
    big = b"x" * 3_000_000
    result = await sandbox.run(["wc", "-c"], stdin=big)
    assert result.stdout.strip() == "3000000"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
        ("exit 255", 255),
    ],
)
async def test_exit_statuses_are_those_of_a_shell(sandbox, command, status):
    result = await sandbox.run(command)
    assert result.exit_code == status
    assert not result.timed_out
    assert not result.oom_killed
    if isinstance(command, list):
        assert command[0] in result.stderr


async def test_an_error_of_the_source_quotes_its_line(sandbox):
    result = await sandbox.run(python="x = 1\nraise ValueError('here')  # mark")
    assert result.exit_code == 1
    assert "# mark" in result.stderr


async def test_what_is_left_in_the_background_ends_with_the_command(sandbox):
    result = await sandbox.run("(setsid sleep 600 &) ; echo done", timeout_s=30)
    assert result.stdout == "done\n"
    assert not result.timed_out


async def test_a_server_of_its_own_can_be_reached_as_localhost(sandbox):
    result = await sandbox.run(
        python="import asyncio\n"
        "async def main():\n"
        "    async def echo(reader, writer):\n"
        "        writer.write(await reader.readline())\n"
        "        writer.close()\n"
        "    async with await asyncio.start_server(echo, 'localhost', 8000):\n"
        "        for host in ('127.0.0.1', '::1', 'localhost'):\n"
        "            reader, writer = await asyncio.open_connection(host, 8000)\n"
        "            writer.write(host.encode() + b'\\n')\n"
        "            print((await reader.read()).decode(), end='')\n"
        "            writer.close()\n"
        "asyncio.run(main())"
    )
    assert result.stdout.split() == ["127.0.0.1", "::1", "localhost"], result.stderr


async def test_a_timeout_ends_everything_and_keeps_the_output(sandbox):
    result = await sandbox.run(
        "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM; sleep 600' &"
        "echo begun; while :; do sleep 1; done",
        timeout_s=0.5,
    )
    assert result.timed_out
    assert result.exit_code is None
    assert result.stdout == "begun\n"
    await until(lambda: not containers_of(sandbox))


async def test_output_is_cut_at_the_limit_also_where_the_timeout_ends_it(sandbox):
    limits = Limits(output_bytes=1000)
    result = await sandbox.run("yes | head -c 5000; echo x >&2", limits=limits)
    assert (len(result.stdout), result.stderr) == (1000, "x\n")
    assert (result.stdout_truncated, result.stderr_truncated) == (True, False)
    result = await sandbox.run("yes >&2", limits=limits, timeout_s=0.5)
    assert (result.stdout, len(result.stderr)) == ("", 1000)
    assert (result.stdout_truncated, result.stderr_truncated) == (False, True)
    assert result.timed_out


async def test_memory_is_limited_and_its_end_is_told(sandbox):
    limits = Limits(memory_bytes=96 * 2**20)
    grab = "x = bytearray(2**30)"
    result = await sandbox.run(python=grab, limits=limits)
    assert (result.exit_code, result.oom_killed) == (137, True)
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {grab!r}])"
    result = await sandbox.run(python=child, limits=limits)
    assert (result.exit_code, result.oom_killed) == (0, True)


async def test_limits_of_one_run_hold_for_that_run_alone(engine, sandbox_image):
    count = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=1) as sandbox:
        await sandbox.warm()
        result = await sandbox.run(python=count, limits=Limits(open_files=77))
        assert result.stdout == "77\n"
        result = await sandbox.run(python=count)
        assert result.stdout == "1024\n"


async def test_a_ready_container_serves_one_run_and_no_other(engine, sandbox_image):
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=1) as sandbox:
        await sandbox.warm()
        (ready,) = containers_of(sandbox)
        first = await sandbox.run("touch /tmp/x /work/y")
        assert first.ok
        second = await sandbox.run("ls -A /tmp /work")
        assert second.stdout.split() == ["/tmp:", "/work:"]  # noqa: S108
        await sandbox.warm()
        await until(lambda: len(containers_of(sandbox)) == 1)
        assert containers_of(sandbox)[0]["Id"] != ready["Id"]


async def test_a_ready_container_that_somebody_removed_is_noticed(
    engine, sandbox_image
):
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=1) as sandbox:
        await sandbox.warm()
        engine.remove_container(containers_of(sandbox)[0]["Id"])
        assert (await sandbox.run("echo fine")).stdout == "fine\n"


async def test_many_run_at_once_each_on_its_own(sandbox):
    results = {}

    async def one(number):
        results[number] = await sandbox.run(
            "cat mine; ls", files={"mine": f"{number}\n"}
        )

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(one, number)
    assert {number: result.stdout for number, result in results.items()} == {
        number: f"{number}\nmine\n" for number in range(8)
    }


async def test_a_cancelled_run_leaves_nothing(sandbox):
    async with anyio.create_task_group() as group:
        group.start_soon(sandbox.run, "sleep 600")
        await until(lambda: containers_of(sandbox))
        group.cancel_scope.cancel()
    await until(lambda: not containers_of(sandbox))


async def test_a_container_killed_from_outside_is_an_error_with_the_cause(sandbox):
    async def kill():
        await until(lambda: containers_of(sandbox))
        await until(lambda: containers_of(sandbox)[0]["State"] == "running")
        await anyio.sleep(0.5)  # either side of the start of the job will do
        sandbox.engine.kill(containers_of(sandbox)[0]["Id"])

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        with pytest.raises(SandboxError, match="ended"):
            await sandbox.run("sleep 600")


async def test_closing_removes_everything_and_ends_runs(engine, sandbox_image):
    sandbox = DockerSandbox(engine=engine, image=sandbox_image, pool=2)
    await sandbox.warm()
    failed = anyio.Event()

    async def run():
        with pytest.raises(SandboxError):
            await sandbox.run("sleep 600")
        failed.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await until(lambda: sandbox._open and len(containers_of(sandbox)) == 3)
        await sandbox.aclose()
        assert containers_of(sandbox) == []
    assert failed.is_set()
    await sandbox.aclose()
    with pytest.raises(SandboxError, match="closed"):
        await sandbox.run("true")


async def test_a_sandbox_that_nobody_closed_goes_when_it_is_forgotten(
    engine, sandbox_image
):
    sandbox = DockerSandbox(engine=engine, image=sandbox_image, pool=1)
    await sandbox.warm()
    label = f"{INSTANCE_LABEL}={sandbox._instance}"
    del sandbox

    def is_gone():
        gc.collect()  # each time: a thread that just ended may still have held it
        return not engine.api.containers(all=True, filters={"label": label})

    await until(is_gone)


async def test_what_is_missing_is_named_with_its_remedy(
    engine, sandbox_image, tmp_path
):
    with pytest.raises(SandboxUnavailable, match="no-such-image"):
        await DockerSandbox(engine=engine, image="no-such-image:1").run("true")
    odd = DockerSandbox(engine=engine, image=sandbox_image, runtime="no-such", pool=0)
    with pytest.raises(SandboxUnavailable, match="no-such") as caught:
        await odd.run("true")
    assert "daemon.json" in caught.value.remedy
    await odd.aclose()
    gone = DockerSandbox(engine=Engine(f"unix://{tmp_path}/none.sock"))
    with pytest.raises(SandboxUnavailable) as caught:
        await gone.run("true")
    assert caught.value.remedy


async def test_an_image_without_python_says_what_is_needed(engine):
    name, tag = "agentfarm-test-empty", str(time.time_ns())
    engine.api.import_image_from_data(empty_tar(), repository=name, tag=tag)
    image = f"{name}:{tag}"
    try:
        sandbox = DockerSandbox(engine=engine, image=image, pool=0)
        with pytest.raises(SandboxError, match="python3"):
            await sandbox.run("true")
        await sandbox.aclose()
    finally:
        engine.api.remove_image(image)


def empty_tar():
    made = io.BytesIO()
    tarfile.open(fileobj=made, mode="w").close()
    return made.getvalue()


async def test_an_image_with_volumes_is_refused(engine, sandbox_image):
    """The engine would put them on its disk, where no limit of ours counts."""
    tag = f"agentfarm-test-volume:{time.time_ns()}"
    recipe = f"FROM {sandbox_image}\nVOLUME /data\nLABEL agentfarm.kind=test\n"
    list(engine.api.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, rm=True))
    try:
        sandbox = DockerSandbox(engine=engine, image=tag, pool=0)
        with pytest.raises(SandboxUnavailable, match="/data"):
            await sandbox.run("true")
        await sandbox.aclose()
    finally:
        engine.api.remove_image(tag)


async def test_too_many_bytes_to_lay_in_are_refused_with_the_limit(sandbox):
    limits = Limits(work_bytes=2**20)
    with pytest.raises(SandboxError, match="No space left") as caught:
        await sandbox.run("true", files={"big": b"x" * 2**21}, limits=limits)
    assert "work_bytes" in caught.value.remedy


async def test_saved_files_have_private_modes(sandbox, tmp_path):
    result = await sandbox.run("echo 1 > a; cp a b; chmod 6755 b")
    save(result.files, tmp_path)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()
    }
    assert modes == {"a": 0o600, "b": 0o700}
