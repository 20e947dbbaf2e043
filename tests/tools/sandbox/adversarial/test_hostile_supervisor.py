"""The host's side, were the supervisor itself taken over: it is no boundary.

Every program here has the supervisor's place and stream. Its control is the honest one
of the first test, which differs in nothing but what it sends.

| attack | ends with |
|---|---|
| a frame of 4 GiB, of an unknown kind, without JSON, too deep, of wrong types | an error |
| the stream ends in the middle | an error |
| no end, before or after the job's | the timeout, or an error |
| output, stderr, file names, reasons without end | the timeout, or an error |
| a file that is absolute, has `..`, is larger or smaller than it says | it is left out |
| more files and bytes than the limit | they are left out |
"""

import anyio
import pytest

from agentfarm.errors import SandboxError, SandboxTimeout
from agentfarm.tools.sandbox import Limits, _container, _exchange

pytestmark = pytest.mark.docker

HOSTILE_FILES = {
    "absolute": 'file("/etc/cron.d/attack")',
    "parent": 'file("../attack")',
    "hidden parent": 'file("a/../../attack")',
    "empty name": 'file("")',
    "newline": 'file("a\\nb")',
    "NUL": 'file("a\\0b")',
    "escape sequence": 'file("\\x1b]0;title\\x07")',
    "lone surrogate": 'file("\\ud800")',
    "bidirectional": 'file("a\\u202egpj.exe")',
    "too long": 'file("x" * 5000)',
    "too deep": 'file("/".join("x" * 100))',
    "hook of git": 'file(".git/hooks/post-checkout")',
    "larger than it says": 'file("grown", b"x" * 1000, size=10)',
    "much larger than it says": 'file("grown more", b"x" * 2**25, size=1)',
    "smaller than it says": 'file("shrunk", b"x", size=10)',
    "a terabyte by its word": 'file("huge", size=2**40)',
    "negative": 'file("negative", size=-1)',
    "skipped with an odd reason": 'send(b"S", {"name": "..", "reason": "\\x1b[2J" * 900})',
    "deleted, never there": 'send(b"M", {"name": "/etc/passwd"})',
}
BREACHES = {
    "frame of 4 GiB": 'send(b"O", length=2**32 - 1)',
    "frame of an unknown kind": 'send(b"?")',
    "no JSON": 'send(b"F", b"{")',
    "JSON that is too deep": 'send(b"F", b"[" * 65536)',
    "JSON of a list": 'send(b"F", [])',
    "exit code of text": 'send(b"X", {"code": "0", "oom_killed": False})',
    "exit code without end": 'send(b"X", b\'{"code": \' + b"9" * 60000 + b"}")',
    "size of text": 'send(b"F", {"name": "x", "size": "1", "executable": False})',
    "name of a number": 'send(b"F", {"name": 1, "size": 1, "executable": False})',
}


@pytest.fixture
def hostile(engine, here, relaxed):
    """Call with a program to take the supervisor's place."""

    def hostile(code, *, ready=True, **arguments):
        begin = 'send(b"R")\ntake_job()\n' if ready else ""
        program = f"{(here / 'hostile.py').read_text()}\n{begin}{code}"

        def change(options):
            *command, _ = options["Cmd"]
            options["Cmd"] = [*command, program]

        return relaxed(change=change, **arguments)

    return hostile


@pytest.fixture
def impatient(monkeypatch):
    """Copying in and out takes little time or fails."""
    monkeypatch.setattr(_exchange, "HANDOVER_S", 1.5)


@pytest.fixture
def gone(containers_of, until):
    """Wait until no container is left, although the sandbox is still open."""

    async def gone(sandbox):
        await until(lambda: not containers_of(sandbox))

    return gone


@pytest.fixture
def run(gone):
    async def run(sandbox, **arguments):
        result = await sandbox.run("never", **arguments)
        await gone(sandbox)
        return result

    return run


async def test_honest_program_in_its_place_is_believed(hostile, run):
    code = 'send(b"O", b"hello"); end(3); file("a/b", b"c" * 100_000); send(b".")'
    result = await run(hostile(code))
    assert (result.exit_code, result.stdout) == (3, "hello")
    assert {name: len(file.content) for name, file in result.files.items()} == {
        "a/b": 100_000
    }
    assert not result.omitted


