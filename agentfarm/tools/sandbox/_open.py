"""Which sandbox this machine has: Docker, else bubblewrap, else an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agentfarm.config import Settings, load_settings
from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox._contract import Limits

if TYPE_CHECKING:
    from agentfarm.tools.sandbox._bubblewrap import BubblewrapSandbox
    from agentfarm.tools.sandbox._contract import Sandbox
    from agentfarm.tools.sandbox._docker import DockerSandbox

Backend = Literal["auto", "docker", "bubblewrap"]


async def open_sandbox(
    backend: Backend | None = None, *, settings: Settings | None = None
) -> Sandbox:
    """Open the sandbox that the settings name; ``auto`` prefers Docker.

    Settings that only Docker has, an image or a runtime, make ``auto`` mean Docker.
    Code never runs outside of a sandbox: where there is none, this raises.

    Args:
        backend: Overrides `settings.sandbox.backend`.
        settings: Read from the environment if None.

    Raises:
        SandboxUnavailable: There is none; the message names what was tried.
    """
    settings = settings or load_settings()
    wanted = backend or wanted_backend(settings)
    tried = []
    for name, opening in (("docker", _docker), ("bubblewrap", _bubblewrap)):
        if wanted not in ("auto", name):
            continue
        try:
            return await opening(settings)
        except SandboxUnavailable as error:
            tried.append((name, error))
    if len(tried) == 1:
        raise tried[0][1]
    raise SandboxUnavailable(
        "No sandbox for code that a model wrote: "
        + " ".join(f"{name}: {error.message}" for name, error in tried),
        remedy=" Or: ".join(error.remedy or "" for _, error in tried),
    )


def wanted_backend(settings: Settings) -> Backend:
    """The backend that the settings ask for, of which none may take the place."""
    chosen = settings.sandbox
    if chosen.backend == "auto" and (chosen.image or chosen.runtime):
        return "docker"
    return chosen.backend


def limits_of(settings: Settings) -> Limits:
    """The limits that the settings name, the defaults where they name none."""
    chosen = settings.sandbox.limits
    return Limits(**chosen.model_dump(exclude_none=True))


async def _docker(settings: Settings) -> DockerSandbox:
    from agentfarm.containers import Engine
    from agentfarm.tools.sandbox._docker import DockerSandbox

    chosen = settings.sandbox
    sandbox = DockerSandbox(
        engine=Engine(settings.docker_host),
        image=chosen.image,
        limits=limits_of(settings),
        timeout_s=chosen.timeout_s,
        pool=chosen.pool,
        concurrency=chosen.concurrency,
        runtime=chosen.runtime,
    )
    await sandbox.check()
    return sandbox


async def _bubblewrap(settings: Settings) -> BubblewrapSandbox:
    from agentfarm.tools.sandbox._bubblewrap import BubblewrapSandbox

    chosen = settings.sandbox
    sandbox = BubblewrapSandbox(
        limits=limits_of(settings),
        timeout_s=chosen.timeout_s,
        concurrency=chosen.concurrency,
    )
    await sandbox.check()
    return sandbox
