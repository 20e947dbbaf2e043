"""Files, privileges and limits of the kernel that code in a sandbox must not reach.

| attack | refused by | lifted by |
|---|---|---|
| /etc/passwd, a file in /, the host's copy of /etc/hosts | uid; read-only root | both |
| core_pattern, sysrq-trigger | uid; /proc mounted read-only | both |
| /proc/keys | mask | no mask |
| /sys, own limit in the cgroup | mounted read-only | capabilities and calls to remount |
| /dev | uid | root |
| memory, environment, stream, OOM score of PID 1 | not dumpable | dumpable |
| core dump, its rlimit | rlimit | no rlimits |
| setuid program of root | no new privileges | its absence |
| capabilities | dropped, and uid | root with some |
| a device file | seccomp, capabilities, nodev, device cgroup | all four |
| docker.sock | is not there | bind mount |
| environment of the host | is not passed on | passed on |
| name of the host | UTS namespace | the host's |
| other containers in the cgroups | own cgroup | bind mount |
"""

import io
import os
import shutil
import socket
import tarfile

import pytest

pytestmark = pytest.mark.docker

APPEND = """
target = os.open({path!r}, os.O_WRONLY | os.O_APPEND)
os.write(target, b"# attack\\n")
through()
"""
CREATE = """
os.close(os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
through()
"""
REWRITE = """
with open({path!r}, "r+b", buffering=0) as file:
    value = file.read()
    file.seek(0)
    file.write(value)
through()
"""
REMOUNT_SYS = """
MS_REMOUNT = 32
try:
    call("mount", None, b"/sys", None, MS_REMOUNT, None)
except PermissionError:
    pass
with open({path!r}, "r+") as file:
    mtu = int(file.read())
    file.seek(0)
    file.write(str(mtu - 1))
through()
"""
RAISE_LIMIT = """
MS_REMOUNT, MS_BIND = 32, 4096
folder = {path!r}
if os.path.isdir(folder + "/pids"):  # version 1
    folder += "/pids"
try:
    call("mount", None, folder.encode(), None, MS_REMOUNT | MS_BIND, None)
except PermissionError:
    pass
with open(folder + "/pids.max", "w") as file:
    file.write("max")
through()
"""
OPEN_TO_WRITE = """
os.open({path!r}, os.O_WRONLY)
through()
"""
READ = """
assert os.read(os.open({path!r}, os.O_RDONLY), 1000), "empty"
through()
"""
ROOT_FILES = ("root", "writable root")
BARE_PROC = ("root", "bare /proc")
ADMIN = ("no seccomp", "capabilities")
DUMPABLE = ("dumpable supervisor",)

