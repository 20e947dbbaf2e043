"""Sharing the embedded server: one child process, many users, no orphans.

Everyone who wants a model file served with the same context, slots and threads
shares one server. A user holds an `EmbeddedLease`, an open connection to the
server's control port; the server ends shortly after the last lease is gone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import socket
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from agentfarm.errors import ConfigError, ProviderError
from agentfarm.llm._embedded_child import (
    ServerInfo,
    ask,
    connect,
    live_process,
    read_info,
    start_server,
    too_slow,
)
from agentfarm.llm._embedded_server import INFO_FILE, LOG_FILE
from agentfarm.llm._gguf import ModelProgress, ensure_model, model_alias
from agentfarm.store._file_lock import file_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentfarm.config import EmbeddedSettings, Settings

_PROTOCOL = 1
_STOP_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedStatus:
    """A running embedded server, for people and scripts.

    Attributes:
        model: The name it offers.
        gguf: The file it serves.
        pid: Its process.
        url: Base URL of its HTTP server.
        uptime_s: Seconds since the model was loaded.
        users: Processes and notebooks that hold it.
        kept: Whether it stays without users, until `agentfarm llm down`.
        memory_bytes: Resident memory; None where it cannot be read.
        context_length: Tokens that one request may take.
        slots: Requests answered at once.
        log_path: What llama.cpp says.
    """

    model: str
    gguf: Path
    pid: int
    url: str
    uptime_s: float
    users: int
    kept: bool
    memory_bytes: int | None
    context_length: int
    slots: int
    log_path: Path


class EmbeddedLease:
    """A hold on a running server; it ends with `release`, or with this process.

    Attributes:
        info: The server.
        lifeline: The connection that holds it; readable once the server ended.
        log_path: The server's log.
        release: Lets go; also called when the lease is forgotten.
    """

    def __init__(self, info: ServerInfo, lifeline: socket.socket, folder: Path) -> None:
        self.info = info
        self.lifeline = lifeline
        self.log_path = folder / LOG_FILE
        self.release = weakref.finalize(self, lifeline.close)

    @property
    def alive(self) -> bool:
        """Whether the server still runs; asks the kernel, in microseconds."""
        if not self.release.alive:
            return False
        try:
            # The server never speaks on a lifeline: what can be read is its end.
            self.lifeline.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def acquire_server(
    settings: EmbeddedSettings,
    *,
    home: Path,
    start_timeout_s: float | None = 300.0,
    progress: Callable[[ModelProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> EmbeddedLease:
    """Hold the server for these settings, starting it where none runs. Blocks.

    Args:
        settings: Model file, context, slots, threads.
        home: Where AgentFarm keeps its state.
        start_timeout_s: Longest time to load the model; None waits for ever.
            Fetching the model file does not count.
        progress: Called with the stages; see `fetch_model`.
        cancelled: Asked often; true gives up.

    Raises:
        ConfigError: llama.cpp is not installed, or there is no model file.
        ProviderError: The server cannot load the model file.
        ProviderTimeout: Loading took too long.
        InterruptedError: `cancelled` said so.
    """
    require_llama_cpp()
    model = ensure_model(settings, home, progress=progress, cancelled=cancelled)
    try:
        folder = _state_dir(settings, model, home)
        if lease := _join(folder):
            return lease
        if progress:
            progress(ModelProgress(stage=f"loading {model_alias(model)}"))
        with file_lock(
            folder / "start.lock", timeout_s=start_timeout_s, cancelled=cancelled
        ):
            # Another process may have started it while this one waited.
            if lease := _join(folder):
                return lease
            config = _child_config(settings, model, folder)
            started = start_server(
                folder, config, timeout_s=start_timeout_s, cancelled=cancelled
            )
            return EmbeddedLease(*started, folder)
    except InterruptedError:
        raise
    except TimeoutError:
        raise too_slow(folder, str(model), start_timeout_s) from None
    except OSError as error:
        raise ConfigError(
            f"The embedded server cannot be started under {home}: {error}.",
            remedy="Set AGENTFARM_HOME to a folder that you own, with free space.",
        ) from error


def require_llama_cpp() -> None:
    """Check that llama.cpp is installed, without loading it.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError(
            "The embedded model needs llama.cpp, which is not installed.",
            remedy="Install it: pip install 'agentfarm[local]'.",
        )


