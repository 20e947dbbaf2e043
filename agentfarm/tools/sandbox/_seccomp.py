"""The policy of `_syscalls.py` as a Docker profile and as a BPF program.

Both say the same: a call that no group names fails with EPERM, one newer than every
name in the policy with ENOSYS, so that a newer libc falls back (runc puts that in
front of a profile by itself), and a call by the rules of another architecture (32
bit, x32) never gets as far as the list.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox._syscalls import ENOSYS, POLICY, Compare, Group

if TYPE_CHECKING:
    from collections.abc import Iterator

# Machine as uname(2) calls it: Docker's name, libseccomp's name and token (AUDIT_ARCH_*).
# The policy counts clone's arguments as these two do; s390 swaps the first two.
ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64", 0xC000_003E),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64", 0xC000_00B7),
}

# seccomp.h of libseccomp.
SCMP_ACT_ALLOW = 0x7FFF_0000
SCMP_ACT_ERRNO = 0x0005_0000
SCMP_CMP_MASKED_EQ = 7
EPERM = 1


def docker_profile() -> str:
    """The policy as JSON, the value of the engine's security option ``seccomp=``.

    It needs the option ``no-new-privileges`` beside it: without that, the runtime
    still has to drop its privileges when the filter holds already, and cannot start
    the container. The engine leaves out names that its libseccomp does not know. On
    an architecture that the policy is not written for nothing is allowed.
    """
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            # runc answers ENOSYS to newer calls only for an architecture listed here.
            "archMap": [
                {"architecture": name, "subArchitectures": []}
                for _, name, _ in ARCHITECTURES.values()
            ],
            "syscalls": [
                _docker_rule(group, conditions)
                for group in POLICY
                for conditions in group.when
            ],
        }
    )


def _docker_rule(group: Group, conditions: tuple[Compare, ...]) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "names": list(group.names),
        "action": "SCMP_ACT_ERRNO" if group.error else "SCMP_ACT_ALLOW",
        "args": [
            {
                "index": argument,
                "op": "SCMP_CMP_MASKED_EQ",
                "value": mask,
                "valueTwo": value,
            }
            for argument, mask, value in conditions
        ],
        "includes": {"arches": [name for name, _, _ in ARCHITECTURES.values()]},
    }
    if group.error:
        rule["errnoRet"] = group.error
    return rule


def bpf(machine: str | None = None) -> bytes:
    """The policy as a seccomp(2) filter, for ``bwrap --seccomp FD``.

    Args:
        machine: ``x86_64`` or ``aarch64``; this one's if None.

    Raises:
        SandboxUnavailable: libseccomp is not installed or refuses the policy, or
            the policy is not written for this architecture.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise SandboxUnavailable(
            f"The seccomp policy is not written for the architecture {machine}.",
            remedy=f"Use one of {', '.join(ARCHITECTURES)}.",
        )
    token = ARCHITECTURES[machine][2]
    library = _libseccomp()
    with _filter(library, token) as context:
        newest = max(_add(library, context, token, group) for group in POLICY)
        return _newer_is_unknown(token, newest) + _export(library, context)


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def _libseccomp() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise SandboxUnavailable(
            f"The system call filter of the sandbox needs libseccomp: {error}.",
            remedy="apt-get install libseccomp2",
        ) from error
    context = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_init.restype = context
    library.seccomp_release.argtypes = [context]
    library.seccomp_release.restype = None
    library.seccomp_arch_native.argtypes = []
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [context, ctypes.c_uint32]
    library.seccomp_arch_remove.argtypes = [context, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_name_arch.argtypes = [
        ctypes.c_uint32,
        ctypes.c_char_p,
    ]
    library.seccomp_rule_add_array.argtypes = [
        context,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [context, ctypes.c_int]
    return library


@contextmanager
def _filter(library: ctypes.CDLL, token: int) -> Iterator[int]:
    """An empty filter for one architecture that refuses everything."""
    context = library.seccomp_init(SCMP_ACT_ERRNO | EPERM)
    if not context:
        raise SandboxUnavailable("libseccomp could not start a filter.")
    try:
        native = library.seccomp_arch_native()
        if native != token:
            _check(library.seccomp_arch_add(context, token), "the architecture")
            _check(library.seccomp_arch_remove(context, native), "the architecture")
        yield context
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, token: int, group: Group) -> int:
    """Add the rules of a group; gives the highest call number among them."""
    action = SCMP_ACT_ERRNO | group.error if group.error else SCMP_ACT_ALLOW
    newest = 0
    for name in group.names:
        number = library.seccomp_syscall_resolve_name_arch(token, name.encode())
        if number < 0:
            continue  # not a call of this architecture, or newer than the library
        newest = max(newest, number)
        # A rule takes the number of the machine it is made on.
        local = library.seccomp_syscall_resolve_name(name.encode())
        for conditions in group.when:
            comparisons = (_Comparison * len(conditions))(
                *(
                    _Comparison(argument, SCMP_CMP_MASKED_EQ, mask, value)
                    for argument, mask, value in conditions
                )
            )
            status = library.seccomp_rule_add_array(
                context, action, local, len(conditions), comparisons
            )
            _check(status, name)
    return newest


def _check(status: int, subject: str) -> None:
    if status < 0:
        raise SandboxUnavailable(
            f"libseccomp refused {subject}: {os.strerror(-status)}.",
            remedy="Install libseccomp 2.5 or later.",
        )


def _export(library: ctypes.CDLL, context: int) -> bytes:
    """The filter as an array of `struct sock_filter`."""
    target = os.memfd_create("seccomp")
    try:
        _check(library.seccomp_export_bpf(context, target), "to write the filter")
        return os.pread(target, os.fstat(target).st_size, 0)
    finally:
        os.close(target)


def _newer_is_unknown(token: int, newest: int) -> bytes:
    """Instructions ahead of the filter: a call above `newest` fails with ENOSYS.

    libseccomp compares arguments with values, but never the number of the call.
    """
    load, jump_if_equal, jump_if_greater, give = 0x20, 0x15, 0x25, 0x06
    number_at, architecture_at = 0, 4  # in `struct seccomp_data`
    program = (
        (load, 0, 0, architecture_at),
        (jump_if_equal, 0, 3, token),
        (load, 0, 0, number_at),
        (jump_if_greater, 0, 1, newest),
        (give, 0, 0, SCMP_ACT_ERRNO | ENOSYS),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
