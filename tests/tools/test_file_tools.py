"""What the file tools do in a folder, and that they reach nothing outside of it."""

import os
import stat

import anyio
import pytest

from agentfarm.tools import ToolRegistry, _file_work, file_tools

HOSTILE = [
    "/etc/passwd",
    "../secret.txt",
    "a/../../secret.txt",
    "..",
    ".git/hooks/pre-commit",
    "nul\x00l",
    "con",
    "back\\slash",
    "c:x",
    "x" * 300,
    "/".join("d" * 40),
    "\ud800",
    "__pycache__/x.pyc",
    ".agentfarm-report.xml",
    ".",
    "link.txt",
    "linked/secret.txt",
]


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    (folder / "src").mkdir(parents=True)
    (folder / "src/main.py").write_text("def main():\n    return 1\n")
    (folder / "notes.txt").write_text("one\ntwo\nthree\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (outside / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "linked").symlink_to(outside)
    return folder


@pytest.fixture
def use(work):
    """Call a tool by name."""
    registry = ToolRegistry(file_tools(work))

    async def call(tool, **arguments):
        return await registry.get(tool).call(arguments)

    return call


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


async def test_files_are_listed_with_their_sizes(use, work):
    (work / "__pycache__").mkdir()
    (work / "__pycache__/x.pyc").write_bytes(b"x")
    result = await use("list_files")
    assert result.text == "notes.txt (14 bytes)\nsrc/main.py (25 bytes)"
    assert result.data == {"files": ["notes.txt", "src/main.py"]}
    for path in ("src", "src/", "./src", "/work/src", f"{work}/src", "src/main.py"):
        result = await use("list_files", path=path)
        assert result.data == {"files": ["src/main.py"]}, path
    result = await use("list_files", path=".")
    assert len(result.data["files"]) == 2
    result = await use("list_files", path="sr")
    assert not result.ok
    assert "no file or folder 'sr'" in result.text


async def test_a_long_list_is_cut_and_says_so(use, work):
    for number in range(_file_work.LISTED_FILES + 3):
        (work / f"src/f{number}").touch()
    result = await use("list_files", path="src")
    assert len(result.data["files"]) == _file_work.LISTED_FILES
    assert "[… 4 more files left out …]" in result.text


async def test_a_workspace_that_is_not_there_is_empty_until_written(tmp_path):
    folder = tmp_path / "new"
    tools = {tool.name: tool for tool in file_tools(folder)}
    assert (await tools["list_files"].call({})).text == "The workspace is empty."
    result = await tools["read_file"].call({"path": "a"})
    assert "The workspace holds: nothing." in result.text
    assert not folder.exists()
    assert (await tools["write_file"].call({"path": "a/b", "content": "x"})).ok
    assert tree(folder) == {"a/b": b"x"}


async def test_a_file_is_read_whole_or_in_part(use):
    result = await use("read_file", path="notes.txt")
    assert result.text == "notes.txt, lines 1 to 3 of 3:\none\ntwo\nthree"
    result = await use("read_file", path="notes.txt", start_line=2, lines=1)
    assert result.text == (
        "notes.txt, lines 2 to 2 of 3:\ntwo\n"
        "[… 1 lines follow; go on with start_line=3]"
    )
    assert result.data["end_line"] == 2
    result = await use("read_file", path="notes.txt", start_line=None, lines=None)
    assert result.data["end_line"] == 3
    result = await use("read_file", path="notes.txt", start_line=4)
    assert not result.ok
    assert "has 3 lines" in result.text


async def test_a_long_file_is_cut_and_says_where_to_go_on(use, work):
    (work / "many.txt").write_text("line\n" * 1000)
    result = await use("read_file", path="many.txt", lines=900)
    assert result.data["end_line"] == _file_work.SHOWN_LINES
    assert result.text.endswith("[… 600 lines follow; go on with start_line=401]")
    (work / "wide.txt").write_text(("w" * 7000 + "\n") * 4)
    result = await use("read_file", path="wide.txt")
    assert result.data["end_line"] == 2
    (work / "wider.txt").write_text("w" * 50_000 + "\nend\n")
    result = await use("read_file", path="wider.txt")
    assert len(result.text) < 17_000
    assert "34000 characters of this line left out" in result.text
    assert "start_line=2" in result.text


@pytest.mark.parametrize("content", [b"a\x00b", b"\xff\xfe\x00", "å".encode("latin-1")])
async def test_a_binary_file_is_named_as_one(use, work, content):
    (work / "data.bin").write_bytes(content)
    for tool, more in (("read_file", {}), ("edit_file", {"old": "a", "new": "b"})):
        result = await use(tool, path="data.bin", **more)
        assert not result.ok
        assert (
            f"data.bin is binary, not UTF-8 text: {len(content)} bytes" in result.text
        )
    assert (work / "data.bin").read_bytes() == content


async def test_an_empty_file_and_a_huge_one(use, work):
    (work / "empty.py").touch()
    assert (await use("read_file", path="empty.py")).text == "empty.py is empty."
    with (work / "huge").open("wb") as file:
        file.truncate(_file_work.MAX_FILE_BYTES + 1)
    result = await use("read_file", path="huge")
    assert not result.ok
    assert "more than 8388608" in result.text


async def test_a_file_is_created_replaced_and_left(use, work):
    result = await use("write_file", path="/work/pkg/new.py", content="x = 'å'\n")
    assert result.data == {
        "written": ["pkg/new.py"],
        "created": ["pkg/new.py"],
        "deleted": [],
    }
    assert (work / "pkg/new.py").read_text() == "x = 'å'\n"
    (work / "pkg/new.py").chmod(0o755)
    result = await use("write_file", path="pkg/new.py", content="x = 2\n")
    assert (result.data["written"], result.data["created"]) == (["pkg/new.py"], [])
    assert os.access(work / "pkg/new.py", os.X_OK), "still a script"
    before = (work / "pkg/new.py").stat()
    result = await use("write_file", path="pkg/new.py", content="x = 2\n")
    assert (result.ok, result.data["written"]) == (True, [])
    assert (work / "pkg/new.py").stat() == before
    result = await use("write_file", path="bad.txt", content="\ud800")
    assert (work / "bad.txt").read_text() == "\\ud800"


async def test_a_name_that_would_hide_another_is_refused(use, work):
    before = tree(work)
    for path in ("Notes.txt", "notes.txt/x", "src", "SRC/main.py", "new/"):
        result = await use("write_file", path=path, content="x")
        assert not result.ok, path
    assert tree(work) == before


async def test_an_edit_needs_exactly_one_place(use, work):
    result = await use("edit_file", path="notes.txt", old="two", new="2")
    assert result.data["written"] == ["notes.txt"]
    assert result.data["created"] == []
    assert "at line 2" in result.text
    assert (work / "notes.txt").read_text() == "one\n2\nthree\n"
    (work / "aaa.txt").write_text("x\nab\nab\n")
    result = await use("edit_file", path="aaa.txt", old="ab", new="c")
    assert not result.ok
    assert "occurs 2 times in aaa.txt, at lines 2, 3" in result.text
    (work / "aaa.txt").write_text("aaa\n")
    result = await use("edit_file", path="aaa.txt", old="aa", new="c")
    assert "occurs 2 times" in result.text, "they overlap"
    (work / "aaa.txt").write_text("a\n" * 99)
    result = await use("edit_file", path="aaa.txt", old="a", new="c")
    assert "many times" in result.text
    result = await use(
        "edit_file", path="src/main.py", old="return 1\n\nx", new="return 2"
    )
    assert "occurs 0 times in src/main.py. Its first line occurs at line 2." in (
        result.text
    )
    result = await use("edit_file", path="src/main.py", old="1", new="1")
    assert "the same" in result.text
    assert (work / "src/main.py").read_text() == "def main():\n    return 1\n"


async def test_an_edit_keeps_the_files_line_ends(use, work):
    (work / "dos.py").write_bytes(b"a = 1\r\nb = 2\r\nc = 3\r\n")
    result = await use("edit_file", path="dos.py", old="a = 1\nb = 2", new="a\nb")
    assert result.ok
    assert (work / "dos.py").read_bytes() == b"a\r\nb\r\nc = 3\r\n"


async def test_a_file_is_deleted_and_a_folder_is_not(use, work):
    result = await use("delete_file", path="src/main.py")
    assert result.data == {"written": [], "created": [], "deleted": ["src/main.py"]}
    assert tree(work) == {"notes.txt": b"one\ntwo\nthree\n"}
    (work / "full").mkdir()
    for path in ("full", "src/main.py"):
        result = await use("delete_file", path=path)
        assert not result.ok, path
    assert (work / "full").is_dir()


async def test_a_text_is_found_as_it_is(use, work):
    (work / "data.bin").write_bytes(b"main\x00")
    (work / "src/b.py").write_text("Main()\nx = (a+)+$\n")
    result = await use("search_files", text="main")
    assert result.text == (
        "1 lines in 1 of 4 files.\nsrc/main.py:1: def main():\n"
        "1 binary files were not searched."
    )
    result = await use("search_files", text="MAIN", ignore_case=True, path="src")
    assert (result.data["lines"], result.data["files"]) == (2, 2)
    assert "src/b.py:1: Main()" in result.text
    result = await use("search_files", text="(a+)+$")
    assert "src/b.py:2: x = (a+)+$" in result.text
    result = await use("search_files", text=r"def \w+")
    assert result.data["lines"] == 0
    assert "not as a pattern" in result.text


async def test_many_hits_are_cut_and_counted(use, work):
    (work / "many.txt").write_text(("hit " + "x" * 1000 + "\n") * 500)
    with anyio.fail_after(20):
        result = await use("search_files", text="hit")
    assert result.data["lines"] == 500
    assert len(result.text) < _file_work.SHOWN_HITS * 300
    assert f"[… {500 - _file_work.SHOWN_HITS} more left out …]" in result.text


@pytest.mark.parametrize("path", HOSTILE)
@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ("read_file", {}),
        ("write_file", {"content": "x"}),
        ("edit_file", {"old": "secret", "new": "x"}),
        ("delete_file", {}),
    ],
)
async def test_nothing_outside_is_reached(use, work, tool, more, path):
    before = tree(work.parent)
    result = await use(tool, path=path, **more)
    assert not result.ok
    assert result.data == {"error": "path"}
    assert "secret" not in result.text.replace("secret.txt", "")
    assert "The workspace holds: notes.txt, src/main.py." in result.text
    assert tree(work.parent) == before
    assert (work / "link.txt").is_symlink()


