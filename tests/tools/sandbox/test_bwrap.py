"""What a bubblewrap sandbox shows of the host, and what makes one here."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox import BubblewrapSandbox, Limits
from agentfarm.tools.sandbox._bwrap import (
    SYSTEM_PATH,
    Interpreter,
    interpreters,
    userns_remedy,
)
from agentfarm.tools.sandbox._exchange import SUPERVISOR
from agentfarm.tools.sandbox._jail import NOBODY, Jail

pytestmark = pytest.mark.bubblewrap


@pytest.fixture
async def sandbox(host):
    async with BubblewrapSandbox(host=host) as opened:
        yield opened


async def test_a_listener_of_the_host_is_out_of_reach(sandbox):
    connect = "import socket, sys; s = socket.socket(getattr(socket, sys.argv[1]));"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as local,
    ):
        port = tcp.getsockname()[1]
        name = secrets.token_hex(8)
        local.bind(f"\0{name}")
        local.listen()
        for family, address in (
            ("AF_INET", repr(("127.0.0.1", port))),
            ("AF_UNIX", repr(f"\0{name}")),
        ):
            command = [f"{connect} s.connect({address}); print('in')", family]
            inside = await sandbox.run(["python3", "-c", *command])
            outside = subprocess.run(
                [sys.executable, "-c", *command], capture_output=True, check=True
            )
            assert outside.stdout == b"in\n"
            assert "ConnectionRefusedError" in inside.stderr
            assert inside.stdout == ""


async def test_there_is_no_network_but_its_own_loopback(sandbox):
    result = await sandbox.run(
        python=(
            "import socket\n"
            "print(open('/proc/net/dev').read().count(':'))\n"
            "with socket.create_server(('localhost', 0)) as server:\n"
            "    socket.create_connection(server.getsockname()).close()\n"
            "print(open('/proc/net/route').read().count('\\n'))\n"
        )
    )
    assert result.stdout == "1\n1\n"


LOOK = """
import json, os, sys
there = [path for path in sys.argv[1:] if os.path.exists(path)]
print(json.dumps([there, os.listdir("/"), os.listdir("/etc")]))
"""


async def test_nothing_of_the_hosts_disk_is_there_but_programs(sandbox, host, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    paths = [secret, Path(__file__), Path.home(), Path("/etc/shadow"), Path("/run")]
    assert all(path.exists() for path in paths)
    result = await sandbox.run(["python3", "-c", LOOK, *map(str, paths)])
    there, top, etc = json.loads(result.stdout)
    assert there == []
    assert set(top) <= {
        *("bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin"),
        *("tmp", "usr", "work", *(path.parts[1] for path in host.interpreter.prefixes)),
    }
    assert set(etc) <= {
        *("alternatives", "group", "hosts", "ld.so.cache", "localtime"),
        *("nsswitch.conf", "passwd"),
    }


INSPECT = """
import json, os
def status(pid):
    lines = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return {name: lines[name].strip() for name in
            ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}
mounts = [line.split()[1:4] for line in open("/proc/self/mounts")]
print(json.dumps({
    "job": status("self"), "supervisor": status(1), "mounts": mounts,
    "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
    "groups": os.getgroups(), "session": os.getsid(0) == os.getpid(),
    "descriptors": len(os.listdir("/proc/self/fd")), "environment": dict(os.environ),
    "host": os.uname().nodename, "pid": os.getppid(),
}))
"""


async def test_no_capability_no_new_privilege_a_filter_and_mounts_as_meant(sandbox):
    result = await sandbox.run(python=INSPECT)
    seen = json.loads(result.stdout)
    for process in (seen["job"], seen["supervisor"]):
        assert process.pop("NoNewPrivs") == "1"
        assert process.pop("Seccomp") == "2"
        assert {int(value, 16) for value in process.values()} == {0}
    assert seen["ids"] == [NOBODY] * 4
    assert seen["session"]
    assert seen["pid"] == 1
    assert seen["host"] == "sandbox"
    assert seen["descriptors"] == 4  # three, and the folder that lists them
    writable = set()
    for folder, _, options in seen["mounts"]:
        flags = options.split(",")
        assert "nosuid" in flags
        if "rw" in flags:
            writable.add(folder)
    devices = {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm"}
    assert writable == {"/work", "/proc", "/" + "tmp", *(f"/dev/{x}" for x in devices)}


async def test_the_environment_of_the_controller_stays_outside(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_OF_MINE", "x")
    result = await sandbox.run(python=INSPECT)
    assert set(json.loads(result.stdout)["environment"]) == {
        *("HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "PWD", "TMPDIR")
    }


OPEN_CORE_PATTERN = """
import os
try:
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    print("writable")
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def root(require):
    if os.geteuid() != 0:
        require("root", "run the tests as root")


