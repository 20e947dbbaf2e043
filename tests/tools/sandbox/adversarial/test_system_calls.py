"""Calls into the kernel that code in a sandbox must not get through.

Each attack fails with EPERM or what is named beside it, gets through once its limits
are lifted, and, where there are several, fails as long as one of them is left.

| attack | limits |
|---|---|
| sockets: vsock, alg, netlink | seccomp |
| io_uring, Linux AIO, keyrings, perf events, userfaultfd, personality | seccomp |
| a user namespace by unshare, clone, clone3; a 32-bit call; terminal input | seccomp |
| packet and raw sockets, bpf, kernel log and modules | seccomp, capabilities |
| mounts old and new, namespaces, chroot, pivot_root, file handles, block device | the same |
| hostname, clock | the same |
| tracing, memory and stream of PID 1 | seccomp, a supervisor that is not dumpable |
| setuid 0 | uid |
"""

import json
import platform
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.docker

SECCOMP = ("no seccomp",)
ADMIN = ("no seccomp", "capabilities")
TRACE = ("no seccomp", "dumpable supervisor")


class Attack(NamedTuple):
    name: str
    lifts: tuple[str, ...]
    code: str
    refused: str = "EPERM"
    absent: str = "through"  # what a kernel says that was built without the part


ATTACKS = [
    Attack(
        "vsock",
        SECCOMP,
        """
import socket
vsock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
vsock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
vsock.listen()
""",
        absent="EAFNOSUPPORT",
    ),
    Attack(
        "alg",
        SECCOMP,
        """
import socket
socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).bind(("hash", "sha256"))
""",
        absent="EAFNOSUPPORT",
    ),
    Attack(
        "netlink",
        SECCOMP,
        """
import socket
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).bind((0, 0))
""",
    ),
    Attack(
        "packet",
        ADMIN,
        """
import socket
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).bind(("lo", 0))
""",
        absent="EAFNOSUPPORT",
    ),
    Attack(
        "raw socket",
        ADMIN,
        """
import socket
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
""",
    ),
    Attack(
        "io_uring", SECCOMP, 'call("io_uring_setup", 4, bytes(120))', absent="ENOSYS"
    ),
    Attack("aio", SECCOMP, 'call("io_setup", 1, bytes(8))', absent="ENOSYS"),
    Attack(
        "add_key",
        SECCOMP,
        'call("add_key", b"user", b"attack", b"secret", 6, -2)',
        absent="ENOSYS",
    ),
    Attack(
        "keyctl",
        SECCOMP,
        """
JOIN_SESSION_KEYRING = 1
call("keyctl", JOIN_SESSION_KEYRING, None)
""",
        absent="ENOSYS",
    ),
    Attack(
        "bpf",
        ADMIN,
        """
import struct
MAP_CREATE, ARRAY = 0, 2
call("bpf", MAP_CREATE, struct.pack("IIII", ARRAY, 4, 4, 1) + bytes(48), 64)
""",
        absent="ENOSYS",
    ),
    Attack(
        "perf_event_open",
        SECCOMP,
        """
import struct
SOFTWARE, EXCLUDE_KERNEL_AND_HYPERVISOR = 1, 0x60
attributes = struct.pack("IIQQQQQ", SOFTWARE, 128, 0, 0, 0, 0,
                         EXCLUDE_KERNEL_AND_HYPERVISOR).ljust(128, bytes(1))
call("perf_event_open", attributes, 0, -1, -1, 0)
""",
    ),
    Attack(
        "userfaultfd",
        SECCOMP,
        """
USER_MODE_ONLY = 1
call("userfaultfd", USER_MODE_ONLY)
""",
        absent="ENOSYS",
    ),
    Attack(
        "mount tmpfs",
        ADMIN,
        """
call("mount", b"none", b"/tmp", b"tmpfs", 0, b"")
open("/tmp/on top", "w")
""",
    ),
    Attack(
        "remount root",
        ADMIN,
        """
MS_REMOUNT, MS_BIND = 32, 4096
call("mount", None, b"/", None, MS_REMOUNT | MS_BIND, None)
open("/etc/passwd", "a").write("attack:x:0:0::/:/bin/sh")
""",
    ),
    Attack("fsopen", ADMIN, 'call("fsopen", b"tmpfs", 0)'),
    Attack("unshare user namespace", SECCOMP, 'call("unshare", CLONE_NEWUSER)'),
    Attack("unshare mounts", ADMIN, 'call("unshare", CLONE_NEWNS)'),
    Attack(
        "clone user namespace",
        SECCOMP,
        """
import signal
if call("clone", CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0) == 0:
    os._exit(0)
""",
    ),
    Attack(
        "clone3 user namespace",
        SECCOMP,
        """
import signal, struct
arguments = struct.pack("8Q", CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
if call("clone3", arguments, len(arguments)) == 0:
    os._exit(0)
""",
        refused="ENOSYS",
    ),
    Attack(
        "setns", ADMIN, 'call("setns", os.open("/proc/self/ns/uts", os.O_RDONLY), 0)'
    ),
    Attack("chroot", ADMIN, 'call("chroot", b"/work")'),
    Attack(
        "pivot_root",
        ADMIN,
        """
os.mkdir("/work/old")
call("pivot_root", b"/work", b"/work/old")
""",
    ),
    Attack(
        "open_by_handle_at",
        ADMIN,
        """
import ctypes, struct
handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
found = ctypes.c_int()
call("name_to_handle_at", -100, b"/work/main.py", handle, ctypes.byref(found), 0)
mount = os.open("/work", os.O_RDONLY)
os.read(call("open_by_handle_at", mount, handle, os.O_RDONLY), 1)
""",
    ),
    Attack(
        "block device",
        ADMIN,
        """
import stat
os.mknod("/work/disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
""",
    ),
    Attack("setuid 0", ("root",), "os.setresuid(0, 0, 0)"),
    Attack("hostname", ADMIN, 'call("sethostname", b"attack", 6)'),
    Attack(
        "set the clock",
        ADMIN,
        """
import struct, time
now = time.time_ns()
call("clock_settime", 0, struct.pack("qq", now // 10**9, now % 10**9))
""",
    ),
    Attack(
        "kernel log",
        ADMIN,
        """
import ctypes
READ_ALL = 3
call("syslog", READ_ALL, ctypes.create_string_buffer(4096), 4096)
""",
    ),
    Attack(
        "kernel module",
        ADMIN,
        """
try:
    call("finit_module", os.open("/work/attack.py", os.O_RDONLY), b"", 0)
except OSError as error:
    if error.errno != errno.ENOEXEC:  # it was read, and is no module
        raise
""",
        absent="ENOSYS",
    ),
    Attack(
        "personality",
        SECCOMP,
        """
ADDR_NO_RANDOMIZE = 0x0040000
call("personality", ADDR_NO_RANDOMIZE)
""",
    ),
    Attack(
        "terminal input",
        SECCOMP,
        """
import fcntl, pty, termios
_, terminal = pty.openpty()
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
fcntl.ioctl(terminal, termios.TIOCSTI, b"x")
""",
        absent="EIO",
    ),
    Attack(
        "trace oneself",
        SECCOMP,
        """
TRACEME = 0
call("ptrace", TRACEME, 0, 0, 0)
""",
    ),
    Attack(
        "trace PID 1",
        TRACE,
        """
SEIZE = 0x4206
call("ptrace", SEIZE, 1, 0, 0)
""",
    ),
    Attack(
        "read PID 1's memory",
        TRACE,
        """
import ctypes, struct
try:
    start = int(open("/proc/1/maps").read().split("-")[0], 16)
except PermissionError:
    start = 2**20
buffer = ctypes.create_string_buffer(4)
mine = struct.pack("QQ", ctypes.addressof(buffer), 4)
call("process_vm_readv", 1, mine, 1, struct.pack("QQ", start, 4), 1, 0)
assert buffer.raw == b"\\x7fELF", buffer.raw
""",
    ),
    Attack(
        "take PID 1's stream",
        TRACE,
        'call("pidfd_getfd", call("pidfd_open", 1, 0), 1, 0)',
    ),
]

