"""The policy, weighed instruction by instruction, and then by the kernel itself."""

import ctypes
import errno
import json
import operator
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agentfarm.containers import labels
from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox import _seccomp
from agentfarm.tools.sandbox._syscalls import Group

TOKENS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, ARM = 0x40000003, 0x40000028
X32 = 0x40000000
ALLOWED = 0
HIGH = 1 << 32  # above the 32 bits that the kernel looks at in an int
NEW = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
CLONE_FS = 0x200  # makes the kernel itself say EINVAL to a new user or mount namespace
AT_FDCWD = -100
PROBE = Path(__file__).with_name("seccomp_probe.py").read_text()
WORKLOAD = Path(__file__).with_name("seccomp_workload.py").read_text()
BAD = 1  # an address where nothing is mapped

# Number on x86_64 and on aarch64, then arguments with which the call does nothing to
# the machine even where it is permitted.
REFUSED = {
    "ptrace": (101, 117, 0),
    "process_vm_readv": (310, 270, 0, BAD, 1, BAD, 1, 0),
    "process_vm_writev": (311, 271, 0, BAD, 1, BAD, 1, 0),
    "process_madvise": (440, 440, -1, BAD, 0, 0, 0),
    "process_mrelease": (448, 448, -1, 0),
    "pidfd_getfd": (438, 438, -1, 0, 0),
    "kcmp": (312, 272, 0, 0, 0, 0, 0),
    "unshare": (272, 97, NEW["uts"]),
    "setns": (308, 268, -1, 0),
    "clone: user namespace": (56, 220, NEW["user"] | CLONE_FS),
    "clone: mount namespace": (56, 220, NEW["mount"] | CLONE_FS),
    "chroot": (161, 51, BAD),
    "pivot_root": (155, 41, BAD, BAD),
    "mount": (165, 40, BAD, BAD, BAD, 0, BAD),
    "umount2": (166, 39, BAD, 0),
    "fsopen": (430, 430, BAD, 0),
    "fsconfig": (431, 431, -1, 0, BAD, BAD, 0),
    "fsmount": (432, 432, -1, 0, 0),
    "fspick": (433, 433, -1, BAD, 0),
    "move_mount": (429, 429, -1, BAD, -1, BAD, 0),
    "open_tree": (428, 428, -1, BAD, 0),
    "mount_setattr": (442, 442, -1, BAD, 0, BAD, 0),
    "quotactl": (179, 60, -1, BAD, 0, BAD),
    "quotactl_fd": (443, 443, -1, 0, 0, BAD),
    "name_to_handle_at": (303, 264, -1, BAD, BAD, BAD, 0),
    "open_by_handle_at": (304, 265, -1, BAD, 0),
    "fanotify_init": (300, 262, -1, 0),
    "fanotify_mark": (301, 263, -1, 0, 0, -1, BAD),
    "io_uring_setup": (425, 425, 1, BAD),
    "io_uring_enter": (426, 426, -1, 0, 0, 0, 0, 0),
    "io_uring_register": (427, 427, -1, 0, 0, 0),
    "io_setup": (206, 0, 1, BAD),
    "bpf": (321, 280, -1, BAD, 0),
    "perf_event_open": (298, 241, BAD, 0, -1, -1, 0),
    "userfaultfd": (323, 282, -1),
    "vmsplice": (278, 75, -1, BAD, 1, 0),
    "add_key": (248, 217, BAD, BAD, BAD, 1, 0),
    "request_key": (249, 218, BAD, BAD, BAD, 0),
    "keyctl": (250, 219, -1, 0, 0, 0, 0),
    "memfd_secret": (447, 447, -1),
    "modify_ldt": (154, None, -1, BAD, 0),
    "mbind": (237, 235, 1, 1, 99, BAD, 1, 0),
    "set_mempolicy": (238, 237, 99, BAD, 1),
    "migrate_pages": (256, 238, -1, 1, BAD, BAD),
    "move_pages": (279, 239, -1, 1, BAD, BAD, BAD, 0),
    "remap_file_pages": (216, 234, 1, 0, 0, 0, 0),
    "settimeofday": (164, 170, BAD, BAD),
    "clock_settime": (227, 112, 0, BAD),
    "adjtimex": (159, 171, BAD),
    "clock_adjtime": (305, 266, 0, BAD),
    "init_module": (175, 105, BAD, 0, BAD),
    "finit_module": (313, 273, -1, BAD, 0),
    "delete_module": (176, 106, BAD, 0),
    "kexec_load": (246, 104, 0, 0xFFFF, BAD, 0),
    "kexec_file_load": (320, 294, -1, -1, 0, BAD, 0),
    "reboot": (169, 142, 0, 0, 0, 0),
    "swapon": (167, 224, BAD, 0),
    "swapoff": (168, 225, BAD),
    "acct": (163, 89, BAD),
    "syslog": (103, 116, 99, 0, 0),
    "iopl": (172, None, 9),
    "ioperm": (173, None, -1, 1, 1),
    "sethostname": (170, 161, BAD, 1),
    "setdomainname": (171, 162, BAD, 1),
    "vhangup": (153, 58),
    "syncfs": (306, 267, -1),
    "socket: vsock": (41, 198, 40, 1, 0),
    "socket: vsock, high bits set": (41, 198, HIGH | 40, 1, 0),
    "socket: crypto": (41, 198, 38, 5, 0),
    "socket: netlink": (41, 198, 16, 3, 0),
    "socket: packet": (41, 198, 17, 3, 0),
    "socket: bluetooth": (41, 198, 31, 3, 0),
    "socket: xdp": (41, 198, 44, 3, 0),
    "socket: raw": (41, 198, 2, 3, 1),
    "socket: sctp": (41, 198, 2, 1, 132),
    "socketpair: tipc": (53, 199, 30, 1, 0, BAD),
    "sendto: out of band": (44, 206, -1, BAD, 1, 1, 0, 0),
    "personality: no ASLR": (135, 92, 0x40000),
    "ioctl: TIOCSTI": (16, 29, -1, 0x5412, BAD),
    "ioctl: TIOCSTI, high bits set": (16, 29, -1, HIGH | 0x5412, BAD),
    "ioctl: TIOCLINUX": (16, 29, -1, 0x541C, BAD),
    "ioctl: TIOCSETD": (16, 29, -1, 0x5423, BAD),
    "mknodat: character device": (259, 33, AT_FDCWD, BAD, 0o20666, 0x103),
    "mknodat: block device": (259, 33, AT_FDCWD, BAD, 0o60666, 0x103),
}