@pytest.mark.parametrize("path", ["/etc", "..", "linked", ".git", "a\x00b"])
@pytest.mark.parametrize("tool", ["list_files", "search_files"])
async def test_nothing_outside_is_listed_or_searched(use, tool, path):
    text = {"text": "secret"} if tool == "search_files" else {}
    result = await use(tool, path=path, **text)
    assert "secret.txt" not in result.text
    assert result.data.get("lines", 0) == 0


async def test_a_fifo_is_neither_waited_for_nor_replaced(use, work):
    os.mkfifo(work / "pipe")
    with anyio.fail_after(10):
        for tool, more in (("read_file", {}), ("write_file", {"content": "x"})):
            result = await use(tool, path="pipe", **more)
            assert "not a regular file" in result.text
    assert stat.S_ISFIFO((work / "pipe").lstat().st_mode)


async def test_calls_at_once_lose_nothing(use, work):
    (work / "list.txt").write_text("".join(f"<{number}>\n" for number in range(20)))
    async with anyio.create_task_group() as group:
        for number in range(20):

            async def edit(number=number):
                await use("edit_file", path="list.txt", old=f"<{number}>", new="done")

            group.start_soon(edit)
    assert (work / "list.txt").read_text() == "done\n" * 20


async def test_it_waits_for_the_lock_of_other_writers(work):
    lock = anyio.Lock()
    tools = {tool.name: tool for tool in file_tools(work, lock=lock)}
    async with anyio.create_task_group() as group, lock:
        write = {"path": "late.txt", "content": "x"}
        group.start_soon(tools["write_file"].call, write)
        await anyio.wait_all_tasks_blocked()
        assert not (work / "late.txt").exists()
    assert (work / "late.txt").exists()


async def test_a_folder_that_cannot_be_written_is_a_result(use, work, tmp_path):
    (tmp_path / "file").write_text("")
    tools = {tool.name: tool for tool in file_tools(tmp_path / "file")}
    result = await tools["write_file"].call({"path": "x", "content": "x"})
    assert not result.ok
    assert "Traceback" not in result.text
