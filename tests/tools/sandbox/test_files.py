"""Which files cross the sandbox's boundary, and that none lands anywhere else."""

import os
import socket
import stat
import tracemalloc
import unicodedata

import pytest

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox._contract import SandboxFile
from agentfarm.tools.sandbox._files import (
    CACHES,
    CHUNK_BYTES,
    Incoming,
    escaped,
    inputs,
    problem_with,
    remove,
    save,
)

HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    ".",
    "..",
    "../x",
    "a/../x",
    "a/..",
    "./x",
    "a/./x",
    "a//x",
    "a/",
    "a\0b",
    "a\nb",
    "a\rb",
    "a\tb",
    "\x1b[2Jx",
    "a\x7f",
    "a\x85",
    "a\x9b31m",
    "a\u2028b",
    "a\u2029b",
    "exe.\u202egnp",
    "a\u2066b",
    "a\u200bb",
    "a\u200db",
    "\ufeffa",
    "a\u00adb",
    "..\\x",
    "a\\b",
    "\\\\host\\share",
    "C:",
    "C:x",
    "C:/x",
    "c:\\x",
    "x.txt:stream",
    "CON",
    "con",
    "nul.txt",
    "NUL .txt",
    "a/aux.py",
    "COM1",
    "com9.log",
    "LPT\u00b9",
    "CONIN$",
    "x.",
    "x ",
    "x..",
    "a /b",
    "...",
    ".git/hooks/pre-commit",
    ".GIT/config",
    "a/.git/config",
    "git~1/config",
    ".hg/hgrc",
    ".svn/x",
    "\udcff",
    "a\ud800b",
    "x" * 256,
    "é" * 128,
    "/".join(["x" * 200] * 6),
    "/".join(["d"] * 33),
]
FINE = [
    "x",
    ".hidden",
    "a/b/c.py",
    "x..y",
    "..x",
    "räksmörgås.txt",
    unicodedata.normalize("NFD", "räksmörgås.txt"),
    "日本/語.py",
    "a b.txt",
    "-rf",
    "~",
    "$HOME",
    "*",
    "console.py",
    "com.py",
    "gitignore",
    ".gitignore",
    ".github/workflows/ci.yml",
    "x" * 255,
    "/".join(["d"] * 32),
]


def file(content=b"x", **fields):
    return SandboxFile(content=content, **fields)