# With these the kernel has no reason of its own to refuse a call named above.
CAPABILITIES = (
    *("SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT", "SYS_MODULE", "SYS_TIME", "SYS_BOOT"),
    *("SYS_PACCT", "SYS_RAWIO", "SYS_NICE", "SYS_TTY_CONFIG", "SYSLOG", "MKNOD"),
    *("DAC_READ_SEARCH", "NET_ADMIN", "NET_RAW"),
)
# Lockdown and sysctls may refuse these even to root.
CLOSED_BY_SOME_KERNELS = {
    *("bpf", "perf_event_open", "userfaultfd", "iopl", "ioperm"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module"),
}

PERMITTED = {
    "read": (0, 63),
    "futex_waitv": (449, 449),
    "clone: a process": (56, 220, signal.SIGCHLD),
    "clone: a thread": (56, 220, 0x3D0F00),
    "socket: local": (41, 198, 1, 1, 0),
    "socket: TCP": (41, 198, 2, 1 | 0x80800, 6),
    "socket: TCP, protocol 0": (41, 198, 10, 1, 0),
    "socket: UDP": (41, 198, 10, 2 | 0x80000, 17),
    "sendto": (44, 206, 3, BAD, 1, 0x4000, 0, 0),
    "personality: the usual": (135, 92, 0),
    "personality: asked": (135, 92, 0xFFFFFFFF),
    "personality: asked with -1": (135, 92, -1),
    "ioctl: TCGETS": (16, 29, 0, 0x5401, BAD),
    "ioctl: TIOCGPTN, sign extended": (16, 29, 0, 0x80045430 - HIGH, BAD),
    "mknodat: fifo": (259, 33, AT_FDCWD, BAD, 0o10600, 0),
    "mknodat: file": (259, 33, AT_FDCWD, BAD, 0o600, 0),
}


def decide(program: bytes, token: int, number: int, *arguments: int) -> int | str:
    """What the filter answers: 0, an errno, or "killed"; seccomp(2), bpf of filter.txt."""
    words = [*(each & (1 << 64) - 1 for each in arguments), *[0] * 6][:6]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, token, 0, *words)
    instructions = list(struct.iter_unpack("=HBBI", program))
    tests = {0x15: operator.eq, 0x25: operator.gt, 0x35: operator.ge}
    value = at = 0
    while instructions[at][0] != 0x06:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif code == 0x54:
            value &= operand
        elif code == 0x05:
            at += operand
        else:
            at += if_true if tests[code](value, operand) else if_false
    given = instructions[at][3]
    answers = {0x7FFF: ALLOWED, 0x5: given & 0xFFFF, 0x0: "killed"}
    return answers[given >> 16]