async def test_hostile_files_are_left_out_and_those_between_them_taken(hostile, run):
    good = {f"after {name}": code for name, code in HOSTILE_FILES.items()}
    deeds = "".join(f"{code}\nfile({name!r})\n" for name, code in good.items())
    result = await run(hostile(f'end()\n{deeds}send(b".")'))
    assert [*result.files] == [*good]
    assert not result.deleted
    assert len(result.omitted) == len(HOSTILE_FILES) - 1  # one sends no file at all
    for text in (*result.omitted, *result.omitted.values()):
        assert text.isprintable()
        assert len(text) <= 200


async def test_more_than_the_limits_is_left_out(hostile, run):
    code = """
end()
for number in range(20_000):
    file(f"{number}", b"x" * 10)
send(b".")
"""
    limits = Limits(collect_files=10, collect_bytes=75)
    result = await run(hostile(code), limits=limits)
    assert len(result.files) == 7
    assert len(result.omitted) <= 101


@pytest.mark.parametrize("name", BREACHES)
async def test_breach_of_the_format_is_an_error(name, hostile, gone):
    sandbox = hostile(f"{BREACHES[name]}; wait()")
    with pytest.raises(SandboxError, match="which its supervisor never does"):
        await sandbox.run("never")
    await gone(sandbox)


async def test_breach_before_the_job_is_an_error(hostile, gone):
    sandbox = hostile('send(b"R", length=2**32 - 1); wait()', ready=False)
    with pytest.raises(SandboxError, match="which its supervisor never does"):
        await sandbox.run("never")
    await gone(sandbox)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param('write(1, b"O\\0\\0")', id="in a frame"),
        pytest.param('send(b"O", b"x")', id="before the report"),
    ],
)
async def test_stream_that_ends_is_an_error(code, hostile, gone):
    sandbox = hostile(code)
    with pytest.raises(SandboxError, match="ended in the middle"):
        await sandbox.run("never")
    await gone(sandbox)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("wait()", id="silence"),
        pytest.param('while True: send(b"O", b"x" * 65536)', id="stdout"),
        pytest.param('while True: send(b"E")', id="empty frames"),
        pytest.param('while True: write(2, b"x" * 65536)', id="own stderr"),
        pytest.param('while True: send(b"S", {"name": "x", "reason": ""})', id="skips"),
    ],
)
async def test_what_does_not_end_is_timed_out(code, hostile, run):
    limits = Limits(output_bytes=1000)
    with anyio.fail_after(15):
        result = await run(hostile(code), timeout_s=0.6, limits=limits)
    assert result.timed_out
    assert result.stdout in {"", "x" * 1000}
    assert not result.files


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("end(); wait()", id="silence"),
        pytest.param('end()\nwhile True: send(b"O", b"x")', id="stdout"),
        pytest.param("""end()\nn = 0\nwhile True: n += 1; file(f"{n}")""", id="files"),
        pytest.param('end()\nwhile True: send(b"M", {"name": "x"})', id="deletions"),
        pytest.param('end()\nwhile True: write(2, b"x" * 65536)', id="own stderr"),
    ],
)
@pytest.mark.usefixtures("impatient")
async def test_copying_out_that_does_not_end_is_an_error(code, hostile, gone):
    sandbox = hostile(code)
    with anyio.fail_after(15), pytest.raises(SandboxTimeout, match="give its files"):
        await sandbox.run("never")
    await gone(sandbox)


async def test_start_that_does_not_end_is_an_error(gone, hostile, monkeypatch):
    monkeypatch.setattr(_container, "START_S", 1.0)
    sandbox = hostile("wait()", ready=False)
    with pytest.raises(SandboxTimeout, match="not ready"):
        await sandbox.run("never")
    await gone(sandbox)


@pytest.mark.usefixtures("impatient")
async def test_copying_in_that_nobody_reads_is_an_error(hostile, gone):
    sandbox = hostile('send(b"R"); wait()', ready=False)
    with pytest.raises(SandboxTimeout, match="did not take the files"):
        await sandbox.run("never", stdin=bytes(2**25))
    await gone(sandbox)
