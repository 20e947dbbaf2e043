"""What a run changed in its copy is changed in the folder, and nothing else is."""

import os

import pytest

from agentfarm.errors import SandboxError
from agentfarm.tools import _workspace
from agentfarm.tools._workspace import take_snapshot, write_back
from agentfarm.tools.sandbox._contract import SandboxFile, SandboxResult


def result(files=(), **fields) -> SandboxResult:
    contents = {
        name: content
        if isinstance(content, SandboxFile)
        else SandboxFile(content=content)
        for name, content in dict(files).items()
    }
    return SandboxResult(exit_code=0, files=contents, **fields)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.py", "pkg/b.py", "old/c.py"):
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "work"


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_new_changed_and_deleted_files(folder):
    before = take_snapshot(folder)
    assert before.files["pkg/b.py"] == SandboxFile(content=b"pkg/b.py")
    ran = result({"a.py": b"2", "new/d.py": b"3"}, deleted=("old/c.py",))
    changes = write_back(folder, ran, before)
    assert (changes.written, changes.deleted) == (("a.py", "new/d.py"), ("old/c.py",))
    assert changes.refused == {}
    assert tree(folder) == {"a.py": "2", "pkg/b.py": "pkg/b.py", "new/d.py": "3"}
    assert not (folder / "old").exists()


def test_a_file_that_stayed_the_same_is_not_touched(folder):
    before = take_snapshot(folder)
    inode = (folder / "a.py").stat().st_ino
    assert write_back(folder, result({"a.py": b"a.py"}), before).written == ()
    assert (folder / "a.py").stat().st_ino == inode
    script = SandboxFile(content=b"a.py", executable=True)
    assert write_back(folder, result({"a.py": script}), before).written == ("a.py",)
    assert os.access(folder / "a.py", os.X_OK)


def test_what_somebody_changed_meanwhile_is_left_alone(folder):
    before = take_snapshot(folder)
    (folder / "a.py").write_text("mine")
    (folder / "new.py").write_text("mine too")
    (folder / "old/c.py").write_text("mine as well")
    ran = result(
        {"a.py": b"2", "new.py": b"2", "pkg/b.py": b"2"}, deleted=("old/c.py",)
    )
    changes = write_back(folder, ran, before)
    assert set(changes.refused) == {"a.py", "new.py", "old/c.py"}
    assert changes.written == ("pkg/b.py",)
    assert changes.deleted == ()
    assert tree(folder) == {
        "a.py": "mine",
        "new.py": "mine too",
        "old/c.py": "mine as well",
        "pkg/b.py": "2",
    }


def test_of_two_runs_that_change_one_file_the_second_is_told(folder):
    first, second = take_snapshot(folder), take_snapshot(folder)
    assert write_back(folder, result({"a.py": b"1"}), first).refused == {}
    assert "a.py" in write_back(folder, result({"a.py": b"2"}), second).refused
    assert tree(folder)["a.py"] == "1"


def test_a_file_and_a_folder_may_change_places(folder):
    before = take_snapshot(folder)
    ran = result({"a.py/x": b"1", "old": b"2"}, deleted=("a.py", "old/c.py"))
    write_back(folder, ran, before)
    assert tree(folder) == {"a.py/x": "1", "old": "2", "pkg/b.py": "pkg/b.py"}


def test_only_what_went_in_can_be_deleted(folder):
    (folder / ".venv").mkdir()
    (folder / ".venv/x").write_text("x")
    before = take_snapshot(folder)
    (folder / "later.py").write_text("later")
    ran = result(deleted=(".venv/x", "later.py", "../work/a.py", "/etc/passwd"))
    changes = write_back(folder, ran, before)
    assert changes.deleted == ()
    assert changes.refused == {}
    assert {".venv/x", "later.py", "a.py"} <= set(tree(folder))


def test_caches_and_our_own_files_do_not_come_back(folder):
    before = take_snapshot(folder)
    ran = result(
        {".agentfarm-x": b"", "a/__pycache__/x.pyc": b"", ".venv/bin/python": b""},
        omitted={".venv/lib": "not a regular file", "link": "not a regular file"},
    )
    changes = write_back(folder, ran, before)
    assert changes.written == ()
    assert changes.refused == {"link": "not a regular file"}
    assert set(tree(folder)) == {"a.py", "pkg/b.py", "old/c.py"}


def test_links_never_lead_outside(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("mine")
    (folder / "up").symlink_to(outside)
    (folder / "x").symlink_to(outside / "x")
    before = take_snapshot(folder)
    assert set(before.files) == {"a.py", "pkg/b.py", "old/c.py"}
    changes = write_back(folder, result({"up/x": b"1", "x": b"1"}), before)
    assert set(changes.refused) == {"up/x", "x"}
    with pytest.raises(SandboxError):
        write_back(folder, result({"up/new": b"1"}), before)
    assert tree(outside) == {"x": "mine"}


def test_a_missing_folder_is_an_empty_one(tmp_path):
    folder = tmp_path / "new"
    before = take_snapshot(folder)
    assert before.files == {}
    write_back(folder, result(), before)
    assert not folder.exists()
    write_back(folder, result({"x": b"1"}), before)
    assert tree(folder) == {"x": "1"}


def test_a_folder_too_big_is_refused(folder, monkeypatch):
    monkeypatch.setattr(_workspace, "MAX_BYTES", 20)
    take_snapshot(folder)
    monkeypatch.setattr(_workspace, "MAX_BYTES", 19)
    with pytest.raises(SandboxError, match="MiB"):
        take_snapshot(folder)