def embedded_up(
    settings: Settings, *, progress: Callable[[ModelProgress], None] | None = None
) -> EmbeddedStatus:
    """Start or find the embedded server and let it stay without users. Blocks.

    Raises:
        AgentFarmError: As `acquire_server`.
    """
    lease = acquire_server(
        settings.embedded,
        home=settings.home,
        start_timeout_s=settings.timeouts.first_token_s,
        progress=progress,
    )
    ask(lease.info, "keep")
    lease.release()
    status = _status(lease.log_path.parent, lease.info, ask(lease.info, "status"))
    if status is None:
        raise ProviderError(
            f"The embedded server for {lease.info.model} ended right after its start.",
            remedy=f"Try again; its log is {lease.log_path}.",
            provider="embedded",
            host="embedded",
            retryable=True,
        )
    return status


def embedded_status(settings: Settings) -> list[EmbeddedStatus]:
    """List the embedded servers that run under `settings.home`. Blocks briefly."""
    found = (
        _status(folder, info, ask(info, "status"))
        for folder, info, _ in _running(settings.home)
    )
    return [status for status in found if status is not None]


def embedded_down(settings: Settings) -> bool:
    """Stop every embedded server under `settings.home`, whoever uses it. Blocks.

    Returns:
        Whether one was running.
    """
    found = False
    for folder, info, process in _running(settings.home):
        found = True
        if ask(info, "stop") is None:
            process.kill()
        _, left = psutil.wait_procs([process], timeout=_STOP_S)
        # A zombie counts as left, yet is gone; a deaf server does not stop itself.
        if left and live_process(info):
            process.kill()
            process.wait(_STOP_S)
        (folder / INFO_FILE).unlink(missing_ok=True)
    return found


def _state_dir(settings: EmbeddedSettings, model: Path, home: Path) -> Path:
    """Make the folder of the server that everyone with these settings shares."""
    stat = model.stat()
    parts = [
        # A home on a network disk serves several machines, each with its own.
        *(_PROTOCOL, platform.node(), os.path.realpath(model)),
        *(stat.st_size, stat.st_mtime_ns),
        *(settings.context_length, settings.slots, settings.threads),
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    folder = home / "embedded" / key
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def _child_config(
    settings: EmbeddedSettings, model: Path, folder: Path
) -> dict[str, Any]:
    return {
        "model": str(model),
        "alias": model_alias(model),
        "context_length": settings.context_length,
        "slots": settings.slots,
        "threads": settings.threads,
        "linger_s": settings.linger_s,
        "state_dir": str(folder),
    }


def _join(folder: Path) -> EmbeddedLease | None:
    """Hold the server that `folder` tells of, if it lives."""
    info = read_info(folder)
    if info is None or live_process(info) is None:
        return None
    try:
        lifeline, _ = connect(info, "hold")
    except OSError:
        return None
    return EmbeddedLease(info, lifeline, folder)


def _running(home: Path) -> Iterator[tuple[Path, ServerInfo, psutil.Process]]:
    for path in sorted(home.glob(f"embedded/*/{INFO_FILE}")):
        info = read_info(path.parent)
        process = info and live_process(info)
        if info and process:
            yield path.parent, info, process


def _status(
    folder: Path, info: ServerInfo, answer: dict[str, Any] | None
) -> EmbeddedStatus | None:
    if answer is None:
        return None
    try:
        memory_bytes = psutil.Process(info.pid).memory_info().rss
    except psutil.Error:
        memory_bytes = None
    return EmbeddedStatus(
        model=info.model,
        gguf=Path(info.gguf),
        pid=info.pid,
        url=info.url,
        uptime_s=answer["uptime_s"],
        users=answer["users"],
        kept=answer["kept"],
        memory_bytes=memory_bytes,
        context_length=info.context_length,
        slots=info.slots,
        log_path=folder / LOG_FILE,
    )