@pytest.fixture(params=TOKENS)
def machine(request, libseccomp):
    return request.param


@pytest.fixture
def libseccomp(require):
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        require("libseccomp", "apt-get install libseccomp2")


@pytest.fixture
def answer(machine):
    """Ask the filter of a machine about one of the calls above."""
    program = _seccomp.bpf(machine)

    def ask(case):
        number = case[list(TOKENS).index(machine)]
        if number is None:
            return None
        return decide(program, TOKENS[machine], number, *case[2:])

    return ask


def test_what_reaches_further_is_refused(answer):
    answers = {name: answer(case) for name, case in REFUSED.items()}
    assert {
        name: got for name, got in answers.items() if got not in {errno.EPERM, None}
    } == {}


def test_what_programs_need_is_allowed(answer):
    answers = {name: answer(case) for name, case in PERMITTED.items()}
    assert {name: got for name, got in answers.items() if got != ALLOWED} == {}


def test_clone_makes_no_namespace_with_any_flags(answer):
    for flag in NEW.values():
        for others in (0, signal.SIGCHLD, 0x3D0F00):
            assert answer((56, 220, flag | others)) == errno.EPERM


def test_sockets_are_local_tcp_or_udp_and_nothing_else(answer):
    found = {
        (family, transport, protocol)
        for family in range(48)
        for transport in range(8)
        for protocol in (0, 1, 2, 6, 17, 33, 58, 132, 136, 255, 262)
        if answer((41, 198, family, transport | 0x80800, protocol)) == ALLOWED
    }
    assert {each for each in found if each[0] != 1} == {
        (family, *rest)
        for family in (2, 10)
        for rest in ((1, 0), (1, 6), (2, 0), (2, 17))
    }
    assert {family for family, _, _ in found} == {1, 2, 10}


def test_clone3_is_unknown_so_that_libc_falls_back_to_clone(answer):
    assert answer((435, 435, BAD, 88)) == errno.ENOSYS


def test_a_call_newer_than_the_policy_is_unknown(answer):
    for number in (480, 1000, 0x3FFFFFFF):
        assert answer((number, number)) == errno.ENOSYS


def test_calls_of_another_architecture_do_not_get_through(machine):
    program = _seccomp.bpf(machine)
    for token in {I386, ARM, *TOKENS.values()} - {TOKENS[machine]}:
        for number in range(500):
            assert decide(program, token, number) == "killed"
    for number in range(600):
        assert decide(program, TOKENS[machine], X32 | number) != ALLOWED


def test_names_that_the_library_does_not_know_are_left_out(monkeypatch, machine):
    expected = _seccomp.bpf(machine)
    odd = Group(("no_such_call_yet",))
    monkeypatch.setattr(_seccomp, "POLICY", (odd, *_seccomp.POLICY))
    assert _seccomp.bpf(machine) == expected


def test_without_the_library_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(SandboxUnavailable, match="apt-get install libseccomp2"):
        _seccomp.bpf()


def test_an_architecture_with_other_calling_rules_gets_no_filter():
    with pytest.raises(SandboxUnavailable, match="s390x"):
        _seccomp.bpf("s390x")


def test_the_profile_allows_nothing_on_other_architectures():
    profile = json.loads(_seccomp.docker_profile())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {tuple(rule["includes"]["arches"]) for rule in profile["syscalls"]} == {
        ("amd64", "arm64")
    }
    assert [each["subArchitectures"] for each in profile["archMap"]] == [[], []]


# From here on the kernel answers.


