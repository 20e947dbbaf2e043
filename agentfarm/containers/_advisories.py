"""Known ways out of a container, by the releases that closed them.

Sources: the CVE records and the release notes of opencontainers/runc (1.0.0-rc95,
1.1.12, 1.2.8, 1.3.3, 1.4.0-rc.3) and moby/moby (24.0.9, 25.0.2, 26.1.5, 27.1.1,
29.3.1, 29.5.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentfarm.containers._info import EngineInfo

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~.]?(alpha|beta|rc)[-.]?(\d+))?")
_STAGES = {"alpha": 0, "beta": 1, "rc": 2}
_RELEASED = 3

Version = tuple[int, int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Weakness:
    """Why containers hold less well on this engine than they could.

    Attributes:
        part: What is weak, e.g. ``runc``.
        detail: What was found and what it means.
        remedy: What to do about it.
    """

    part: str
    detail: str
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Advisory:
    """One repair, by its first release on each branch that got it."""

    ids: str
    what: str
    fixed: tuple[str, ...]
    since: str = "0.0"
    needs_authorization_plugin: bool = False


_RUNC = (
    _Advisory(
        ids="CVE-2021-30465",
        what="containers that swap a mount's target for a link reach host folders",
        fixed=("1.0.0-rc95",),
    ),
    _Advisory(
        ids="CVE-2024-21626",
        what="an open file of the host leaks into containers",
        since="1.0.0-rc93",
        fixed=("1.1.12",),
    ),
    _Advisory(
        ids="CVE-2025-31133, CVE-2025-52565, CVE-2025-52881",
        what="containers can write to the host through /proc",
        fixed=("1.2.8", "1.3.3", "1.4.0-rc.3"),
    ),
)

_ENGINE = (
    _Advisory(
        ids="CVE-2024-23651, CVE-2024-23652, CVE-2024-23653",
        what="building a hostile Dockerfile reaches files of the host",
        fixed=("25.0.2",),
    ),
    _Advisory(
        ids="CVE-2026-41567, CVE-2026-41568, CVE-2026-42306",
        what="copying files into a hostile container gives it files or root on the "
        "host; AgentFarm's sandbox does not copy that way",
        fixed=("29.5.1",),
    ),
    _Advisory(
        ids="CVE-2024-41110",
        what="a request without its body passes the authorization plugin",
        since="19.03",
        fixed=("23.0.15", "25.0.6", "26.1.5", "27.1.1"),
        needs_authorization_plugin=True,
    ),
    _Advisory(
        ids="CVE-2026-34040",
        what="a request with a very large body passes the authorization plugin",
        fixed=("29.3.1",),
        needs_authorization_plugin=True,
    ),
)


def weaknesses(info: EngineInfo) -> list[Weakness]:
    """Name what makes this engine easier to break out of, or open to others."""
    found = []
    if info.runc_version is not None:
        found += _outdated("runc", info.runc_version, _RUNC, info)
    if info.product == "Docker Engine":
        found += _outdated("Docker Engine", info.version, _ENGINE, info)
    return [*found, *_access(info), *_missing(info)]


def mentions(info: EngineInfo) -> list[str]:
    """Name what makes this engine harder to break out of, one phrase each."""
    said = []
    if info.rootless:
        said.append("rootless: the engine runs without root's rights")
    if any(option.startswith("name=userns") for option in info.security_options):
        said.append("user namespaces: root in a container is nobody on the host")
    for name in info.runtimes:
        if "runsc" in name or "gvisor" in name.lower():
            said.append(f"gVisor is there: runtime {name}, a kernel of its own")
        elif "kata" in name:
            said.append(f"Kata Containers is there: runtime {name}, a small VM")
    return said


def _outdated(
    part: str, version: str, advisories: tuple[_Advisory, ...], info: EngineInfo
) -> list[Weakness]:
    found = _parse(version)
    if found is None:
        return [
            Weakness(
                part=part,
                detail=f"{part} calls itself {version!r}, which is no release, so it "
                "cannot be told which known escapes it is open to.",
                remedy=f"Use a release of {part}.",
            )
        ]
    return [
        _weakness(part, version, advisory)
        for advisory in advisories
        if (info.authorization_plugins or not advisory.needs_authorization_plugin)
        and _is_open(found, advisory)
    ]


def _weakness(part: str, version: str, advisory: _Advisory) -> Weakness:
    fixed = ", ".join(advisory.fixed)
    return Weakness(
        part=part,
        detail=f"{version} is older than the fix of {advisory.ids}: {advisory.what}.",
        remedy=f"Upgrade to {fixed} or later, unless your distribution's "
        f"changelog names {advisory.ids.split(',')[0]}.",
    )


def _is_open(version: Version, advisory: _Advisory) -> bool:
    """Whether a release lacks a repair that came to several branches.

    A branch that is not listed never got it, unless it is newer than all that are.
    """
    if version < _known(advisory.since):
        return False
    fixed = sorted(map(_known, advisory.fixed))
    for first in fixed:
        if version[:2] == first[:2]:
            return version < first
    return version < fixed[-1]


def _parse(text: str) -> Version | None:
    """Read a version so that it compares; None where it is none.

    What a distribution appends, e.g. ``+ds1-1+deb12u1``, does not count.
    """
    match = _VERSION.match(text)
    if match is None:
        return None
    major, minor, patch, stage, number = match.groups()
    return (
        int(major),
        int(minor),
        int(patch or 0),
        _STAGES[stage] if stage else _RELEASED,
        int(number or 0),
    )


def _known(text: str) -> Version:
    version = _parse(text)
    if version is None:
        raise ValueError(f"{text!r} is no version.")
    return version


def _access(info: EngineInfo) -> list[Weakness]:
    if info.socket_open_to_all:
        return [
            Weakness(
                part="Docker socket",
                detail=f"Everyone on this machine may use {info.socket_path} (mode "
                f"{info.socket_mode or 0:04o}), and so become root.",
                remedy=f"chmod o-rwx {info.socket_path}, and SocketMode=0660 in its "
                "systemd unit.",
            )
        ]
    if info.url.startswith(("tcp://", "http://")):
        return [
            Weakness(
                part="Docker socket",
                detail=f"{info.url} asks for no proof of identity: whoever reaches "
                "it is root on the engine's machine.",
                remedy="Use the engine's Unix socket: AGENTFARM_DOCKER_HOST="
                "unix:///var/run/docker.sock.",
            )
        ]
    return []


def _missing(info: EngineInfo) -> list[Weakness]:
    found = []
    if not any(option.startswith("name=seccomp") for option in info.security_options):
        found.append(
            Weakness(
                part="seccomp",
                detail="The engine cannot filter system calls.",
                remedy="Use a kernel and an engine built with seccomp.",
            )
        )
    if info.unsupported_limits:
        limits = ", ".join(info.unsupported_limits)
        found.append(
            Weakness(
                part="Limits",
                detail=f"The engine cannot limit {limits} of a container here.",
                remedy="Use cgroup version 2 and, for a rootless engine, systemd's "
                "delegation of the controllers.",
            )
        )
    return found