if platform.machine() == "x86_64":
    ATTACKS.append(
        Attack(
            "32-bit call",
            SECCOMP,
            """
import ctypes, mmap
# push rbx; mov eax, getpid; int 0x80; pop rbx; ret
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("53 b8 14 00 00 00 cd 80 5b c3"))
start = ctypes.addressof(ctypes.c_char.from_buffer(code))
assert ctypes.CFUNCTYPE(ctypes.c_int)(start)() == os.getpid()
""",
            refused="exit 159: ",
            absent="exit 139: ",
        )
    )


# Runs every program in a process of its own; what one does is over with it.
BATCH = """
import json
outcomes = {}
for name, code in json.load(open("attacks.json")).items():
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        try:
            exec(code)
        except BaseException as error:
            give_up(type(error), error, None)
            sys.stdout.flush()
        os._exit(1)
    os.close(writing)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = os.read(reading, 10000).decode().split()
    outcomes[name] = said[-1] if said else f"exit {128 - status}: "
print(json.dumps(outcomes))
"""


@pytest.fixture
def attempt_all(program):
    async def attempt_all(sandbox, attacks):
        codes = {attack.name: f"{attack.code}\nthrough()" for attack in attacks}
        result = await sandbox.run(
            **program(BATCH, {"attacks.json": json.dumps(codes)})
        )
        return json.loads(result.stdout)

    return attempt_all


async def test_calls_are_refused(attempt_all, sandbox):
    outcomes = await attempt_all(sandbox, ATTACKS)
    assert outcomes == {attack.name: attack.refused for attack in ATTACKS}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_call_gets_through_once_its_limits_are_lifted(attack, attempt, lifted):
    outcome = await attempt(lifted(*attack.lifts), f"{attack.code}\nthrough()")
    assert outcome in {"through", attack.absent}


@pytest.mark.parametrize("left", sorted({*ADMIN, *TRACE}))
async def test_each_of_several_limits_suffices(left, attempt_all, lifted):
    """The limit named `left` alone is not lifted."""
    for lifts in (ADMIN, TRACE):
        if left in lifts:
            attacks = [attack for attack in ATTACKS if attack.lifts == lifts]
            others = tuple(name for name in lifts if name != left)
            outcomes = await attempt_all(lifted(*others), attacks)
            for attack in attacks:
                refused = {attack.refused, attack.absent} - {"through"}
                assert outcomes[attack.name] in refused, attack.name
