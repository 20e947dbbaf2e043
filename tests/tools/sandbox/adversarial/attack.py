"""What the attack programs use; it is laid beside them into the sandbox.

A program prints ``through`` once it has what it wanted. A call that fails ends it with
the name of its errno, another exception with that of its class.
"""

import ctypes
import errno
import os
import platform
import sys

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000

# asm/unistd_64.h, asm-generic/unistd.h
NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "syslog": (103, 116),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(name, *arguments):
    """Make a system call; past libc, which may have other ideas."""
    number = NUMBERS[name][platform.machine() != "x86_64"]
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *longs)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result


def through():
    """Say that the attack has what it wanted, and end."""
    print("through", flush=True)
    os._exit(0)


def give_up(kind, error, trace):
    """Name what went wrong in one word."""
    if isinstance(error, OSError) and error.errno is not None:
        sys.stdout.write(f"{errno.errorcode.get(error.errno, error.errno)}\n")
    else:
        sys.stdout.write(f"{kind.__name__}\n")
    sys.__excepthook__(kind, error, trace)


sys.excepthook = give_up
