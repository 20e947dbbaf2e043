"""The host's side of a run, against supervisors that lie, stall and break off."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from agentfarm.errors import SandboxError, SandboxTimeout
from agentfarm.tools.sandbox import Limits, SandboxFile
from agentfarm.tools.sandbox import _exchange as exchange
from agentfarm.tools.sandbox._wire import HEADER, frame, json_frame

EXIT = json_frame(b"X", {"code": 0, "oom_killed": False})
END = frame(b".")


def job(command="true", **changes):
    given = {
        "python": None,
        "files": None,
        "stdin": b"",
        "env": None,
        "timeout_s": 10.0,
        "limits": Limits(output_bytes=100, collect_files=3, collect_bytes=1000),
        "collect": True,
    }
    return exchange.prepare(command, **given | changes)


@contextmanager
def supervisor(script):
    """A channel to a thread that plays the other side."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=script, args=(theirs,))
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(10)
        theirs.close()
        assert not thread.is_alive()


def receive(theirs):
    """Read frames until the start, as a supervisor does."""
    reader = theirs.makefile("rb")
    found = []
    while not found or found[-1][0] != b"G":
        kind, length = HEADER.unpack(reader.read(HEADER.size))
        found.append((kind, reader.read(length)))
    reader.close()
    return found


def answering(*frames):
    """A supervisor that takes the job, sends these frames and ends."""

    def script(theirs):
        receive(theirs)
        try:
            for each in frames:
                theirs.sendall(each)
            theirs.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the host had enough

    return script


def outcome_of(*frames, **changes):
    with supervisor(answering(*frames)) as channel:
        return exchange.converse(channel, job(**changes))


def test_what_goes_in_arrives_whole(tmp_path):
    big = bytes(range(256)) * 1000
    (tmp_path / "tool").write_bytes(b"#!")
    (tmp_path / "tool").chmod(0o4755)
    arrived = []

    def script(theirs):
        arrived.extend(receive(theirs))
        theirs.sendall(EXIT + END)

    wanted = job(
        ["cat", "a"],
        files={"a/big": big, "tool": tmp_path / "tool"},
        stdin="å",
        env={"X": "1"},
    )
    with supervisor(script) as channel:
        assert exchange.converse(channel, wanted).end == "done"
    kinds = [kind for kind, _ in arrived]
    assert kinds == [b"J", b"F", *[b"D"] * 4, b"F", b"D", b"I", b"G"]
    told = json.loads(arrived[0][1])
    assert told["argv"] == ["cat", "a"]
    assert told["env"] == {"X": "1"}
    assert told["output_bytes"] == 100
    assert b"".join(payload for kind, payload in arrived[2:6]) == big
    assert json.loads(arrived[6][1]) == {"name": "tool", "executable": True}
    assert arrived[8][1] == "å".encode()


def test_what_comes_out_is_put_together():
    outcome = outcome_of(
        frame(b"O", b"out"),
        frame(b"E", b"err\xff"),
        frame(b"O", b"put"),
        json_frame(b"X", {"code": 3, "oom_killed": True}),
        json_frame(b"M", {"name": "gone.txt"}),
        json_frame(b"M", {"name": "never-was-there"}),
        json_frame(b"F", {"name": "a/b.txt", "size": 4, "executable": True}),
        frame(b"D", b"da"),
        frame(b"D", b"ta"),
        json_frame(b"S", {"name": "link", "reason": "not a regular file"}),
        END,
        files={"gone.txt": "x"},
    )
    result = outcome.result(backend="docker", unenforced=("x",), startup_s=0.5)
    assert (result.exit_code, result.oom_killed, result.timed_out) == (3, True, False)
    assert (result.stdout, result.stderr) == ("output", "err\\xff")
    assert result.files == {"a/b.txt": SandboxFile(content=b"data", executable=True)}
    assert result.deleted == ("gone.txt",)
    assert result.omitted == {"link": "not a regular file"}
    assert (result.backend, result.unenforced, result.startup_s) == (
        "docker",
        ("x",),
        0.5,
    )


def test_output_beyond_the_limit_is_dropped_here_too():
    outcome = outcome_of(
        *[frame(b"O", b"x" * 65000)] * 200, frame(b"E", b"y" * 100), EXIT, END
    )
    assert outcome.stdout == b"x" * 100
    assert outcome.stderr == b"y" * 100
    assert (outcome.stdout_truncated, outcome.stderr_truncated) == (True, False)


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/../../b", "", "a\nb", "\udcff", "C:\\x", "a//b"]
)
def test_a_name_that_leads_outside_stays_outside(name):
    outcome = outcome_of(
        EXIT,
        json_frame(b"F", {"name": name, "size": 1, "executable": False}),
        frame(b"D", b"x"),
        END,
    )
    assert outcome.files == {}
    assert len(outcome.omitted) == 1


@pytest.mark.parametrize(
    "frames",
    [
        [frame(b"Z")],
        [frame(b"R")],
        [frame(b"X", b"{}")],
        [frame(b"X", b'{"code": "0", "oom_killed": false}')],
        [EXIT, frame(b"F", b'{"name": "a"}')],
        [EXIT, json_frame(b"F", {"name": ["a"], "size": 1, "executable": False})],
        [b"O\xff\xff\xff\xff"],
        [b"GET / HTTP/1.1\r\n\r\n"],
    ],
)
def test_a_supervisor_that_breaks_the_format_is_an_error(frames):
    with pytest.raises(SandboxError, match="never does"):
        outcome_of(*frames)