ATTACKS = {
    "passwd": (APPEND, "/etc/passwd", {"EROFS", "EACCES"}, ROOT_FILES),
    "new file in the root": (CREATE, "/new", {"EROFS", "EACCES"}, ROOT_FILES),
    "hosts": (APPEND, "/etc/hosts", {"EROFS", "EACCES"}, ROOT_FILES),
    "core_pattern": (
        REWRITE,
        "/proc/sys/kernel/core_pattern",
        {"EROFS", "EACCES"},
        BARE_PROC,
    ),
    "new file in /dev": (CREATE, "/dev/new", {"EACCES"}, ("root",)),
    "keys": (READ, "/proc/keys", {"AssertionError"}, ("bare /proc",)),
    "sys": (REMOUNT_SYS, "/sys/class/net/lo/mtu", {"EROFS", "EACCES"}, ADMIN),
    "own limit": (RAISE_LIMIT, "/sys/fs/cgroup", {"EROFS", "EACCES"}, ADMIN),
    "memory of PID 1": (READ, "/proc/1/maps", {"EACCES"}, DUMPABLE),
    "memory of PID 1, to write": (OPEN_TO_WRITE, "/proc/1/mem", {"EACCES"}, DUMPABLE),
    "environment of PID 1": (READ, "/proc/1/environ", {"EACCES"}, DUMPABLE),
    "stream of PID 1": (OPEN_TO_WRITE, "/proc/1/fd/1", {"EACCES"}, DUMPABLE),
    "OOM score of PID 1": (
        OPEN_TO_WRITE,
        "/proc/1/oom_score_adj",
        {"EACCES"},
        DUMPABLE,
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_reach_is_refused(name, attempt, sandbox):
    template, path, refused, _ = ATTACKS[name]
    assert await attempt(sandbox, template.format(path=path)) in refused


@pytest.mark.parametrize("name", ATTACKS)
async def test_reach_is_there_once_its_limits_are_lifted(name, attempt, lifted):
    template, path, _, lifts = ATTACKS[name]
    assert await attempt(lifted(*lifts), template.format(path=path)) == "through"


@pytest.mark.parametrize("name", ["passwd", "hosts", "core_pattern"])
@pytest.mark.parametrize("left", [0, 1])
async def test_either_of_two_limits_suffices(name, left, attempt, lifted):
    template, path, refused, lifts = ATTACKS[name]
    code = template.format(path=path)
    assert await attempt(lifted(lifts[1 - left]), code) in refused


async def test_sysrq_cannot_be_triggered(attempt, sandbox, lifted):
    """A kernel without it says so; it is only opened, even where that succeeds."""
    code = OPEN_TO_WRITE.format(path="/proc/sysrq-trigger")
    absent = {"ENOENT"}
    assert await attempt(sandbox, code) in {"EROFS", "EACCES"} | absent
    assert await attempt(lifted(*BARE_PROC), code) in {"through"} | absent


async def test_only_the_own_folders_are_writable(sandbox, lifted):
    code = """
import os
for folder, _, _ in os.walk("/"):
    if not folder.startswith("/proc") and os.access(folder, os.W_OK):
        print(folder)
"""
    ours = ["/dev/mqueue", "/dev/shm", "/tmp", "/work"]  # noqa: S108
    found = await sandbox.run(python=code)
    assert sorted(found.stdout.split()) == ours
    found = await lifted("root", "writable root").run(python=code)
    assert "/etc" in found.stdout.split()


async def test_no_privilege_is_left(sandbox, lifted):
    code = "print(open('/proc/self/status').read())"
    nothing = {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
        **dict.fromkeys(("Uid", "Gid"), "65534 65534 65534 65534"),
        "Groups": "65534",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }

    async def status(sandbox):
        text = (await sandbox.run(python=code)).stdout
        pairs = (line.partition(":") for line in text.splitlines())
        found = {name: " ".join(value.split()) for name, _, value in pairs}
        return {name: found[name] for name in nothing}

    assert await status(sandbox) == nothing
    found = await status(lifted("no seccomp", "capabilities", "new privileges"))
    kept = {name for name in nothing if found[name] == nothing[name]}
    assert kept == {"CapInh", "CapAmb"}


async def test_setuid_program_of_root_stays_powerless(
    engine, sandbox_image, relaxed, tmp_path
):
    """The image has none, so the test lays one in.

    Without the limit runc installs the filter before it changes the uid, which the
    filter refuses; so both are tried without a filter.
    """
    created = engine.api.create_container(sandbox_image, "true")
    try:
        chunks, _ = engine.api.get_archive(created["Id"], "/usr/bin/id")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            program = tmp_path / "id"
            with archive.extractfile("id") as source, program.open("wb") as target:
                shutil.copyfileobj(source, target)
    finally:
        engine.remove_container(created["Id"])
    os.chown(program, 0, 0)
    program.chmod(0o4755)

    def bait(options):
        options["HostConfig"]["Binds"] = [f"{program}:/usr/bin/bait:ro"]

    held = relaxed("no seccomp", change=bait)
    assert (await held.run(["bait", "-u"])).stdout == "65534\n"
    free = relaxed("no seccomp", "new privileges", change=bait)
    assert (await free.run(["bait", "-u"])).stdout == "0\n"


CORE_DUMP = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, [resource.getrlimit(resource.RLIMIT_CORE)[1]] * 2)
pid = os.fork()
if pid == 0:
    os.abort()
print("through" if os.WCOREDUMP(os.waitpid(pid, 0)[1]) else "not dumped")
"""
RAISE_RLIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, [resource.RLIM_INFINITY] * 2)
through()
"""


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        pytest.param(CORE_DUMP, "dumped", id="core dump"),
        pytest.param(RAISE_RLIMIT, "ValueError", id="its rlimit raised"),
    ],
)
async def test_nothing_dumps_core(code, refused, attempt, sandbox, lifted):
    assert await attempt(sandbox, code) == refused
    assert await attempt(lifted("no rlimits"), code) == "through"