@pytest.fixture
def calls():
    """The calls above with this machine's numbers, for the probe."""
    column = list(TOKENS).index(os.uname().machine)
    chosen = {
        name: [case[column], *case[2:]]
        for name, case in REFUSED.items()
        if case[column] is not None
    }
    chosen["clone3"] = [435, BAD, 0]
    chosen["newer"] = [1000]
    if column == 0:
        chosen["32-bit getpid"] = "int 0x80"
    return chosen


def not_refused(answers):
    """Of the probe's answers those that the policy does not give."""
    expected = dict.fromkeys(answers, errno.EPERM)
    expected |= {"clone3": errno.ENOSYS, "newer": errno.ENOSYS}
    if "32-bit getpid" in answers:
        expected["32-bit getpid"] = f"signal {signal.SIGSYS.value}"
    return {name: got for name, got in answers.items() if got != expected[name]}


@pytest.fixture
def bubblewrap(require, libseccomp):
    """Run a Python source in bubblewrap, with or without the filter."""
    program = shutil.which("bwrap")
    if program is None:
        require("bubblewrap", "apt-get install bubblewrap")

    def run(source, *arguments, filtered):
        line = [
            *(program, "--unshare-all", "--unshare-user", "--uid", "65534"),
            *("--gid", "65534", "--die-with-parent", "--new-session"),
            *("--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108 - a fresh one
        ]
        pipe, writer = os.pipe()
        with os.fdopen(writer, "wb") as file:
            file.write(_seccomp.bpf())
        if filtered:
            line += ["--seccomp", str(pipe)]
        line += [sys.executable, "-B", "-c", source, *arguments]
        try:
            done = subprocess.run(line, capture_output=True, text=True, pass_fds=[pipe])
        finally:
            os.close(pipe)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_in_bubblewrap_every_call_is_refused(bubblewrap, calls):
    answers = json.loads(bubblewrap(PROBE, json.dumps(calls), filtered=True))
    assert not_refused(answers) == {}


def test_in_bubblewrap_without_the_filter_they_go_through(bubblewrap, calls):
    answers = json.loads(bubblewrap(PROBE, json.dumps(calls), filtered=False))
    for name in ("ptrace", "clone: user namespace", "personality: no ASLR", "clone3"):
        assert name in not_refused(answers)
    assert len(not_refused(answers)) > len(answers) / 2


def test_in_bubblewrap_usual_programs_work(bubblewrap):
    assert bubblewrap(WORKLOAD, "terminal", filtered=True) == "fine\n"


@pytest.fixture
def docker(engine, sandbox_image):
    """Run a Python source in a container, with or without the profile."""

    def run(source, *arguments, filtered, capable=False):
        profile = _seccomp.docker_profile() if filtered else "unconfined"
        container = engine.api.create_container(
            sandbox_image,
            ["python3", "-B", "-c", source, *arguments],
            entrypoint=[],
            user="0:0" if capable else "65534:65534",
            labels=labels("test", lifetime_s=300),
            host_config=engine.api.create_host_config(
                network_mode="none",
                read_only=True,
                tmpfs={"/tmp": "size=64m"},  # noqa: S108 - a fresh one
                cap_drop=["ALL"],
                cap_add=CAPABILITIES if capable else [],
                security_opt=["no-new-privileges", f"seccomp={profile}"],
            ),
        )
        try:
            engine.api.start(container)
            status = engine.api.wait(container)["StatusCode"]
            stdout = engine.api.logs(container, stderr=False).decode()
            assert status == 0, engine.api.logs(container).decode()
        finally:
            engine.api.remove_container(container, force=True)
        return stdout

    return run


@pytest.mark.docker
def test_in_docker_every_call_is_refused(docker, calls):
    answers = json.loads(docker(PROBE, json.dumps(calls), filtered=True))
    assert not_refused(answers) == {}


@pytest.mark.docker
def test_in_docker_it_is_the_profile_that_refuses(docker, calls):
    calls_given = json.dumps(calls)
    held = json.loads(docker(PROBE, calls_given, filtered=True, capable=True))
    free = json.loads(docker(PROBE, calls_given, filtered=False, capable=True))
    assert not_refused(held) == {}
    assert set(free) - set(not_refused(free)) <= CLOSED_BY_SOME_KERNELS | {"newer"}


@pytest.mark.docker
def test_in_docker_usual_programs_work(docker):
    assert docker(WORKLOAD, filtered=True) == "fine\n"
