"""Runs hidden tests on an answer, inside the sandbox, and tells the host of each.

This file is sent as the text of `python3 -I -B -c`, under whatever Python (3.9 or
later, with pytest) is there, and imports nothing of ours. It reads its job as JSON
from stdin and writes one line for each thing that it found out: the job's nonce and
a JSON object.

Each test module runs in a child of its own, forked after the import of pytest. The
answer's code is loaded there alone, so it can end that child, but not this process,
and it does not know the nonce. `_code.py` says what remains possible.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S = 0.05
MAX_RECORD_BYTES = 2**20
MESSAGE_CHARS = 500
PR_SET_DUMPABLE = 4

# Two checks that must fail; who makes every test pass, or `raises` lenient, is seen.
CANARIES = """

def test_{token}_assert():
    assert [1] == [2]


def test_{token}_raises():
    import pytest

    with pytest.raises(ZeroDivisionError):
        pass
"""


def main() -> None:
    """Serve one job."""
    job = json.load(sys.stdin.buffer)
    nonce, stdout = job.pop("nonce"), os.dup(1)
    silence(0, 1)  # stdin could be read again from its start
    protect()

    def tell(**fact: Any) -> None:
        write_all(stdout, f"{nonce} {json.dumps(fact)}\n".encode())

    import pytest  # noqa: F401 - here once, and not in each child

    tell(ready=True)
    deadline = time.monotonic() + job["deadline_s"]
    with tempfile.TemporaryDirectory() as folder:
        for name, source in job["modules"].items():
            judge(name, source, folder, deadline, job["check_timeout_s"], stdout, tell)


def silence(*descriptors: int) -> None:
    """Let descriptors lead nowhere."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    os.close(nothing)


def protect() -> None:
    """Close this process's memory and open files to others of the same user."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return  # only a determined forger gains by it


def write_all(target: int, payload: bytes) -> None:
    """Write everything, however many calls it takes."""
    while payload:
        payload = payload[os.write(target, payload) :]


def judge(
    name: str,
    source: str,
    folder: str,
    deadline: float,
    check_timeout_s: float,
    stdout: int,
    tell: Callable[..., None],
) -> None:
    """Run one test module in a child and tell what came of each of its checks."""
    token, own_nonce = secrets.token_hex(8), secrets.token_hex(16)
    path = Path(folder, name)
    path.write_text(source + CANARIES.format(token=token), encoding="utf-8")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.close(stdout)
        run_module(path, writer, own_nonce, check_timeout_s)
    os.close(writer)
    output, ended = watch(child, reader, deadline)
    os.close(reader)
    facts = [
        json.loads(line[len(own_nonce) :])
        for line in output.decode(errors="replace").splitlines()
        if line.startswith(own_nonce + "{") and line.endswith("}")
    ]
    canaries = []
    for fact in facts:
        if token in fact.get("check", ""):
            canaries.append(fact["status"])
        else:
            tell(module=name, **fact)
    forged = "passed" in canaries
    tell(module=name, end=ended, whole=canaries == ["failed"] * 2, forged=forged)


def watch(child: int, reader: int, deadline: float) -> tuple[bytes, str]:
    """What a child wrote, and in words how it ended; nothing of it is left."""
    output = b""
    ended = "The time for all checks was over before"
    open_ = True
    while time.monotonic() < deadline and len(output) < MAX_RECORD_BYTES:
        if open_ and select.select([reader], [], [], POLL_S)[0]:
            data = os.read(reader, MAX_RECORD_BYTES)
            output += data
            open_ = bool(data)
            continue
        if not open_:
            time.sleep(POLL_S)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            ended = f"The process ended with status {code} before"
            break
    with suppress(ProcessLookupError):  # what the child left running ends too
        os.killpg(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    return output, ended


def run_module(path: Path, writer: int, nonce: str, check_timeout_s: float) -> None:
    """Run pytest on one file, and end this process."""
    import pytest

    os.setsid()
    silence(2)
    sys.argv = ["pytest"]
    # Last: a json.py or pytest.py of the answer stands in nobody's way.
    sys.path.append(str(Path.cwd()))
    settings = path.with_name("pytest.ini")
    settings.write_text("[pytest]\n", encoding="utf-8")

    def tell(**fact: Any) -> None:
        write_all(writer, f"{nonce}{json.dumps(fact)}\n".encode())

    arguments = ["--noconftest", f"--rootdir={path.parent}", "-c", str(settings)]
    arguments += ["--import-mode=importlib", "-p", "no:cacheprovider", str(path)]
    pytest.main(arguments, plugins=[Recorder(tell, check_timeout_s)])
    os._exit(0)


class Recorder:
    """A plugin of pytest that tells of each check as soon as it has ended."""

    def __init__(self, tell: Callable[..., None], check_timeout_s: float) -> None:
        self._tell = tell
        self._timeout_s = check_timeout_s
        self._status = ""
        self._message = ""
        signal.signal(signal.SIGALRM, self._too_slow)

    def _too_slow(self, *_: Any) -> None:
        import pytest

        signal.setitimer(signal.ITIMER_REAL, 1.0)  # again, should it be caught
        pytest.fail(f"It took more than {self._timeout_s:g} s.", pytrace=False)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """One canary goes first, the other stays last."""
        if items:
            items.insert(0, items.pop())

    def pytest_collectreport(self, report: Any) -> None:
        """Say why the test module could not be loaded."""
        if report.failed:
            self._tell(problem=message_of(report))

    def pytest_runtest_logstart(self) -> None:
        """A check begins."""
        self._status, self._message = "passed", ""

    def pytest_runtest_call(self) -> None:
        """Its function is about to be called: the time runs."""
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)

    def pytest_runtest_makereport(self) -> None:
        """It is over."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One of its phases has ended."""
        if report.outcome != "passed" and self._status == "passed":
            self._status, self._message = report.outcome, message_of(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """All of its phases have."""
        check = nodeid.rpartition("::")[2]
        self._tell(check=check, status=self._status, message=self._message)


def message_of(report: Any) -> str:
    """The lines that pytest marks with E, or all of its text, shortened."""
    text = str(report.longreprtext)
    marked = [line[1:].strip() for line in text.splitlines() if line[:2] == "E "]
    return ("\n".join(marked) or text)[:MESSAGE_CHARS]


main()
