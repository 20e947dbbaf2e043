"""The image that sandboxes are made of: is it there, and is it ours and recent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox._recipe import (
    KIND_LABEL,
    RECIPE,
    RECIPE_LABEL,
    REPOSITORY,
    SANDBOX_IMAGE,
    VERSION_VARIABLE,
)

if TYPE_CHECKING:
    from agentfarm.containers import Engine

BUILD_COMMAND = "agentfarm sandbox build"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageState:
    """Whether an image can be used.

    Attributes:
        image: Its name.
        present: Whether the engine has it.
        stale: Whether there is one of ours, but of an older recipe.
        python: Version of its Python; None where it does not say.
        size_bytes: Of all its layers.
        made_at: When it was built.
        volumes: Folders that it declares as volumes.
        reason: What is wrong with it; `""` if nothing.
    """

    image: str
    present: bool
    stale: bool = False
    python: str | None = None
    size_bytes: int | None = None
    made_at: datetime | None = None
    volumes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def remedy(self) -> str:
        """What to do about `reason`."""
        if not self.reason:
            return ""
        return BUILD_COMMAND if _is_ours(self.image) else f"docker pull {self.image}"

    def require(self) -> ImageState:
        """Itself.

        Raises:
            SandboxUnavailable: The image is not there, or the engine would give
                each run a folder on its disk, which no limit covers.
        """
        if self.volumes:
            raise SandboxUnavailable(
                f"The sandbox image {self.image} declares volumes: "
                f"{', '.join(self.volumes)}. The engine would give each run folders "
                "on its own disk for them, which no limit covers.",
                remedy="Use an image without VOLUME lines.",
            )
        if self.present:
            return self
        raise SandboxUnavailable(
            f"The sandbox image {self.image} {self.reason}.", remedy=self.remedy
        )


def check_image(engine: Engine, image: str = SANDBOX_IMAGE) -> ImageState:
    """See whether the engine has an image, and one of ours is of this recipe.

    An image of somebody else's must exist; it is never stale.

    Raises:
        SandboxUnavailable: The engine does not answer.
    """
    found = inspect_image(engine, image)
    ours = _is_ours(image)
    if found is None:
        return (
            _absent(engine, image)
            if ours
            else ImageState(image=image, present=False, reason="is not on this engine")
        )
    config = found.get("Config") or {}
    recipe = (config.get("Labels") or {}).get(RECIPE_LABEL, "unknown")
    stale = ours and recipe != RECIPE
    return ImageState(
        image=image,
        present=True,
        stale=stale,
        python=_python_version(config),
        size_bytes=found["Size"],
        made_at=datetime.fromisoformat(found["Created"]),
        volumes=tuple(sorted(config.get("Volumes") or ())),
        reason=f"is of recipe {recipe}, not {RECIPE}" if stale else "",
    )


def inspect_image(engine: Engine, image: str) -> dict[str, Any] | None:
    """What the engine says about an image; None where it has none."""
    with engine.calls(f"look for the image {image}", ignore=(404,)) as api:
        found: dict[str, Any] = api.inspect_image(image)
        return found
    return None


def listed_images(engine: Engine, label: str) -> list[dict[str, Any]]:
    """Images that carry a label, given as ``name=value``, but no layers of others."""
    with engine.calls("list images") as api:
        found: list[dict[str, Any]] = api.images(filters={"label": label})
    return found


def our_images(engine: Engine, repository: str) -> list[dict[str, Any]]:
    """Images that we built under a name, all recipes."""
    return [
        item
        for item in listed_images(engine, f"{KIND_LABEL}=image")
        if any(tag.startswith(f"{repository}:") for tag in item["RepoTags"] or ())
    ]


def _is_ours(image: str) -> bool:
    return image.partition(":")[0] == REPOSITORY


def _absent(engine: Engine, image: str) -> ImageState:
    """Our own image is not there; perhaps one of an older recipe is."""
    older = [tag for item in our_images(engine, REPOSITORY) for tag in item["RepoTags"]]
    reason = f"is not built yet, only {', '.join(sorted(older))}"
    return ImageState(
        image=image,
        present=False,
        stale=bool(older),
        reason=reason if older else "is not built yet",
    )


def _python_version(config: dict[str, Any]) -> str | None:
    for entry in config.get("Env") or ():
        name, _, value = entry.partition("=")
        if name == VERSION_VARIABLE:
            return str(value)
    return None
