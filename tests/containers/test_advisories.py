"""Old releases are named, repaired ones are not, on every branch."""

import pytest

from agentfarm.containers import EngineInfo, mentions, weaknesses
from agentfarm.containers._advisories import _parse

MOUNT_RACE = "CVE-2021-30465"
LEAKED_FILE = "CVE-2024-21626"
PROC = "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"
BUILD = "CVE-2024-23651, CVE-2024-23652, CVE-2024-23653"
COPY = "CVE-2026-41567, CVE-2026-41568, CVE-2026-42306"
EMPTY_BODY = "CVE-2024-41110"
LARGE_BODY = "CVE-2026-34040"


def engine(**changes) -> EngineInfo:
    sound = {
        "url": "unix:///var/run/docker.sock",
        "product": "Docker Engine",
        "version": "29.9.0",
        "api_version": "1.50",
        "runc_version": "1.5.3",
        "security_options": ("name=seccomp,profile=builtin", "name=cgroupns"),
        "socket_path": "/var/run/docker.sock",
        "socket_mode": 0o660,
    }
    return EngineInfo(**{**sound, **changes})


def named(**changes) -> list[str]:
    details = [item.detail for item in weaknesses(engine(**changes))]
    known = (MOUNT_RACE, LEAKED_FILE, PROC, BUILD, COPY, EMPTY_BODY, LARGE_BODY)
    return [ids for ids in known if any(ids in detail for detail in details)]


def test_a_current_engine_has_no_weakness():
    assert weaknesses(engine()) == []
    assert mentions(engine()) == []


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.0.0-rc92", [MOUNT_RACE, PROC]),  # before the leak came in
        ("1.0.0-rc93", [MOUNT_RACE, LEAKED_FILE, PROC]),
        ("1.0.0~rc93+ds1-5+deb11u5", [MOUNT_RACE, LEAKED_FILE, PROC]),
        ("1.0.0-rc95", [LEAKED_FILE, PROC]),
        ("1.0.3", [LEAKED_FILE, PROC]),
        ("1.1.5+ds1-1+deb12u1", [LEAKED_FILE, PROC]),
        ("1.1.11", [LEAKED_FILE, PROC]),
        ("1.1.12", [PROC]),
        ("1.1.15", [PROC]),  # a branch that never got the repair
        ("1.1.12-0ubuntu2~22.04.1", [PROC]),
        ("1.2.7", [PROC]),
        ("1.2.8", []),
        ("1.2.10", []),
        ("1.3.0-rc.1", [PROC]),
        ("1.3.2", [PROC]),
        ("1.3.3", []),
        ("1.3.3-0ubuntu1~24.04.2", []),
        ("1.4.0-rc.2", [PROC]),
        ("1.4.0~rc.2+ds1-1", [PROC]),
        ("1.4.0-rc.3", []),
        ("v1.4.0", []),
        ("1.5.0-rc.1", []),
        ("2.0.0", []),
    ],
)
def test_runc_by_its_release_branch(version, expected):
    assert named(runc_version=version) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("18.09.1-ce", [BUILD, COPY]),
        ("20.10.24+dfsg1", [BUILD, COPY]),
        ("24.0.9", [BUILD, COPY]),  # said so in its release notes
        ("25.0.1", [BUILD, COPY]),
        ("25.0.2", [COPY]),
        ("28.5.2", [COPY]),
        ("29.5.0", [COPY]),
        ("29.5.1", []),
        ("30.0.0-rc.1", []),
    ],
)
def test_the_engine_by_its_release(version, expected):
    assert named(version=version) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("18.09.1", [LARGE_BODY]),  # the first repair, lost in 19.03
        ("19.03.15", [EMPTY_BODY, LARGE_BODY]),
        ("20.10.24+dfsg1", [EMPTY_BODY, LARGE_BODY]),
        ("23.0.14", [EMPTY_BODY, LARGE_BODY]),
        ("23.0.15", [LARGE_BODY]),
        ("24.0.9", [EMPTY_BODY, LARGE_BODY]),
        ("25.0.6", [LARGE_BODY]),
        ("26.1.4", [EMPTY_BODY, LARGE_BODY]),
        ("26.1.5", [LARGE_BODY]),
        ("27.1.0", [EMPTY_BODY, LARGE_BODY]),
        ("27.1.1", [LARGE_BODY]),
        ("29.3.0", [LARGE_BODY]),
        ("29.3.1", []),
    ],
)
def test_holes_of_authorization_plugins_concern_engines_that_have_one(
    version, expected
):
    plugins = ("policy",)
    found = named(version=version, authorization_plugins=plugins)
    assert [ids for ids in found if ids in (EMPTY_BODY, LARGE_BODY)] == expected
    assert not {EMPTY_BODY, LARGE_BODY} & set(named(version=version))


def test_a_finding_tells_the_full_version_and_of_backports():
    found = weaknesses(engine(runc_version="1.1.5+ds1-1+deb12u1"))
    assert [item.part for item in found] == ["runc", "runc"]
    assert "1.1.5+ds1-1+deb12u1" in found[0].detail
    assert "distribution" in found[0].remedy
    assert "changelog names CVE-2024-21626" in found[0].remedy
    assert "1.2.8, 1.3.3, 1.4.0-rc.3 or later" in found[1].remedy


@pytest.mark.parametrize("version", ["", "dev", "N/A"])
def test_a_version_that_is_none_is_said_to_tell_nothing(version):
    (found,) = weaknesses(engine(version=version))
    assert found.part == "Docker Engine"
    assert repr(version) in found.detail


def test_another_product_is_not_measured_by_dockers_releases():
    assert weaknesses(engine(product="Podman Engine", version="4.3.1")) == []
    assert weaknesses(engine(runc_version=None)) == []


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0.0-rc9", "1.0.0-rc10"),
        ("1.2.9", "1.2.10"),
        ("1.4.0-rc.3", "1.4.0"),
        ("23.0.0-beta.1", "23.0.0-rc.1"),
        ("1.4", "1.4.1"),
        ("29.4.0-ce", "29.5.1"),
    ],
)
def test_versions_compare_as_numbers(older, newer):
    assert _parse(older) < _parse(newer)


def test_a_suffix_of_a_distribution_does_not_count():
    assert _parse("1.1.5+ds1-1+deb12u1") == _parse("v1.1.5")


def test_a_socket_open_to_all_is_named_with_its_mode():
    (found,) = weaknesses(engine(socket_mode=0o666, socket_open_to_all=True))
    assert "/var/run/docker.sock" in found.detail
    assert "0666" in found.detail
    assert "chmod o-rwx /var/run/docker.sock" in found.remedy


def test_an_engine_on_plain_tcp_is_open_to_whoever_reaches_it():
    found = weaknesses(
        engine(url="tcp://127.0.0.1:2375", socket_path=None, socket_mode=None)
    )
    assert ["tcp://127.0.0.1:2375" in item.detail for item in found] == [True]


def test_an_engine_without_seccomp_or_limits_is_named():
    found = weaknesses(
        engine(security_options=(), unsupported_limits=("memory", "pids"))
    )
    assert [item.part for item in found] == ["seccomp", "Limits"]
    assert "memory, pids" in found[1].detail


def test_good_news_is_mentioned():
    said = mentions(
        engine(
            rootless=True,
            runtimes=("io.containerd.runc.v2", "kata-runtime", "runc", "runsc"),
            security_options=("name=seccomp", "name=userns"),
        )
    )
    assert len(said) == 4
    assert "rootless" in said[0]
    assert "user namespaces" in said[1]
    assert "kata-runtime" in said[2]
    assert "runsc" in said[3]
