"""A process is told from every other, and its death is proven or not claimed."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from agentfarm.containers._owner import Owner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")

SCRIPT = (
    "from agentfarm.containers._owner import Owner;"
    "print(Owner.of_this_process(), flush=True); input()"
)


@pytest.fixture
def other():
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process, Owner.parse(process.stdout.readline().strip())
        process.kill()


def test_this_process_lives():
    me = Owner.of_this_process()
    assert me.is_alive() is True
    assert Owner.parse(str(me)) == me


def test_another_process_lives_until_it_is_killed(other):
    process, owner = other
    assert owner.pid == process.pid
    assert owner.is_alive() is True
    process.kill()
    process.wait()
    assert owner.is_alive() is False


def test_a_process_that_nobody_waited_for_is_dead(other):
    process, owner = other
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process.returncode is None
    assert owner.is_alive() is False


def test_a_process_id_that_is_used_again_is_someone_else():
    me = Owner.of_this_process()
    assert replace(me, started=me.started - 1).is_alive() is False


@pytest.mark.parametrize("change", [{"boot": "0-0"}, {"pid_namespace": 1}])
def test_elsewhere_nothing_is_known(change):
    assert replace(Owner.of_this_process(), pid=2**22, **change).is_alive() is None


def test_an_impossible_process_id_is_dead():
    assert replace(Owner.of_this_process(), pid=10**19).is_alive() is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "boot",
        "boot:1:2",
        "boot:1:2:3:4",
        ":1:2:3",
        "boot:1:-2:3",
        "boot:1:x:3",
        "boot:1:²:3",
        "boot:1:2:" + "9" * 5000,
        "boot:1:2:3\n",
    ],
)
def test_garbage_is_no_owner(text):
    assert Owner.parse(text) is None


def test_what_cannot_be_told_is_still_written(monkeypatch):
    """As where there is no /proc."""
    monkeypatch.setattr("agentfarm.containers._owner._stat", lambda process: None)
    me = Owner.of_this_process()
    assert Owner.parse(str(me)) == me
    assert me.is_alive() is None
