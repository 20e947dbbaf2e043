"""Whose a container, volume or network is, until when, and the removal of orphans.

A process that is killed cannot clean up. So everything that we make carries its
owner and an absolute expiry, and whoever starts next removes what is orphaned. The
engine's own creation dates are no help: that of a volume moves with its content.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agentfarm._version import __version__
from agentfarm.containers._owner import Owner
from agentfarm.errors import SandboxError, SandboxUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentfarm.containers._engine import Engine

KIND = "agentfarm.kind"
OWNER = "agentfarm.owner"
EXPIRES = "agentfarm.expires"
VERSION = "agentfarm.version"

ResourceType = Literal["container", "volume", "network"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Owned:
    """Something on the engine that an AgentFarm process made.

    Attributes:
        type: ``container``, ``volume`` or ``network``.
        kind: What it is for, e.g. ``sandbox``.
        id: What the engine calls it; the name, for a volume.
        name: Its name.
        owner_alive: Whether the process that made it runs; None where that cannot
            be known: on another machine, or in another container.
        expires_at: Epoch seconds after which it is nobody's; None where its label
            cannot be read.
    """

    type: ResourceType
    kind: str
    id: str
    name: str
    owner_alive: bool | None
    expires_at: float | None

    @property
    def orphaned(self) -> bool:
        """Whether its time is over or its owner dead, so that `reap` takes it."""
        if self.owner_alive is False:
            return True
        return self.expires_at is not None and time.time() >= self.expires_at


@dataclass(frozen=True, kw_only=True, slots=True)
class Reaped:
    """How much `reap` removed.

    Attributes:
        containers: Containers.
        volumes: Named volumes.
        networks: Networks.
    """

    containers: int = 0
    volumes: int = 0
    networks: int = 0

    @property
    def total(self) -> int:
        """All together."""
        return self.containers + self.volumes + self.networks


def labels(kind: str, *, lifetime_s: float) -> dict[str, str]:
    """Mark what this process is about to make; labels cannot be changed later.

    Args:
        kind: What it is for, e.g. ``sandbox``.
        lifetime_s: Seconds from now after which anyone may remove it.

    Raises:
        ValueError: `kind` is empty, or `lifetime_s` is not above 0 and finite.
    """
    if not kind:
        raise ValueError("kind must not be empty.")
    if not (lifetime_s > 0 and math.isfinite(lifetime_s)):
        raise ValueError(f"lifetime_s must be above 0 and finite, not {lifetime_s}.")
    return {
        KIND: kind,
        OWNER: str(Owner.of_this_process()),
        EXPIRES: str(math.ceil(time.time() + lifetime_s)),
        VERSION: __version__,
    }


def owned(engine: Engine) -> list[Owned]:
    """List what AgentFarm processes made: containers, then volumes, then networks.

    Raises:
        SandboxError: The engine refused, is gone or did not answer.
    """
    ours = {"label": OWNER}
    with engine.calls("list AgentFarm's containers, volumes and networks") as api:
        containers = api.containers(all=True, filters=ours)
        volumes = api.volumes(filters=ours).get("Volumes") or ()
        networks = api.networks(filters=ours)
    return [
        *(_read("container", item["Id"], _name(item), item) for item in containers),
        *(_read("volume", item["Name"], item["Name"], item) for item in volumes),
        *(_read("network", item["Id"], item["Name"], item) for item in networks),
    ]


def reap(engine: Engine, *, everything: bool = False) -> Reaped:
    """Remove what is orphaned: its time is over, or its owner is known to be dead.

    Several processes may reap at once. What a container of someone else still uses
    stays for the next time.

    Args:
        engine: Where to look.
        everything: Take what living processes own too.

    Returns:
        How much this call removed; what another process took is not counted.

    Raises:
        SandboxUnavailable: The engine cannot be reached.
        SandboxError: Something could not be removed; the rest was.
    """
    doomed = [item for item in owned(engine) if everything or item.orphaned]
    removed: dict[ResourceType, int] = {"container": 0, "volume": 0, "network": 0}
    failures: list[str] = []
    for item in doomed:  # containers come first: they hold the others
        try:
            removed[item.type] += _remove(engine, item)
        except SandboxUnavailable:
            raise
        except SandboxError as error:
            failures.append(f"{item.type} {item.name}: {error.message}")
    if failures:
        raise SandboxError(
            f"{len(failures)} of {len(doomed)} could not be removed: "
            f"{'; '.join(failures)}",
            remedy="Look at them with docker ps -a, docker volume ls and docker "
            "network ls.",
        )
    return Reaped(
        containers=removed["container"],
        volumes=removed["volume"],
        networks=removed["network"],
    )


def _remove(engine: Engine, item: Owned) -> bool:
    if item.type == "container":
        return engine.remove_container(item.id)
    if item.type == "volume":
        return engine.remove_volume(item.id)
    return engine.remove_network(item.id)


def _read(
    type_: ResourceType, id_: str, name: str, described: Mapping[str, Any]
) -> Owned:
    marks: Mapping[str, str] = described.get("Labels") or {}
    owner = Owner.parse(marks.get(OWNER, ""))
    expires_at = _epoch_s(marks.get(EXPIRES, ""))
    alive = None if owner is None else owner.is_alive()
    if owner is None and expires_at is None:
        alive = False  # no one can ever claim it, and it would never expire
    return Owned(
        type=type_,
        kind=marks.get(KIND, ""),
        id=id_,
        name=name,
        owner_alive=alive,
        expires_at=expires_at,
    )


def _name(container: Mapping[str, Any]) -> str:
    names: Iterable[str] = container.get("Names") or ()
    return next(iter(names), str(container["Id"])[:12]).lstrip("/")


def _epoch_s(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
