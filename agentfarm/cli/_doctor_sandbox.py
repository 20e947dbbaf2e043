"""What `agentfarm doctor` says about sandboxes: Docker, bubblewrap, and the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentfarm.cli._finding import Finding
from agentfarm.cli._sandbox_state import look

if TYPE_CHECKING:
    from agentfarm.cli._sandbox_state import (
        BubblewrapState,
        DockerState,
        SandboxState,
    )
    from agentfarm.config import Settings


async def sandbox_findings(settings: Settings) -> list[Finding]:
    """Look at the engine, its image and bubblewrap; nothing is changed."""
    state = await look(settings)
    return [
        *_docker(state.docker),
        _bubblewrap(state.bubblewrap),
        *_unenforced(state),
        _choice(state),
    ]


def _docker(docker: DockerState) -> list[Finding]:
    if docker.info is None:
        return [
            Finding(
                part="Docker",
                state="optional",
                detail=docker.error.message if docker.error else docker.url,
                remedy=(docker.error and docker.error.remedy) or "See docker info.",
            )
        ]
    info = docker.info
    runc = f", runc {info.runc_version}" if info.runc_version else ""
    detail = "; ".join(
        [f"{info.product} {info.version}{runc} at {info.url}", *docker.mentions]
    )
    found = [Finding(part="Docker", state="ok", detail=detail)]
    found += [
        Finding(part=item.part, state="warning", detail=item.detail, remedy=item.remedy)
        for item in docker.weaknesses
    ]
    return [*found, *_image(docker)]


def _image(docker: DockerState) -> list[Finding]:
    image = docker.image
    if image is None:
        return []
    if image.reason:
        return [
            Finding(
                part="Sandbox image",
                state="warning" if image.present else "optional",
                detail=f"{image.image} {image.reason}",
                remedy=image.remedy,
            )
        ]
    python = f"Python {image.python}, " if image.python else ""
    detail = f"{image.image}: {python}{(image.size_bytes or 0) / 2**20:.0f} MiB"
    return [Finding(part="Sandbox image", state="ok", detail=detail)]


def _bubblewrap(bubblewrap: BubblewrapState) -> Finding:
    if bubblewrap.error:
        return Finding(
            part="bubblewrap",
            state="optional",
            detail=bubblewrap.error.message,
            remedy=bubblewrap.error.remedy or "Docker makes it needless.",
        )
    detail = f"bubblewrap {bubblewrap.version}, with {bubblewrap.interpreter}"
    return Finding(part="bubblewrap", state="ok", detail=detail)


def _unenforced(state: SandboxState) -> list[Finding]:
    """Limits that bubblewrap cannot hold; only a warning where it would be used."""
    limits = state.bubblewrap.unenforced
    if not limits:
        return []
    return [
        Finding(
            part="bubblewrap limits",
            state="warning" if state.backend == "bubblewrap" else "optional",
            detail=f"not enforced here: {'; '.join(limits)}",
            remedy="Use Docker where these matter.",
        )
    ]


def _choice(state: SandboxState) -> Finding:
    if state.backend is not None:
        detail = f"code of a model runs in {state.backend}"
        return Finding(part="Sandbox", state="ok", detail=detail)
    docker_is_ready = state.docker.info is not None
    return Finding(
        part="Sandbox",
        state="optional",
        detail=f"none (settings: {state.wanted}), so code of a model is refused",
        remedy="agentfarm sandbox build"
        if docker_is_ready and state.wanted != "bubblewrap"
        else "apt-get install docker.io, or bubblewrap",
    )
