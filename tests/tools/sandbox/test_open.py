"""Which sandbox is taken, and that there is never none in silence."""

import shutil

import pytest

from agentfarm.config import load_settings
from agentfarm.errors import ConfigError, SandboxUnavailable
from agentfarm.tools.sandbox import BubblewrapSandbox, DockerSandbox, open_sandbox


@pytest.fixture
def no_engine(tmp_path):
    return load_settings(docker_host=f"unix://{tmp_path}/no-engine.sock")


@pytest.mark.docker
async def test_docker_is_preferred_and_gets_the_settings(
    engine, sandbox_image, monkeypatch
):
    monkeypatch.setenv("AGENTFARM_SANDBOX__POOL", "0")
    monkeypatch.setenv("AGENTFARM_SANDBOX__TIMEOUT_S", "7")
    monkeypatch.setenv("AGENTFARM_SANDBOX__LIMITS__MEMORY_BYTES", "96MiB")
    monkeypatch.setenv("AGENTFARM_SANDBOX__LIMITS__CPUS", "0.5")
    async with await open_sandbox() as sandbox:
        assert isinstance(sandbox, DockerSandbox)
        assert sandbox.timeout_s == 7
        assert sandbox.limits.memory_bytes == 96 * 2**20
        assert sandbox.limits.cpus == 0.5
        assert sandbox.limits.pids == 128
        result = await sandbox.run(python="x = bytearray(2**30)")
        assert result.oom_killed


@pytest.mark.bubblewrap
async def test_without_docker_bubblewrap_is_taken(no_engine, require):
    if shutil.which("bwrap") is None:
        require("bubblewrap", "apt-get install bubblewrap")
    async with await open_sandbox(settings=no_engine) as sandbox:
        assert isinstance(sandbox, BubblewrapSandbox)
        assert (await sandbox.run(python="print(6 * 7)")).stdout == "42\n"


async def test_without_either_the_error_names_both_and_what_to_install(
    no_engine, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable) as caught:
        await open_sandbox(settings=no_engine)
    assert "docker: " in caught.value.message
    assert "bubblewrap: " in caught.value.message
    assert "docker.io" in caught.value.remedy
    assert "install bubblewrap" in caught.value.remedy


async def test_a_backend_that_was_asked_for_is_not_replaced_by_another(no_engine):
    with pytest.raises(SandboxUnavailable, match="no-engine"):
        await open_sandbox("docker", settings=no_engine)


@pytest.mark.parametrize("setting", ["IMAGE", "RUNTIME"])
async def test_a_setting_of_docker_alone_rules_bubblewrap_out(
    setting, monkeypatch, tmp_path
):
    monkeypatch.setenv(f"AGENTFARM_SANDBOX__{setting}", "mine")
    monkeypatch.setenv("AGENTFARM_DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    with pytest.raises(SandboxUnavailable, match="no-engine"):
        await open_sandbox()


def test_settings_are_checked_when_they_are_read(monkeypatch):
    monkeypatch.setenv("AGENTFARM_SANDBOX__LIMITS__MEMORY_BYTES", "much")
    with pytest.raises(ConfigError, match="memory_bytes"):
        load_settings()


def test_the_engine_is_where_docker_itself_would_look(monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert load_settings().docker_host is None
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert load_settings().docker_host == "tcp://127.0.0.1:1"
    monkeypatch.setenv("AGENTFARM_DOCKER_HOST", "unix:///x")
    assert load_settings().docker_host == "unix:///x"