async def test_the_kernels_settings_are_not_writable(sandbox):
    result = await sandbox.run(python=OPEN_CORE_PATTERN)
    assert result.stdout in {"Permission denied\n", "Read-only file system\n"}


@pytest.mark.usefixtures("root", "host")
def test_bwrap_alone_lets_root_without_capabilities_write_them():
    """The attack that the drop of root and the read-only mount are there for."""
    command = ["bwrap", "--unshare-all", "--cap-drop", "ALL", "--ro-bind", "/", "/"]
    inside = ["--proc", "/proc", sys.executable, "-c", OPEN_CORE_PATTERN]
    ended = subprocess.run([*command, *inside], capture_output=True, check=True)
    assert ended.stdout == b"writable\n"


@pytest.mark.usefixtures("root")
async def test_either_layer_keeps_them_from_being_written(host):
    async with BubblewrapSandbox(host=replace(host, drop=False)) as undropped:
        result = await undropped.run(python=OPEN_CORE_PATTERN)
    assert result.stdout == "Read-only file system\n"


@pytest.mark.usefixtures("root")
def test_root_and_the_environment_are_given_up_before_bwrap_starts(host, monkeypatch):
    monkeypatch.setenv("SECRET_OF_MINE", "x")
    jail = Jail(host, Limits())
    try:
        jail.start()
        status = Path(f"/proc/{jail._process.pid}/status").read_text()
        lines = dict(line.split(":\t", 1) for line in status.splitlines())
        assert set(lines["Uid"].split()) == {str(NOBODY)}
        assert set(lines["Gid"].split()) == {str(NOBODY)}
        assert lines["Groups"].split() == []
        left = Path(f"/proc/{jail._process.pid}/environ").read_text()
        assert "SECRET_OF_MINE" not in left
    finally:
        jail.end()


async def test_further_namespaces_are_refused(sandbox):
    result = await sandbox.run(["unshare", "--user", "--map-root-user", "id"])
    assert result.exit_code != 0


AS_A_USER = """
import asyncio, json, os, sys
from pathlib import Path
from agentfarm.tools.sandbox import BubblewrapSandbox, _bwrap
_bwrap.SUPERVISOR = Path(sys.argv[1])  # the checkout may be closed to other users
os.setgroups([])
os.setresgid(65533, 65533, 65533)
os.setresuid(65533, 65533, 65533)

async def main():
    sandbox = BubblewrapSandbox()
    status = await sandbox.run(["cat", "/proc/self/status"])
    settings = await sandbox.run(["python3", "-c", sys.argv[2]])
    print(json.dumps([status.stdout, settings.stdout, sandbox.unenforced]))

asyncio.run(main())
"""


@pytest.mark.usefixtures("root", "host")
def test_a_user_without_privileges_has_sandboxes_too():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        supervisor = shutil.copy(SUPERVISOR, folder)
        ended = subprocess.run(
            [sys.executable, "-c", AS_A_USER, supervisor, OPEN_CORE_PATTERN],
            stdout=subprocess.PIPE,
            check=True,
        )
    status, settings, words = json.loads(ended.stdout)
    lines = dict(line.split(":\t", 1) for line in status.splitlines())
    assert set(lines["Uid"].split()) == {str(NOBODY)}
    assert int(lines["CapEff"], 16) == 0
    assert lines["Seccomp"] == "2"
    assert settings in {"Permission denied\n", "Read-only file system\n"}
    assert any(each.startswith("memory_bytes") for each in words)


async def test_the_supervisor_cannot_be_ended_or_read_by_the_job(sandbox):
    result = await sandbox.run(
        python=(
            "import os, signal\n"
            "for number in range(1, 65):\n"
            "    os.kill(1, number)\n"
            "for name in ('environ', 'mem', 'fd/0', 'fd/1'):\n"
            "    try: open('/proc/1/' + name, 'rb'); print('opened', name)\n"
            "    except PermissionError: pass\n"
            "print('still here')\n"
        )
    )
    assert result.stdout == "still here\n"
    assert result.exit_code == 0


