"""What an engine says is read as it is, from Docker and from what poses as it."""

import socket

import pytest

from agentfarm.containers._info import read_info

DEBIAN = {
    "Version": "20.10.24+dfsg1",
    "ApiVersion": "1.41",
    "Components": [
        {"Name": "Engine", "Version": "20.10.24+dfsg1", "Details": {"GitCommit": "5d"}},
        {
            "Name": "runc",
            "Version": "1.1.5+ds1",
            "Details": {"GitCommit": "1.1.5+ds1-1+deb12u1"},
        },
    ],
}
ROOTLESS = {
    "CgroupVersion": "2",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
    "Runtimes": {"runsc": {}, "runc": {}},
    "DefaultRuntime": "runc",
    "Plugins": {"Authorization": None},
    "MemoryLimit": True,
    "SwapLimit": False,
    "PidsLimit": True,
    "CpuCfsQuota": False,
    "Architecture": "x86_64",
    "NCPU": 4,
    "MemTotal": 8 * 2**30,
}


def test_a_rootless_engine_of_debian():
    info = read_info("unix:///x", None, ROOTLESS, DEBIAN)
    assert (info.product, info.version) == ("Docker Engine", "20.10.24+dfsg1")
    assert info.runc_version == "1.1.5+ds1-1+deb12u1"  # with Debian's revision
    assert info.rootless
    assert info.cgroup_version == "2"
    assert info.runtimes == ("runc", "runsc")
    assert info.unsupported_limits == ("swap", "cpus")
    assert info.authorization_plugins == ()
    assert (info.cpus, info.memory_bytes) == (4, 8 * 2**30)


def test_a_commit_is_no_version():
    version = {
        "Components": [
            {
                "Name": "runc",
                "Version": "1.1.12",
                "Details": {"GitCommit": "v1.1.12-0-g51d5e946"},
            }
        ]
    }
    assert read_info("unix:///x", None, {}, version).runc_version == "1.1.12"


def test_another_product_keeps_its_name():
    version = {"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]}
    info = read_info("unix:///x", None, {}, version)
    assert (info.product, info.runc_version) == ("Podman Engine", None)


def test_an_old_engine_leaves_much_out():
    info = read_info("tcp://x:1", None, {"Runtimes": None}, {"Version": "17.05.0-ce"})
    assert (info.cgroup_version, info.runtimes, info.rootless) == ("", (), False)
    assert info.unsupported_limits == ()
    assert info.socket_mode is None


@pytest.mark.parametrize(
    ("mode", "folder", "is_open"),
    [(0o660, 0o755, False), (0o666, 0o755, True), (0o666, 0o700, False)],
)
def test_a_socket_is_open_to_all_only_where_all_can_reach_it(
    tmp_path, monkeypatch, mode, folder, is_open
):
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(mode)
        changed = {}
        for parent in [*tmp_path.parents]:  # pytest's own folders are closed to all
            if not parent.stat().st_mode & 0o001:
                changed[parent] = parent.stat().st_mode & 0o7777
                parent.chmod(changed[parent] | 0o001)
        tmp_path.chmod(folder)
        try:
            info = read_info("unix:///x", str(path), {}, {})
        finally:
            for parent, before in changed.items():
                parent.chmod(before)
    assert info.socket_mode == mode
    assert info.socket_open_to_all is is_open


def test_a_socket_that_vanished_has_no_mode(tmp_path):
    info = read_info("unix:///x", str(tmp_path / "gone"), {}, {})
    assert (info.socket_mode, info.socket_open_to_all) == (None, False)
