"""What an engine says about itself, in our words."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# What /info calls the limits that an engine may be unable to hold.
_LIMITS = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "PidsLimit": "pids",
    "CpuCfsQuota": "cpus",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineInfo:
    """An engine and what it can do.

    Attributes:
        url: Its address, without credentials.
        product: ``Docker Engine``, or the name that another product gives itself.
        version: Of the engine, e.g. ``20.10.24+dfsg1``.
        api_version: That it and we speak.
        runc_version: With a distribution's revision where one is told; None where
            the engine names no runc.
        cgroup_version: ``1`` or ``2``; `""` where an old engine does not say.
        rootless: Whether it runs without root's rights.
        runtimes: Names for ``docker run --runtime``, sorted.
        default_runtime: The one that is used where none is named.
        security_options: As the engine lists them, e.g. ``name=rootless``.
        authorization_plugins: That filter its requests.
        unsupported_limits: Of ``memory``, ``swap``, ``pids`` and ``cpus``, those
            that it cannot hold on this machine.
        architecture: Of the machine, e.g. ``x86_64``.
        cpus: Processors.
        memory_bytes: Of the machine.
        socket_path: The Unix socket; None where it is reached otherwise.
        socket_mode: Permission bits of the socket; None where it has none to see.
        socket_open_to_all: Whether everyone on this machine may use the socket.
    """

    url: str
    product: str
    version: str
    api_version: str
    runc_version: str | None = None
    cgroup_version: str = ""
    rootless: bool = False
    runtimes: tuple[str, ...] = ()
    default_runtime: str = ""
    security_options: tuple[str, ...] = ()
    authorization_plugins: tuple[str, ...] = ()
    unsupported_limits: tuple[str, ...] = ()
    architecture: str = ""
    cpus: int = 0
    memory_bytes: int = 0
    socket_path: str | None = None
    socket_mode: int | None = None
    socket_open_to_all: bool = False


def read_info(
    url: str,
    socket_path: str | None,
    info: Mapping[str, Any],
    version: Mapping[str, Any],
) -> EngineInfo:
    """Gather what the engine's ``/info`` and ``/version`` say."""
    components = {item["Name"]: item for item in version.get("Components") or ()}
    options = tuple(info.get("SecurityOptions") or ())
    mode, open_to_all = _permissions(socket_path)
    return EngineInfo(
        url=url,
        product=_product(components),
        version=str(version.get("Version", "")),
        api_version=str(version.get("ApiVersion", "")),
        runc_version=_full_version(components.get("runc")),
        cgroup_version=str(info.get("CgroupVersion") or ""),
        rootless="name=rootless" in options,
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        default_runtime=str(info.get("DefaultRuntime") or ""),
        security_options=options,
        authorization_plugins=tuple(
            (info.get("Plugins") or {}).get("Authorization") or ()
        ),
        unsupported_limits=tuple(
            name for key, name in _LIMITS.items() if info.get(key) is False
        ),
        architecture=str(info.get("Architecture") or ""),
        cpus=int(info.get("NCPU") or 0),
        memory_bytes=int(info.get("MemTotal") or 0),
        socket_path=socket_path,
        socket_mode=mode,
        socket_open_to_all=open_to_all,
    )


def _product(components: Mapping[str, Any]) -> str:
    if "Engine" in components or not components:
        return "Docker Engine"
    return str(next(iter(components)))


def _full_version(component: Mapping[str, Any] | None) -> str | None:
    """A component's version, and a distribution's revision of it.

    Debian puts its package version, e.g. ``1.1.5+ds1-1+deb12u1``, where others put
    a commit.
    """
    if component is None:
        return None
    version = str(component.get("Version", ""))
    built_from = str((component.get("Details") or {}).get("GitCommit", ""))
    return built_from if version and built_from.startswith(version) else version


def _permissions(socket_path: str | None) -> tuple[int | None, bool]:
    """The mode of a socket, and whether everyone may write to it and reach it."""
    if socket_path is None:
        return None, False
    path = Path(socket_path)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        reachable = all(
            folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents
        )
    except OSError:
        return None, False
    return mode, reachable and bool(mode & stat.S_IWOTH)