def stand_in(folder, script):
    """A `bwrap` that does what the script says, first on PATH."""
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_a_machine_without_bubblewrap_says_what_to_install(on_path):
    assert on_path.is_dir()
    reason = BubblewrapSandbox().available()
    assert "apt-get install bubblewrap" in reason


def test_a_bubblewrap_that_is_too_old_is_named(on_path):
    stand_in(on_path, "echo 'bubblewrap 0.4.1 --seccomp --info-fd --as-pid-1'")
    reason = BubblewrapSandbox().available()
    assert "0.4.1" in reason
    assert "--size" in reason


def test_a_setuid_bubblewrap_is_refused(on_path):
    stand_in(on_path, "exit 0").chmod(0o4755)
    assert "setuid" in BubblewrapSandbox().available()


@pytest.mark.usefixtures("host")
async def test_a_refused_user_namespace_is_told_with_bubblewraps_own_words(
    on_path, groups
):
    real = shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin")
    stand_in(
        on_path,
        f'case "$1" in --help|--version) exec {real} "$1";; esac\n'
        "echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1",
    )
    reached_by_nobody(on_path)
    sandbox = BubblewrapSandbox()
    with pytest.raises(SandboxUnavailable, match="uid map: Permission denied") as error:
        await sandbox.check()
    assert error.value.remedy
    assert not groups()


def reached_by_nobody(folder):
    """Let every user through to a folder of pytest, which are its owner's alone."""
    for each in (folder, *folder.parents):
        if each == Path(tempfile.gettempdir()):
            break
        each.chmod(each.stat().st_mode | 0o011)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user/max_user_namespaces", "0"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ],
)
def test_the_setting_that_forbids_user_namespaces_is_named(tmp_path, name, value):
    file = tmp_path / name
    file.parent.mkdir()
    file.write_text("7\n")
    assert name.replace("/", ".") not in userns_remedy(tmp_path)
    file.write_text(f"{value}\n")
    assert name.replace("/", ".") in userns_remedy(tmp_path)


@pytest.mark.parametrize("prefix", ["/", "/opt", "/home/someone", "/work/x/.venv"])
def test_a_python_that_would_show_more_than_itself_is_not_taken(monkeypatch, prefix):
    monkeypatch.setattr(sys, "prefix", prefix)
    assert [each.search_path for each in interpreters()] == [
        "/usr/local/bin:/usr/bin:/bin"
    ]


def test_the_running_python_comes_first_and_shows_only_its_folders(monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/srv/venv/a")
    monkeypatch.setattr(sys, "base_prefix", "/opt/python/3")
    monkeypatch.setattr(sys, "executable", "/srv/venv/a/bin/python3")
    running_one, system = interpreters()
    assert running_one.prefixes == (Path("/opt/python/3"), Path("/srv/venv/a"))
    assert running_one.search_path.startswith("/srv/venv/a/bin:")
    assert system.prefixes == ()


async def test_the_interpreter_is_told(sandbox):
    result = await sandbox.run(["python3", "--version"])
    assert result.stdout.strip() in sandbox.interpreter
    assert "pytest" in sandbox.interpreter


async def test_another_python_is_shown_where_it_lies_and_read_only(host, require):
    system = shutil.which("python3", path=SYSTEM_PATH)
    if system is None:
        require("A python3 of the system", "apt-get install python3")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        subprocess.run([system, "-m", "venv", "--without-pip", folder], check=True)
        (packages,) = Path(folder).glob("lib/python3*/site-packages")
        (packages / "marker.py").write_text("print('marker')")
        interpreter = Interpreter(
            label="a venv",
            search_path=f"{folder}/bin:{SYSTEM_PATH}",
            prefixes=(Path(folder),),
        )
        host = replace(host, interpreter=interpreter)
        async with BubblewrapSandbox(host=host) as sandbox:
            result = await sandbox.run(
                python=(
                    "import marker, os, pathlib\n"
                    "print(os.listdir('/var'), os.listdir('/var/tmp'))\n"
                    "pathlib.Path(marker.__file__).write_text('')\n"
                )
            )
    assert result.stdout == f"marker\n['tmp'] ['{Path(folder).name}']\n"
    assert "Read-only file system" in result.stderr
