"""Files on their way out of a sandbox: only harmless ones arrive, and where they belong.

| attack | ends with | lifted by |
|---|---|---|
| link to a file or folder, put in a folder's place | left out | a supervisor that follows links |
| link that races with the copying | its process is dead | |
| hard link to a file outside | EXDEV, EPERM | |
| device, FIFO, socket | left out | a regular file in its place |
| control characters, escapes, not UTF-8, too long or deep | left out | a host that takes any name |
| names that some file system takes for one | the first arrives | |
| 10,000 files, large and sparse ones | left out | higher limits |
| setuid, setgid, sticky bits | the mode stays behind | |
| link on the host, in the way of what is saved | refused or replaced | a folder in its place |
"""

import stat

import pytest

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox import Limits, SandboxFile, _incoming, save

pytestmark = pytest.mark.docker

MIB = 2**20
FOLLOWING = (
    ("follow_symlinks=False", "follow_symlinks=True"),
    ("os.O_NOFOLLOW | ", ""),
)


@pytest.fixture(scope="module")
def following(relaxed):
    """A sandbox whose supervisor follows links."""

    def change(options):
        *command, text = options["Cmd"]
        for old, new in FOLLOWING:
            assert old in text
            text = text.replace(old, new)
        options["Cmd"] = [*command, text]

    return relaxed(change=change)


@pytest.fixture
def unchecked(monkeypatch):
    """The host takes files of any name."""
    monkeypatch.setattr(_incoming, "problem_with", lambda name: None)


LINKS = """
import os
os.symlink("/etc/passwd", "to file")
os.symlink("/etc", "to folder")
os.symlink("main.py", "to own file")
os.symlink("/proc/self/environ", "to process")
os.mkdir("replaced")
os.rmdir("replaced")
os.symlink("/etc", "replaced")
os.symlink("loop", "loop")
open("plain", "w").write("plain")
"""


async def test_links_are_left_out(following, sandbox):
    result = await sandbox.run(python=LINKS)
    assert [*result.files] == ["plain"]
    assert len(result.omitted) == 6
    assert set(result.omitted.values()) == {"not a regular file"}
    followed = await following.run(python=LINKS)
    assert "root:" in followed.files["to file"].text
    assert "root:" in followed.files["replaced/passwd"].text


async def test_folder_of_an_input_replaced_by_a_link_gives_nothing(following, sandbox):
    code = "mv folder away && ln -s /etc folder"
    files = {"folder/passwd": "mine"}
    result = await sandbox.run(code, files=files)
    assert [*result.files] == ["away/passwd"]
    assert result.deleted == ("folder/passwd",)
    followed = await following.run(code, files=files)
    assert "root:" in followed.files["folder/passwd"].text


async def test_race_with_the_copying_is_lost(pids_with, sandbox, word):
    """What swaps a file and a link all the time is dead when the copying begins."""
    code = """
import os, time
os.symlink("/etc/passwd", "link")
open("file", "w").write("mine")
if os.fork() == 0:
    os.setsid()
    while True:
        for source in ("link", "file"):
            os.rename(source, "swapped")
            os.rename("swapped", source)
time.sleep(0.2)
"""
    result = await sandbox.run(["python3", "-c", code, word])
    assert {file.text for file in result.files.values()} <= {"mine"}
    assert not pids_with(word)


async def test_hard_links_do_not_lead_out(sandbox):
    code = """
import os
for target in ("/etc/passwd", "/etc/hosts", "/dev/null", "/proc/1/environ"):
    try:
        os.link(target, "hard")
        print("linked", target)
    except OSError:
        pass
open("inside", "w").write("inside")
os.link("inside", "second")
"""
    result = await sandbox.run(python=code)
    assert result.stdout == ""
    assert {name: file.text for name, file in result.files.items()} == {
        "inside": "inside",
        "second": "inside",
    }


async def test_special_files_are_left_out(sandbox, relaxed):
    """A FIFO nobody writes to would hold up who opens it."""
    code = """
import os, socket
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
try:
    os.mknod("device", 0o20600, os.makedev(1, 3))
except PermissionError:
    open("no device", "w").close()
"""
    result = await sandbox.run(python=code)
    special = {"fifo": "not a regular file", "socket": "not a regular file"}
    assert [*result.files] == ["no device"]
    assert result.omitted == special
    allowed = relaxed("no seccomp", "capabilities", "devices in folders")
    result = await allowed.run(python=code)
    assert not result.files
    assert result.omitted == special | {"device": "not a regular file"}


HOSTILE_NAMES = {
    "newline": b"a\nb",
    "carriage return": b"a\rb",
    "escape sequence": b"\x1b]0;title\x07",
    "not UTF-8": b"\xff\xfe",
    "bidirectional": "a\u202egpj.exe".encode(),
    "backslash": b"..\\..\\attack",
    "drive": b"C:attack",
    "device of Windows": b"NUL.txt",
    "trailing dot": b"attack.",
    "hook of git": b".git/hooks/post-checkout",
    "deep": b"/".join([b"d"] * 40),
    "longer than a path": b"/".join([b"d" * 250] * 5),
}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_name_is_left_out(name, sandbox):
    code = f"""
import os
name = {HOSTILE_NAMES[name]!r}
os.makedirs(os.path.dirname(name) or b".", exist_ok=True)
open(name, "w").close()
open("plain", "w").close()
"""
    result = await sandbox.run(python=code)
    assert (result.stderr, [*result.files]) == ("", ["plain"])
    ((shown, _),) = result.omitted.items()
    assert shown.isprintable()


