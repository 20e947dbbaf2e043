"""Tests of todo.py, run as people run it."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("todo.py")


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
    )


def test_a_task_is_added_and_listed(tmp_path):
    assert run(tmp_path, "add", " Buy milk ").stdout == "Added 1: Buy milk\n"
    assert run(tmp_path, "list").stdout == "1 [ ] Buy milk\n"


def test_a_task_is_done(tmp_path):
    run(tmp_path, "add", "Buy milk")
    assert run(tmp_path, "done", "1").stdout == "Done 1: Buy milk\n"
    assert run(tmp_path, "list").stdout == "1 [x] Buy milk\n"


def test_an_id_is_not_used_again(tmp_path):
    run(tmp_path, "add", "One")
    run(tmp_path, "remove", "1")
    assert run(tmp_path, "add", "Two").stdout == "Added 2: Two\n"


def test_an_unknown_id_is_an_error(tmp_path):
    done = run(tmp_path, "done", "7")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No task 7" in done.stderr