async def test_device_of_the_host_cannot_be_opened(attempt, sandbox, lifted):
    """The kernel's log, made as a device file."""
    code = """
import stat
os.mknod("/work/log", stat.S_IFCHR | 0o600, os.makedev(1, 11))
os.read(os.open("/work/log", os.O_RDONLY | os.O_NONBLOCK), 10000)
through()
"""
    limits = ("no seccomp", "capabilities", "devices in folders", "all devices")
    assert await attempt(sandbox, code) == "EPERM"
    assert await attempt(lifted(*limits[:2]), code) == "EACCES"
    assert await attempt(lifted(*limits[:3]), code) == "EPERM"
    assert await attempt(lifted(*limits), code) == "through"


async def test_engine_is_out_of_reach(attempt, engine, relaxed, sandbox):
    code = f"""
import socket
for path in ({engine.socket_path!r}, "/run/docker.sock"):
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except FileNotFoundError:
        continue
    client.sendall(b"GET /_ping HTTP/1.0\\r\\n\\r\\n")
    assert b" 200 " in client.recv(100)
    through()
print("not there")
"""

    def with_socket(options):
        options["HostConfig"]["Binds"] = [f"{engine.socket_path}:/run/docker.sock"]

    assert await attempt(sandbox, code) == "there"
    assert await attempt(relaxed("root", change=with_socket), code) == "through"


async def test_environment_of_the_host_stays_there(monkeypatch, sandbox, word):
    monkeypatch.setenv("OPENAI_API_KEY", word)
    code = "import os; print(dict(os.environ))"
    assert word not in (await sandbox.run(python=code)).stdout
    passed = await sandbox.run(python=code, env={"OPENAI_API_KEY": word})
    assert word in passed.stdout


async def test_name_of_the_host_stays_there(relaxed, sandbox):
    def host_names(options):
        del options["Hostname"]
        options["HostConfig"]["UTSMode"] = "host"

    code = "import os; print(os.uname().nodename)"
    host = f"{socket.gethostname()}\n"
    assert (await sandbox.run(python=code)).stdout == "sandbox\n" != host
    assert (await relaxed(change=host_names).run(python=code)).stdout == host


async def test_other_containers_cannot_be_seen_in_the_cgroups(
    engine, relaxed, sandbox, sandbox_image
):
    def host_cgroups(options):
        options["HostConfig"]["Binds"] = ["/sys/fs/cgroup:/sys/fs/cgroup:ro"]

    code = """
import os, sys
print(any(sys.argv[1] in folder for folder, _, _ in os.walk("/sys/fs/cgroup")))
"""
    other = engine.api.create_container(sandbox_image, "cat", stdin_open=True)
    try:
        engine.api.start(other["Id"])
        look = {"command": ["python3", "-c", code, other["Id"]]}
        assert (await sandbox.run(**look)).stdout == "False\n"
        assert (await relaxed(change=host_cgroups).run(**look)).stdout == "True\n"
    finally:
        engine.remove_container(other["Id"])