async def test_hostile_names_would_come_but_for_the_host(sandbox, unchecked):
    names = [*HOSTILE_NAMES.values()]
    code = f"""
import os
for name in {names!r}:
    os.makedirs(os.path.dirname(name) or b".", exist_ok=True)
    open(name, "w").close()
"""
    result = await sandbox.run(python=code)
    arrived = {name.encode(errors="surrogateescape") for name in result.files}
    assert arrived == {*names}


async def test_path_that_no_call_takes_is_no_trouble(sandbox):
    """Deeper than PATH_MAX: nobody can name what lies at its end."""
    code = """
import os
for _ in range(40):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
open("end", "w").close()
open("/work/plain", "w").close()
"""
    result = await sandbox.run(python=code)
    assert (result.stderr, [*result.files]) == ("", ["plain"])


async def test_names_that_collide_do_not_overwrite(sandbox):
    code = """
for name in ("A", "a", "\\u00e9", "e\\u0301", "stra\\u00dfe", "STRASSE"):
    open(name, "w").write(name)
"""
    result = await sandbox.run(python=code)
    assert {*result.files} == {"A", "e\u0301", "STRASSE"}
    assert {name: file.text for name, file in result.files.items()} == {
        name: name for name in result.files
    }
    assert len(result.omitted) == 3


async def test_ten_thousand_files_are_left_out(sandbox):
    code = "for number in range(10_000): open(f'{number:05}', 'w').close()"
    roomy = Limits(work_inodes=12_000)
    result = await sandbox.run(python=code, limits=roomy)
    assert (len(result.files), len(result.omitted)) == (512, 101)
    roomier = Limits(work_inodes=12_000, collect_files=20_000)
    result = await sandbox.run(python=code, limits=roomier)
    assert (len(result.files), len(result.omitted)) == (10_000, 0)


async def test_large_sparse_file_is_left_out(sandbox):
    """It takes no room in the sandbox, and would take all of it on the host."""
    code = """
import os
os.truncate(os.open("sparse", os.O_CREAT | os.O_RDWR), 60 * 2**20)
open("plain", "w").close()
"""
    result = await sandbox.run(python=code)
    assert [*result.files] == ["plain"]
    assert result.omitted == {"sparse": "more bytes than the limit"}
    roomy = Limits(collect_bytes=64 * MIB)
    result = await sandbox.run(python=code, limits=roomy)
    assert len(result.files["sparse"].content) == 60 * MIB


async def test_mode_stays_behind(sandbox, tmp_path):
    code = """
import os
for name, mode in {"setuid": 0o6755, "open": 0o1777, "plain": 0o666}.items():
    open(name, "w").close()
    os.chmod(name, mode)
    assert os.stat(name).st_mode & 0o7777 == mode
"""
    result = await sandbox.run(python=code)
    assert result.stderr == ""
    save(result.files, tmp_path)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()
    }
    assert modes == {"setuid": 0o700, "open": 0o700, "plain": 0o600}


async def test_setuid_file_of_the_job_gives_it_nothing(sandbox):
    code = """
cp /usr/bin/id mine && chmod 6755 mine && ./mine -u && ./mine -g
"""
    assert (await sandbox.run(code)).stdout == "65534\n65534\n"


async def test_unreadable_files_hold_up_nothing(sandbox):
    code = "echo > closed; chmod 0 closed; mkdir shut; chmod 0 shut; echo > plain"
    result = await sandbox.run(code)
    assert [*result.files] == ["plain"]
    assert result.omitted == {"closed": "Permission denied"}


@pytest.mark.parametrize(
    ("name", "target"), [("link/file", ""), ("link", "file")], ids=["folder", "file"]
)
async def test_links_of_the_host_lead_nowhere(name, target, sandbox, tmp_path):
    """An earlier run's files may have been unpacked there by something else."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "file").write_text("the researcher's")
    (inside / "link").symlink_to(outside / target)
    result = await sandbox.run(f"mkdir -p $(dirname {name}); echo attack > {name}")
    try:
        save(result.files, inside)
    except SandboxError:
        assert target == ""
    assert (outside / "file").read_text() == "the researcher's"
    (inside / "link").unlink()
    save(result.files, inside)
    assert (inside / name).read_text() == "attack\n"


async def test_nothing_is_saved_if_one_name_is_hostile(tmp_path):
    files = {"good": SandboxFile(content=b""), "../bad": SandboxFile(content=b"")}
    with pytest.raises(SandboxError, match=r"\.\."):
        save(files, tmp_path / "target")
    assert not [*tmp_path.iterdir()]
