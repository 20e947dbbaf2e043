"""What Docker is told about a sandbox's container: every limit, in one place."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from agentfarm.containers import labels
from agentfarm.tools.sandbox._exchange import (
    ENVIRONMENT,
    SUPERVISOR,
    SUPERVISOR_COMMAND,
)
from agentfarm.tools.sandbox._seccomp import docker_profile

if TYPE_CHECKING:
    from agentfarm.tools.sandbox._contract import Limits

UID = 65534
IPV6_LOOPBACK = {"net.ipv6.conf.lo.disable_ipv6": "0"}


def container_options(
    image: str,
    limits: Limits,
    *,
    lifetime_s: float,
    runtime: str | None = None,
    ipv6_loopback: bool = False,
) -> dict[str, Any]:
    """The body of the engine's request to create a container.

    Args:
        image: Any image with `python3` 3.9 or later.
        limits: What the run may use.
        lifetime_s: After so many seconds anybody may remove it.
        runtime: OCI runtime, e.g. ``runsc``; the engine's default if None.
        ipv6_loopback: Give the loopback interface the address `::1`, as
            ``localhost`` promises; needs an engine whose kernel has IPv6.

    Returns:
        The JSON body of ``POST /containers/create``, version 1.41 and later.
    """
    return {
        "Image": image,
        "Entrypoint": [],
        "Cmd": [*SUPERVISOR_COMMAND, SUPERVISOR.read_text()],
        "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
        "User": f"{UID}:{UID}",
        "WorkingDir": "/work",
        "Hostname": "sandbox",
        "Labels": labels("sandbox", lifetime_s=lifetime_s),
        "OpenStdin": True,
        "StdinOnce": True,  # the end of the stream is the end of the container
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_host_config(limits),
            **({"Runtime": runtime} if runtime else {}),
            **({"Sysctls": IPV6_LOOPBACK} if ipv6_loopback else {}),
        },
    }


def _host_config(limits: Limits) -> dict[str, Any]:
    return {
        "AutoRemove": True,
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={docker_profile()}"],
        "IpcMode": "private",  # "none" would break multiprocessing
        "PidsLimit": limits.pids,
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # both together: no swap on top
        "NanoCpus": int(limits.cpus * 10**9),
        "ShmSize": limits.shm_bytes,
        "Tmpfs": {
            "/work": _tmpfs(limits.work_bytes, limits.work_inodes, "0700"),
            "/tmp": _tmpfs(limits.tmp_bytes, limits.tmp_inodes, "1777"),  # noqa: S108
        },
        "Ulimits": [
            _ulimit("nofile", limits.open_files),
            _ulimit("fsize", limits.file_size_bytes),
            _ulimit("core", 0),
        ],
        # Output goes through the attached stream; nothing of it reaches a disk.
        "LogConfig": {"Type": "none"},
    }


def _tmpfs(size_bytes: int, inodes: int, mode: str) -> str:
    return (
        f"size={size_bytes},nr_inodes={inodes},mode={mode},uid={UID},gid={UID},"
        "exec,nosuid,nodev"
    )


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}


def container_name() -> str:
    """A name that nobody guesses and everybody recognises."""
    return f"agentfarm-sandbox-{secrets.token_hex(8)}"
