"""Files that are damaged, denied, or somebody else's."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agentfarm.errors import StoreError
from agentfarm.store import Store


@pytest.fixture
def file(tmp_path, sqlite_url, a_run, a_sample):
    """A closed Store with a few hundred rows."""
    with Store.open(sqlite_url) as store:
        store.put_run(a_run())
        for i in range(200):
            store.put_sample(a_sample(f"s{i}", output="x" * 500))
    return tmp_path / "store.db"


def refused(path, *, read_only=False, match):
    """The message of a refusal that left the folder byte for byte as it was."""
    before = {item: item.read_bytes() for item in path.parent.iterdir()}
    with pytest.raises(StoreError, match=match) as info:
        Store.open(f"sqlite:///{path}", read_only=read_only)
    after = {item: item.read_bytes() for item in path.parent.iterdir()}
    assert after == before
    assert str(path) in str(info.value)
    assert info.value.remedy
    return str(info.value)


both = pytest.mark.parametrize("read_only", [False, True])


@both
def test_a_file_that_is_no_database(tmp_path, read_only):
    path = tmp_path / "thesis.docx"
    path.write_bytes(b"PK\x03\x04 years of work" * 100)
    refused(path, read_only=read_only, match="is not a SQLite database")


@both
def test_a_header_without_a_database(tmp_path, read_only):
    path = tmp_path / "header.db"
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    refused(path, read_only=read_only, match="Cannot open the Store")


@both
@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_corrupt_file(file, read_only, damage):
    whole = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    else:
        file.write_bytes(whole[:200] + b"\xa5" * (len(whole) - 200))
    message = refused(file, read_only=read_only, match="malformed|not a database")
    assert "move it away" in message


def test_damage_found_later_is_an_error_with_a_name(file, sqlite_url):
    """Pages of rows are not all read when a Store opens."""
    whole = bytearray(file.read_bytes())
    pages = len(whole) // 4096
    whole[4096 * (pages // 2) :] = b"\xa5" * (len(whole) - 4096 * (pages // 2))
    file.write_bytes(whole)
    with (
        Store.open(sqlite_url, read_only=True) as store,
        pytest.raises(StoreError, match=r"Cannot read the Store at .*malformed"),
    ):
        store.samples("run-1")
    assert file.read_bytes() == whole


@both
def test_another_programs_database(tmp_path, read_only):
    path = tmp_path / "history.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE urls (url TEXT)")
        db.commit()
    refused(path, read_only=read_only, match="not an AgentFarm Store's")


@both
def test_a_newer_file_is_not_altered(file, read_only):
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE meta SET schema_version = 999")
        db.commit()
    refused(file, read_only=read_only, match="schema version 999")


@both
def test_a_newer_file_that_a_killed_process_left(file, read_only):
    """What it had committed is in its log, which stays where it is."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE meta SET schema_version = 999")
        db.commit()
        copy = file.parent / "copy"
        copy.mkdir()
        for item in file.parent.glob("store.db*"):
            shutil.copy(item, copy)
    path = copy / file.name
    log = path.with_name("store.db-wal").read_bytes()
    assert log
    whole = path.read_bytes()
    with pytest.raises(StoreError, match="schema version 999"):
        Store.open(f"sqlite:///{path}", read_only=read_only)
    assert path.read_bytes() == whole
    assert path.with_name("store.db-wal").read_bytes() == log


@both
def test_a_folder_in_place_of_a_file(tmp_path, read_only):
    with pytest.raises(StoreError, match="Is a directory") as info:
        Store.open(f"sqlite:///{tmp_path}", read_only=read_only)
    assert str(tmp_path) in str(info.value)


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"Cannot (open|create) the Store"):
        Store.open(f"sqlite:///{tmp_path / 'file' / 'store.db'}")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def public():
    """A folder that another user can reach, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="agentfarm-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


OPEN = """
import os, sys
from agentfarm.errors import StoreError
from agentfarm.store import Store
path, mode, known = sys.argv[1:]
Store.open(f"sqlite:///{known}", read_only=True).runs()  # imports all that is needed
if os.geteuid() == 0:  # root may write anywhere
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    store = Store.open(f"sqlite:///{path}", read_only=mode == "ro")
    print("runs", len(store.runs()), len(store.samples("run-1")))
except StoreError as error:
    print("StoreError", error)