def tree(folder):
    """Every entry below a folder with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_hostile_name_crosses_in_no_direction(self, name, tmp_path):
        assert problem_with(name)
        with pytest.raises(SandboxError):
            inputs({name: b"x"})
        target = tmp_path / "target"
        target.mkdir()
        with pytest.raises(SandboxError) as raised:
            save({"fine.txt": file(), name: file()}, target)
        with pytest.raises(SandboxError):
            remove([name], target)
        assert str(raised.value).isprintable()
        assert tree(tmp_path) == {}
        incoming = Incoming(max_files=9, max_bytes=9)
        incoming.begin(name, size=1, executable=False)
        incoming.data(b"x")
        files, omitted = incoming.finish()
        assert files == {}
        assert list(omitted) == [escaped(name)]

    @pytest.mark.parametrize("name", FINE)
    def test_an_ordinary_name_goes_in_and_comes_back(self, name, tmp_path):
        assert [entry.name for entry in inputs({name: b"x"})] == [name]
        incoming = Incoming(max_files=9, max_bytes=9)
        incoming.begin(name, size=1, executable=False)
        incoming.data(b"x")
        files, omitted = incoming.finish()
        assert omitted == {}
        assert save(files, tmp_path) == [tmp_path / name]
        assert tree(tmp_path) == {name: b"x"}
        assert remove([name], tmp_path) == [tmp_path / name]
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("a", "A"),
            ("é", "e\u0301"),
            ("straße", "STRASSE"),
            ("a", "a/b"),
            ("a/b", "a"),
            ("a/B", "A/b"),
            ("A", "a/b"),
        ],
    )
    def test_names_that_some_file_system_confuses_are_refused(
        self, first, second, tmp_path
    ):
        with pytest.raises(SandboxError, match="cannot be beside"):
            inputs({first: b"", second: b""})
        with pytest.raises(SandboxError, match="cannot be beside"):
            save({first: file(), second: file()}, tmp_path)
        incoming = Incoming(max_files=9, max_bytes=9)
        incoming.begin(first, size=0, executable=False)
        incoming.begin(second, size=0, executable=False)
        files, omitted = incoming.finish()
        assert list(files) == [first]
        assert "cannot be beside" in omitted[escaped(second)]

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a\n\x1b", "a\\x0a\\x1b"),
            ("\udcff", "\\xff"),
            ("\u202e", "\\u202e"),
            ("a\\n", "a\\\\n"),
            ("x" * 300, "x" * 199 + "…"),
        ],
    )
    def test_a_name_is_shown_on_one_line(self, text, shown):
        assert escaped(text) == shown


class TestInputs:
    def test_content_comes_in_small_chunks(self, tmp_path):
        content = os.urandom(3 * CHUNK_BYTES + 1)
        (tmp_path / "big").write_bytes(content)
        script = file(b"#!", executable=True)
        listed = inputs(
            {"a": content, "b": tmp_path / "big", "c": "å", "d": script, "e": b""}
        )
        for entry in listed[:2]:
            chunks = list(entry.chunks())
            assert max(map(len, chunks)) == CHUNK_BYTES
            assert b"".join(chunks) == content
        assert [entry.size for entry in listed] == [len(content)] * 2 + [2, 2, 0]
        assert [entry.executable for entry in listed] == [False] * 3 + [True, False]
        assert list(listed[2].chunks()) == ["å".encode()]
        assert list(listed[4].chunks()) == []

    def test_a_big_file_is_never_in_memory(self, tmp_path):
        with (tmp_path / "big").open("wb") as big:
            big.truncate(64 * 2**20)
        tracemalloc.start()
        try:
            total = sum(len(c) for e in inputs(tmp_path) for c in e.chunks())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert total == 64 * 2**20
        assert peak < 2**20

    def test_a_folder_goes_in_without_what_is_no_file(self, tmp_path):
        folder = tmp_path / "project"
        (folder / "src/__pycache__").mkdir(parents=True)
        (folder / ".git").mkdir()
        for name in ("src/a.py", "src/__pycache__/a.pyc", ".git/config", "b.sh"):
            (folder / name).write_text(name)
        (folder / "b.sh").chmod(0o755)
        (tmp_path / "secret").write_text("secret")
        (folder / "link").symlink_to(tmp_path / "secret")
        (folder / "up").symlink_to(tmp_path)
        (folder / "src/dangling").symlink_to("nowhere")
        os.mkfifo(folder / "fifo")
        (folder / "evil\nname").touch()
        os.close(os.open(os.fsencode(folder) + b"/\xff", os.O_CREAT, 0o600))
        left_out = {}
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "socket"))
            listed = inputs(folder, left_out=left_out)
        assert {(entry.name, entry.executable) for entry in listed} == {
            ("src/a.py", False),
            ("b.sh", True),
        }
        assert left_out == {
            ".git": "lies in a version control folder",
            "src/dangling": "is a link",
            "evil\\x0aname": "holds the character U+000A",
            "fifo": "is not a regular file",
            "link": "is a link",
            "socket": "is not a regular file",
            "src/__pycache__": "is a cache or an environment",
            "up": "is a link",
            "\\xff": "is not UTF-8",
        }

    def test_a_folder_can_stand_below_a_name(self, tmp_path):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep/test_x.py").write_text("")
        listed = inputs({"tests": tmp_path, "x.py": b""})
        assert [entry.name for entry in listed] == ["tests/deep/test_x.py", "x.py"]

    @pytest.mark.parametrize("cache", sorted(CACHES))
    def test_caches_stay_outside(self, cache, tmp_path):
        (tmp_path / "a" / cache).mkdir(parents=True)
        (tmp_path / "a" / cache / "x").touch()
        assert inputs(tmp_path) == []

    @pytest.mark.parametrize("kind", ["link", "fifo", "missing", "socket"])
    def test_a_named_file_must_be_a_regular_one(self, kind, tmp_path):
        path = tmp_path / "x"
        with socket.socket(socket.AF_UNIX) as server:
            if kind == "link":
                (tmp_path / "secret").touch()
                path.symlink_to(tmp_path / "secret")
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "socket":
                server.bind(str(path))
            with pytest.raises(SandboxError, match=str(path)):
                inputs({"x": path})

    def test_a_linked_folder_is_refused_where_it_is_named(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path)
        with pytest.raises(SandboxError, match="resolve"):
            inputs({"x": tmp_path / "link"})

    def test_a_file_instead_of_a_folder_is_refused(self, tmp_path):
        (tmp_path / "x").touch()
        with pytest.raises(SandboxError, match="not a folder"):
            inputs(tmp_path / "x")

    def test_a_file_that_vanishes_is_named(self, tmp_path):
        path = tmp_path / "x"
        path.write_bytes(b"x")
        (entry,) = inputs({"x": path})
        path.unlink()
        with pytest.raises(SandboxError, match=str(path)):
            list(entry.chunks())

    def test_a_file_that_becomes_a_link_is_not_followed(self, tmp_path):
        path = tmp_path / "x"
        path.write_bytes(b"x")
        (entry,) = inputs({"x": path})
        (tmp_path / "secret").write_bytes(b"s")
        path.unlink()
        path.symlink_to(tmp_path / "secret")
        with pytest.raises(SandboxError, match=str(path)):
            list(entry.chunks())

    def test_a_file_that_grows_gives_no_more_than_was_announced(self, tmp_path):
        path = tmp_path / "x"
        path.write_bytes(b"1")
        (entry,) = inputs({"x": path})
        path.write_bytes(b"12")
        assert b"".join(entry.chunks()) == b"1"

    def test_a_huge_folder_is_refused_early(self, tmp_path):
        for number in range(5):
            (tmp_path / str(number)).touch()
        assert len(inputs(tmp_path, max_files=5)) == 5
        with pytest.raises(SandboxError, match="More than 4"):
            inputs(tmp_path, max_files=4)

    def test_text_that_is_not_unicode_is_refused(self):
        with pytest.raises(SandboxError, match=r"x\.py"):
            inputs({"x.py": "\ud800"})

    def test_nothing_is_nothing(self):
        assert inputs(None) == inputs({}) == []


class TestIncoming:
    def take(self, incoming, name, *parts, size=None, executable=False):
        size = sum(map(len, parts)) if size is None else size
        incoming.begin(name, size=size, executable=executable)
        for part in parts:
            incoming.data(part)

    def test_files_come_whole(self):
        incoming = Incoming(max_files=3, max_bytes=6)
        self.take(incoming, "a", b"12", b"3", executable=True)
        self.take(incoming, "empty")
        self.take(incoming, "b", b"456")
        files, omitted = incoming.finish()
        assert files == {
            "a": file(b"123", executable=True),
            "empty": file(b""),
            "b": file(b"456"),
        }
        assert omitted == {}

    def test_limits_hold_and_say_so(self):
        incoming = Incoming(max_files=2, max_bytes=5)
        self.take(incoming, "a", b"123")
        self.take(incoming, "big", b"123")
        self.take(incoming, "b", b"12")
        self.take(incoming, "c")
        files, omitted = incoming.finish()
        assert list(files) == ["a", "b"]
        assert omitted == {
            "big": "more bytes than the limit",
            "c": "more files than the limit",
        }

    @pytest.mark.parametrize(
        ("size", "reason"),
        [
            (2, "larger than announced"),
            (4, "smaller than announced"),
            (-1, "more bytes than the limit"),
            (2**80, "more bytes than the limit"),
        ],
    )
    def test_a_lie_about_the_size_costs_that_file_only(self, size, reason):
        incoming = Incoming(max_files=9, max_bytes=9)
        self.take(incoming, "lie", b"123", b"", size=size)
        self.take(incoming, "b", b"123456789")
        files, omitted = incoming.finish()
        assert list(files) == ["b"]
        assert omitted == {"lie": reason}

    def test_data_for_no_file_is_dropped(self):
        incoming = Incoming(max_files=9, max_bytes=9)
        incoming.data(b"x")
        self.take(incoming, "a", b"1")
        incoming.skip("link", "not a regular file\x1b")
        incoming.data(b"x")
        files, omitted = incoming.finish()
        assert files == {"a": file(b"1")}
        assert omitted == {"link": "not a regular file\\x1b"}

    def test_no_flood_grows_memory(self):
        limit = 2**20
        incoming = Incoming(max_files=16, max_bytes=limit)
        chunk = bytes(CHUNK_BYTES)
        tracemalloc.start()
        try:
            for number in range(2000):
                incoming.begin(f"{number}/big", size=limit, executable=False)
                for _ in range(20):
                    incoming.data(chunk)
                incoming.skip(f"{number}" + "x" * 5000, "y" * 5000)
            incoming.begin("bytewise", size=limit // 2, executable=False)
            for _ in range(limit // 2):
                incoming.data(b"x")
            peak = tracemalloc.get_traced_memory()[1]
            omitted = incoming.finish()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 * limit
        assert len(omitted) == 101
        assert omitted["…"].endswith(" more")


class TestSave:
    def test_modes_are_the_owners_alone(self, tmp_path):
        save({"a/run": file(executable=True), "a/data": file()}, tmp_path / "new")
        found = {
            name: stat.S_IMODE((tmp_path / "new/a" / name).stat().st_mode)
            for name in ("run", "data")
        }
        assert found == {"run": 0o700, "data": 0o600}

    def test_a_file_is_replaced_whole(self, tmp_path):
        old = tmp_path / "x"
        old.write_bytes(b"old, and longer")
        with old.open("rb") as reader:
            save({"x": file(b"new")}, tmp_path)
            assert reader.read() == b"old, and longer"
        assert tree(tmp_path) == {"x": b"new"}

    def test_a_link_in_the_files_place_is_replaced(self, tmp_path):
        outside = tmp_path / "outside"
        outside.write_bytes(b"mine")
        target = tmp_path / "target"
        target.mkdir()
        (target / "x").symlink_to(outside)
        (target / "hard").hardlink_to(outside)
        save({"x": file(b"theirs"), "hard": file(b"theirs")}, target)
        assert outside.read_bytes() == b"mine"
        assert not (target / "x").is_symlink()
        assert (target / "x").read_bytes() == b"theirs"

    @pytest.mark.parametrize("name", ["up/x", "a/up/x", "up/new/x"])
    def test_a_link_in_a_folders_place_is_refused(self, name, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "x").write_bytes(b"mine")
        target = tmp_path / "target"
        (target / "a").mkdir(parents=True)
        for folder in (target, target / "a"):
            (folder / "up").symlink_to(outside)
        with pytest.raises(SandboxError, match="links are not followed"):
            save({name: file(b"theirs")}, target)
        assert remove([name], target) == []
        assert tree(outside) == {"x": b"mine"}

    def test_the_target_itself_may_be_a_link(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        save({"x": file()}, tmp_path / "link")
        assert tree(tmp_path / "real") == {"x": b"x"}

    @pytest.mark.parametrize("name", ["folder", "plain/x"])
    def test_what_cannot_be_written_is_an_error_and_leaves_no_rest(
        self, name, tmp_path
    ):
        (tmp_path / "folder").mkdir()
        (tmp_path / "plain").write_bytes(b"mine")
        with pytest.raises(SandboxError, match=name):
            save({name: file()}, tmp_path)
        assert tree(tmp_path) == {"plain": b"mine"}

    def test_a_rest_of_a_killed_save_does_not_go_in(self, tmp_path):
        (tmp_path / ".agentfarm-0123").touch()
        assert inputs(tmp_path) == []


class TestRemove:
    def test_emptied_folders_go_too(self, tmp_path):
        save({"a/b/c": file(), "a/d": file(), "e/f": file()}, tmp_path)
        assert remove(["a/b/c", "e/f"], tmp_path) == [
            tmp_path / "a/b/c",
            tmp_path / "e/f",
        ]
        assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "d"]
        assert tmp_path.is_dir()

    def test_a_link_goes_and_its_target_stays(self, tmp_path):
        (tmp_path / "mine").touch()
        (tmp_path / "link").symlink_to("mine")
        assert remove(["link"], tmp_path) == [tmp_path / "link"]
        assert list(tree(tmp_path)) == ["mine"]

    def test_what_is_not_there_or_is_a_folder_stays(self, tmp_path):
        (tmp_path / "folder").mkdir()
        assert remove(["missing", "no/such", "folder"], tmp_path) == []
        assert (tmp_path / "folder").is_dir()
