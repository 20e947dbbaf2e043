"""The embedded server's control loop, its record and its log, without a model."""

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from agentfarm.llm import _embedded_server
from agentfarm.llm._embedded_child import connect, log_tail, read_info
from agentfarm.llm._embedded_server import ControlLoop, bound_log

GONE_S = 10.0


@pytest.fixture
def control():
    """A running control loop: its info, its first lifeline, its thread."""
    loops = []

    def start(linger_s: float = 0.0):
        lifeline, theirs = socket.socketpair()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        info = {"token": "secret", "control_port": port, "pid": os.getpid()}
        loop = ControlLoop(info, first=theirs, listener=listener, linger_s=linger_s)
        thread = threading.Thread(target=loop.run)
        thread.start()
        loops.append((lifeline, listener, thread))
        return port, lifeline, thread

    yield start
    for lifeline, listener, thread in loops:
        lifeline.close()
        thread.join(GONE_S)
        assert not thread.is_alive()
        listener.close()


def say(port: int, message: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(message)
        try:
            return sock.recv(4096)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "message",
    [
        b'{"token": "wrong", "op": "stop"}\n',
        b'{"op": "stop"}\n',
        b'{"token": "secret", "op": "explode"}\n',
        b'["secret", "stop"]\n',
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xfe\n",
        b"x" * 10_000,
    ],
)
def test_without_the_token_nothing_is_said_or_done(control, message):
    port, lifeline, _ = control()

    assert say(port, message) == b""

    answer = json.loads(say(port, b'{"token": "secret", "op": "status"}\n'))
    assert answer["users"] == 1
    lifeline.close()


def test_stop_ends_it_though_it_is_used(control):
    port, _, thread = control()

    say(port, b'{"token": "secret", "op": "stop"}\n')

    thread.join(GONE_S)
    assert not thread.is_alive()


def test_a_user_who_comes_within_the_linger_time_keeps_it(control):
    port, lifeline, thread = control(linger_s=60)
    lifeline.close()
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(b'{"token": "secret", "op": "hold"}\n')
        assert json.loads(sock.recv(4096))["users"] == 1
        assert thread.is_alive()
    say(port, b'{"token": "secret", "op": "stop"}\n')


def test_it_ends_when_the_last_of_two_users_leaves(control):
    port, lifeline, thread = control(linger_s=0)
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(b'{"token": "secret", "op": "hold"}\n')
        assert json.loads(sock.recv(4096))["users"] == 2
        lifeline.close()
        answer = json.loads(say(port, b'{"token": "secret", "op": "status"}\n'))
        assert answer["users"] == 1
    thread.join(GONE_S)
    assert not thread.is_alive()


def test_a_pid_that_answers_wrongly_is_not_the_server(control, tmp_path):
    port, lifeline, _ = control()
    fields = dict.fromkeys(("created_at", "context_length", "slots"), 1)
    fields |= dict.fromkeys(("url", "api_key", "model", "gguf"), "x")
    record = tmp_path / "server.json"
    record.write_text(
        json.dumps({**fields, "pid": 1, "control_port": port, "token": "secret"})
    )

    with pytest.raises(ConnectionRefusedError, match="another process"):
        connect(read_info(tmp_path), "status")
    lifeline.close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_record_counts_as_none(tmp_path, text):
    (tmp_path / "server.json").write_text(text)

    assert read_info(tmp_path) is None


def test_the_log_is_cut_to_its_newest_part(tmp_path):
    path = tmp_path / "server.log"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, b"old\n" * 1000)
        bound_log(descriptor)
        assert path.stat().st_size == 4000
        os.write(descriptor, b"x" * (2 << 20) + b"\nnewest\n")
        bound_log(descriptor)
        os.write(descriptor, b"after\n")
    finally:
        os.close(descriptor)

    assert path.stat().st_size < 100_000
    assert path.read_bytes().endswith(b"\nnewest\nafter\n")
    assert b"\0" not in path.read_bytes()


def test_the_log_tail_shows_errors_rather_than_what_follows(tmp_path):
    log = tmp_path / "server.log"
    log.write_text(
        "0.00.001.810 I srv init: initializing ...\n"
        "0.00.009.571 E cmn init: failed to load model 'x'\n"
        "0.00.009.584 I srv: cleaning up before exit...\n"
        "RuntimeError: Failed to init server\n"
    )

    assert log_tail(log) == [
        "cmn init: failed to load model 'x'",
        "RuntimeError: Failed to init server",
    ]
    log.write_text("one\ntwo\n")
    assert log_tail(log) == ["one", "two"]
    assert log_tail(tmp_path / "missing") == []


def test_the_child_imports_nothing_of_the_package():
    source = Path(_embedded_server.__file__).read_text()

    assert "import agentfarm" not in source
    assert "from agentfarm" not in source