"""


@pytest.fixture
def open_as_nobody(file):
    """Open a Store as somebody whom the permissions of files bind."""

    def run(path, mode):
        return subprocess.run(
            [sys.executable, "-c", OPEN, str(path), mode, str(file)],
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize("path", ["store.db", "new/store.db"])
def test_a_folder_that_may_not_be_written(public, path, open_as_nobody):
    public.chmod(0o555)
    done = open_as_nobody(public / path, "rw")
    assert done.stdout.startswith("StoreError Cannot create the Store"), done
    assert str(public / path) in done.stdout
    assert "Check who may write" in done.stdout
    assert list(public.iterdir()) == []


@pytest.mark.parametrize("mode", [0o444, 0o666])
def test_what_may_not_be_written_can_be_read(file, public, open_as_nobody, mode):
    """Either the file or only its folder, where SQLite keeps its log, is denied."""
    shutil.copy(file, public)
    path = public / file.name
    path.chmod(mode)
    public.chmod(0o555)
    whole = path.read_bytes()
    assert open_as_nobody(path, "ro").stdout == "runs 1 200\n"
    done = open_as_nobody(path, "rw")
    assert done.stdout.startswith("StoreError Cannot"), done
    assert str(path) in done.stdout
    assert "Check who may write" in done.stdout
    assert path.read_bytes() == whole
    assert [item.name for item in public.iterdir()] == [file.name]


def test_a_file_that_may_not_be_read(file, public, open_as_nobody):
    shutil.copy(file, public)
    path = public / file.name
    path.chmod(0)
    done = open_as_nobody(path, "ro")
    assert done.stdout.startswith("StoreError Cannot open the Store"), done


def test_read_only_leaves_the_folder_as_it_is(file, sqlite_url):
    before = {item: item.read_bytes() for item in file.parent.iterdir()}
    assert list(before) == [file]
    with Store.open(sqlite_url, read_only=True) as store:
        assert len(store.samples("run-1")) == 200
        assert {item: item.read_bytes() for item in file.parent.iterdir()} == before
    assert {item: item.read_bytes() for item in file.parent.iterdir()} == before


def test_read_only_sees_a_writer_that_comes_later(file, sqlite_url, a_sample):
    with Store.open(sqlite_url, read_only=True) as reader:
        assert len(reader.samples("run-1")) == 200
        with Store.open(sqlite_url) as writer:
            writer.put_sample(a_sample("later"))
            assert len(reader.samples("run-1")) == 201
        assert len(reader.samples("run-1")) == 201


def test_a_missing_file_is_not_created_by_a_reader(tmp_path):
    path = tmp_path / "deep" / "store.db"
    with pytest.raises(StoreError, match="There is no Store") as info:
        Store.open(f"sqlite:///{path}", read_only=True)
    assert str(path) in str(info.value)
    assert list(tmp_path.iterdir()) == []


def test_folders_are_made_and_the_path_is_taken_as_it_stands(tmp_path, a_run):
    path = tmp_path / "50% of ünï?x=1#y" / "store.db"
    with Store.open(f"sqlite:///{path}") as store:
        store.put_run(a_run())
        assert str(path) in repr(store)
    assert path.exists()
    with Store.open(f"sqlite:///{path}", read_only=True) as store:
        assert store.runs() == [a_run()]


def test_an_empty_file_becomes_a_store(tmp_path, a_run):
    path = tmp_path / "empty.db"
    path.touch()
    with Store.open(f"sqlite:///{path}") as store:
        store.put_run(a_run())
        assert store.runs() == [a_run()]


def test_write_ahead_log_and_its_end(sqlite_url, tmp_path, a_run):
    with Store.open(sqlite_url) as store:
        store.put_run(a_run())
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [item.name for item in tmp_path.iterdir()] == ["store.db"]


def test_a_file_in_the_old_mode_is_switched(file, sqlite_url, a_run):
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    with Store.open(sqlite_url, read_only=True) as store:
        assert store.runs() == [a_run()]
    assert file.read_bytes()[19] == 1
    with Store.open(sqlite_url) as store:
        assert store.runs() == [a_run()]
    assert file.read_bytes()[19] == 2


def test_a_rollback_journal_left_by_a_crash_is_played_back(file, sqlite_url, a_run):
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    killed = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size=1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE samples SET output = 'half done' || output")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed, file], check=False)
    assert file.with_name("store.db-journal").exists()
    with Store.open(sqlite_url) as store:
        assert {sample.output for sample in store.samples("run-1")} == {"x" * 500}


def test_a_file_that_was_removed_is_not_made_anew_in_silence(
    sqlite_url, tmp_path, a_run
):
    with Store.open(sqlite_url, patience_s=0.3) as store:
        store.put_run(a_run())
    with Store.open(sqlite_url, read_only=True) as store:
        (tmp_path / "store.db").unlink()
        with pytest.raises(StoreError, match="Cannot read the Store"):
            store.runs()
    assert list(tmp_path.iterdir()) == []