@pytest.mark.parametrize(
    "frames",
    [[], [frame(b"O", b"so far")], [EXIT], [EXIT, b"F\0"], [b"O\0\0\0\x05ab"]],
)
def test_a_stream_that_breaks_off_is_lost_and_no_success(frames):
    outcome = outcome_of(*frames)
    assert outcome.end == "lost"
    assert outcome.files == {}


def test_a_job_that_does_not_end_is_timed_out_with_its_output_kept():
    held = threading.Event()

    def script(theirs):
        receive(theirs)
        theirs.sendall(frame(b"O", b"so far"))
        held.wait(10)

    with supervisor(script) as channel:
        outcome = exchange.converse(channel, job(timeout_s=0.2))
        held.set()
    assert outcome.end == "timeout"
    assert outcome.exit_code is None
    assert outcome.stdout == b"so far"
    assert 0.2 <= outcome.duration_s < 5


def test_endless_output_does_not_put_the_timeout_off():
    def script(theirs):
        receive(theirs)
        try:
            while True:
                theirs.sendall(frame(b"O", b"x" * 60000))
        except OSError:
            return

    with supervisor(script) as channel:
        outcome = exchange.converse(channel, job(timeout_s=0.2))
    assert outcome.end == "timeout"
    assert outcome.duration_s < 5


def test_endless_files_are_cut_off_with_an_error(monkeypatch):
    monkeypatch.setattr(exchange, "HANDOVER_S", 0.3)
    skip = json_frame(b"S", {"name": "x" * 500, "reason": "y"})

    def script(theirs):
        receive(theirs)
        try:
            theirs.sendall(EXIT)
            while True:
                theirs.sendall(skip * 50)
        except OSError:
            return

    with (
        supervisor(script) as channel,
        pytest.raises(SandboxTimeout, match="did not give its files back"),
    ):
        exchange.converse(channel, job())


def test_a_refusal_names_its_reason():
    def script(theirs):
        theirs.recv(10)
        theirs.sendall(frame(b"!", b"No space left on device: big"))
        theirs.shutdown(socket.SHUT_RDWR)

    with (
        supervisor(script) as channel,
        pytest.raises(SandboxError, match="No space left on device") as caught,
    ):
        exchange.converse(channel, job(files={"big": b"x" * 10_000_000}))
    assert "work_bytes" in caught.value.remedy


def test_a_refusal_is_heard_though_nobody_reads_what_is_sent():
    """As the engine does it: the container has ended, the stream stays open."""
    heard = threading.Event()

    def script(theirs):
        theirs.sendall(frame(b"!", b"No space left on device: big"))
        heard.wait(10)

    with supervisor(script) as channel:
        start = time.monotonic()
        with pytest.raises(SandboxError, match="No space left on device"):
            exchange.converse(channel, job(files={"big": b"x" * 10_000_000}))
        assert time.monotonic() - start < 10
        heard.set()


def test_a_refusal_that_comes_after_everything_was_sent_is_one_too():
    with pytest.raises(SandboxError, match="No space left on device") as caught:
        outcome_of(frame(b"!", b"No space left on device: many"))
    assert "work_inodes" in caught.value.remedy


def test_a_sandbox_that_takes_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(exchange, "HANDOVER_S", 0.2)
    held = threading.Event()

    def script(theirs):
        del theirs
        held.wait(10)

    with supervisor(script) as channel:
        with pytest.raises(SandboxTimeout, match="did not take the files"):
            exchange.converse(channel, job(files={"big": b"x" * 10_000_000}))
        held.set()


def test_readiness_is_awaited_with_a_limit():
    def silent(theirs):
        theirs.recv(1)

    with supervisor(lambda theirs: theirs.sendall(frame(b"R"))) as channel:
        exchange.await_ready(channel, 5)
    with supervisor(silent) as channel:
        start = time.monotonic()
        with pytest.raises(SandboxTimeout, match=r"within 0\.1 s"):
            exchange.await_ready(channel, 0.1)
        assert time.monotonic() - start < 5
    with (
        supervisor(lambda theirs: theirs.shutdown(socket.SHUT_RDWR)) as channel,
        pytest.raises(SandboxError, match="ended before"),
    ):
        exchange.await_ready(channel, 5)


@pytest.mark.parametrize(
    ("command", "changes", "message"),
    [
        (None, {}, "a command or Python source"),
        ("true", {"python": "1"}, "and not both"),
        ([], {}, "empty"),
        ([""], {}, "empty"),
        (["a\0b"], {}, "NUL"),
        ("true", {"env": {"A=B": "1"}}, "environment variable"),
        ("true", {"env": {"A": "\0"}}, "NUL"),
        ("true", {"timeout_s": 0}, "timeout"),
        ("true", {"timeout_s": float("nan")}, "timeout"),
        ("true", {"timeout_s": 1e9}, "timeout"),
        ("true", {"files": {"../x": "1"}}, "file name"),
        ("true", {"stdin": b"x" * (exchange.MAX_STDIN_BYTES + 1)}, "stdin"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    command, changes, message
):
    with pytest.raises(SandboxError, match=message):
        job(command, **changes)


def test_source_becomes_a_file_beside_the_others():
    wanted = job(None, python="1", files={"main.py": "x", "main_1.py": "y"})
    assert wanted.argv == ("python3", "main_2.py")
    assert [entry.name for entry in wanted.files] == [
        "main.py",
        "main_1.py",
        "main_2.py",
    ]


def test_limits_of_the_exchange_alone_need_no_container_of_their_own():
    usual = Limits()
    assert replace(usual, output_bytes=1, collect_files=1).fits_container(usual)
    assert not replace(usual, pids=1).fits_container(usual)
    with pytest.raises(ValueError, match="memory_bytes"):
        Limits(memory_bytes=0)
