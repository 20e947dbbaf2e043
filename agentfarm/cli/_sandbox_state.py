"""What this machine has for a sandbox; `doctor` and `sandbox status` look here."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentfarm.errors import AgentFarmError, SandboxUnavailable

if TYPE_CHECKING:
    from agentfarm.config import Settings
    from agentfarm.containers import Engine, EngineInfo, Owned, Weakness
    from agentfarm.tools.sandbox import Limits
    from agentfarm.tools.sandbox._image import ImageState

ANSWER_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DockerState:
    """A Docker engine, or why there is none.

    Attributes:
        url: Where it was looked for, without credentials.
        installed: Whether there is one at all, perhaps one that does not answer.
        error: Why it cannot be used; None if it can.
        info: What it is.
        weaknesses: Why containers hold less well on it than they could.
        mentions: Why they hold better.
        image: Of the sandboxes.
        owned: What AgentFarm processes have on it.
    """

    url: str
    installed: bool = True
    error: AgentFarmError | None = None
    info: EngineInfo | None = None
    weaknesses: tuple[Weakness, ...] = ()
    mentions: tuple[str, ...] = ()
    image: ImageState | None = None
    owned: tuple[Owned, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether a sandbox can start on it."""
        return self.error is None and self.image is not None and self.image.present


@dataclass(frozen=True, kw_only=True, slots=True)
class BubblewrapState:
    """The bubblewrap program, or why it is of no use.

    Attributes:
        version: None where it is not installed.
        error: Why it cannot be used; None if it can.
        interpreter: The Python that runs inside.
        unenforced: Limits that it cannot hold on this machine.
    """

    version: str | None = None
    error: AgentFarmError | None = None
    interpreter: str = ""
    unenforced: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxState:
    """Both of them.

    Attributes:
        wanted: The backend that the settings name, e.g. ``auto``.
        docker: Docker.
        bubblewrap: bubblewrap.
        limits: Of a run that names none.
        timeout_s: The same.
    """

    wanted: str
    docker: DockerState
    bubblewrap: BubblewrapState
    limits: Limits
    timeout_s: float

    @property
    def backend(self) -> str | None:
        """What a run would take; None where it would be refused."""
        usable = {"docker": self.docker.usable, "bubblewrap": not self.bubblewrap.error}
        for name, is_usable in usable.items():
            if is_usable and self.wanted in ("auto", name):
                return name
        return None


async def look(settings: Settings) -> SandboxState:
    """Look at everything, start and change nothing."""
    import anyio.to_thread

    from agentfarm.tools.sandbox import limits_of, wanted_backend

    return SandboxState(
        wanted=wanted_backend(settings),
        docker=await anyio.to_thread.run_sync(look_at_docker, settings),
        bubblewrap=await look_at_bubblewrap(),
        limits=limits_of(settings),
        timeout_s=settings.sandbox.timeout_s,
    )


def look_at_docker(settings: Settings) -> DockerState:
    """Ask the engine, if there is one."""
    from agentfarm.containers import Engine

    with Engine(settings.docker_host, timeout_s=ANSWER_S) as engine:
        path = engine.socket_path
        if path is not None and not _exists(Path(path)):
            # Before the SDK is imported, for speed, and to say the first thing first.
            error = SandboxUnavailable(
                f"There is no Docker engine at {engine.url}.",
                remedy="apt-get install docker.io",
            )
            return DockerState(url=engine.url, installed=False, error=error)
        try:
            return _ask(engine, settings)
        except AgentFarmError as error:
            return DockerState(url=engine.url, error=error)


def _ask(engine: Engine, settings: Settings) -> DockerState:
    from agentfarm.containers import mentions, owned, weaknesses
    from agentfarm.tools.sandbox import SANDBOX_IMAGE, check_image

    info = engine.info()
    return DockerState(
        url=engine.url,
        info=info,
        weaknesses=tuple(weaknesses(info)),
        mentions=tuple(mentions(info)),
        image=check_image(engine, settings.sandbox.image or SANDBOX_IMAGE),
        owned=tuple(owned(engine)),
    )


async def look_at_bubblewrap() -> BubblewrapState:
    """See whether it is installed, and start nothing but an empty sandbox."""
    from agentfarm.tools.sandbox import BubblewrapSandbox

    program = shutil.which("bwrap")
    if program is None:
        error = SandboxUnavailable(
            "bwrap is not installed.", remedy="apt-get install bubblewrap"
        )
        return BubblewrapState(error=error)
    version = _version(program)
    async with BubblewrapSandbox() as sandbox:
        try:
            await sandbox.check()
        except AgentFarmError as error:
            return BubblewrapState(version=version, error=error)
        return BubblewrapState(
            version=version,
            interpreter=sandbox.interpreter,
            unenforced=sandbox.unenforced,
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # in a folder that we may not enter; the engine's error says it


def _version(program: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - a program from PATH, no input of a user
            [program, "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip().removeprefix("bubblewrap ") or "unknown"
