"""A real engine with an image of our own, and stubs that misbehave on command."""

import io
import json
import os
import platform
import struct
import tarfile
import tempfile
import threading
import uuid
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from agentfarm.containers import Engine
from agentfarm.containers import _labels as labels_module
from agentfarm.errors import SandboxUnavailable

HANG, DROP = object(), object()
VERSION = {"ApiVersion": "1.41", "Version": "27.1.1"}


@pytest.fixture
def engine(require):
    """The machine's own engine."""
    with Engine() as found:
        try:
            _ = found.api
        except SandboxUnavailable as error:
            require("A Docker engine", str(error))
        yield found


@pytest.fixture
def world(monkeypatch) -> str:
    """A marker label of this test alone, so that no one else's reaper interferes.

    Nor does this test's, with `everything=True`, take what is not its own.
    """
    marker = f"agentfarm-test-{uuid.uuid4().hex}"
    monkeypatch.setattr(labels_module, "OWNER", marker)
    return marker


@pytest.fixture
def tidy(engine, world):
    """Removes at the end whatever carries the marker of this test, or `test`."""
    yield world
    for filters in ({"label": world}, {"label": f"test={world}"}):
        for item in engine.api.containers(all=True, filters=filters):
            engine.remove_container(item["Id"])
        for item in engine.api.volumes(filters=filters)["Volumes"] or ():
            engine.remove_volume(item["Name"])
        for item in engine.api.networks(filters=filters):
            engine.remove_network(item["Id"])


def pause_program() -> bytes:
    """A 64-bit ELF program for x86 that waits for a signal, for ever."""
    code = bytes.fromhex("b822000000 0f05 ebf7")  # mov eax, 34; syscall; jmp back
    base, headers = 0x400000, 64 + 56
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    size = headers + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    return ident + header + segment + code


@pytest.fixture
def image(engine, require):
    """An image of one program, `/pause`, which `docker create` can start."""
    if platform.machine() != "x86_64":
        require("An x86-64 processor", "the test's own program is made for it")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("pause")
        member.mode, program = 0o755, pause_program()
        member.size = len(program)
        tar.addfile(member, io.BytesIO(program))
    name = f"agentfarm-test-{uuid.uuid4().hex}"
    engine.api.import_image_from_data(data.getvalue(), repository=name)
    yield name
    engine.api.remove_image(name, force=True)


class StubEngine:
    """An HTTP server on a Unix socket, which answers as `answer` says.

    `answer(method, path)` gives a status and a JSON body, or HANG, or DROP.
    """

    def __init__(self, answer) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str]] = []
        self.queries: list[str] = []
        self.finished = threading.Event()
        self.folder = tempfile.TemporaryDirectory()  # short: a socket's name is
        self.path = Path(self.folder.name, "engine.sock")
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                stub.requests.append((self.command, path))
                stub.queries.append(query)
                given = stub.answer(self.command, path)
                self.close_connection = True
                if given is HANG:
                    stub.finished.wait(30)
                elif given is not DROP:
                    self.send(*given)

            def send(self, status, body) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = reply  # noqa: N815 - http.server's names

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *args) -> None:
                pass

        class Server(ThreadingMixIn, UnixStreamServer):
            daemon_threads = False
            request_queue_size = 64

        self.server = Server(str(self.path), Handler)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self.thread.start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def close(self) -> None:
        self.finished.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        self.folder.cleanup()


@pytest.fixture
def stub():
    """Call with `answer(method, path)`; `/version` is answered already."""
    with ExitStack() as stack:

        def start(answer=lambda method, path: (500, {"message": "no"})):
            def full(method, path):
                if path == "/version" and answer is not None:
                    given = answer(method, path)
                    return given if given in (HANG, DROP) else (200, VERSION)
                return answer(method, path)

            made = StubEngine(full)
            stack.callback(made.close)
            return made

        start.HANG, start.DROP = HANG, DROP
        yield start


@pytest.fixture
def as_nobody():
    """Call to give up root's rights for the rest of the test, where they are had."""
    original = os.geteuid()

    def drop() -> None:
        if original == 0:
            os.seteuid(65534)

    yield drop
    os.seteuid(original)
