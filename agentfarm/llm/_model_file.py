"""Models that people registered: the ``[[models]]`` of ``agentfarm.toml`` in `home`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agentfarm.config import ModelSettings, describe_problems
from agentfarm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from tomlkit import TOMLDocument

    from agentfarm.config import Settings

# Registered without an entry; one of another kind would redirect `make demo`.
_RESERVED = {"embedded": "embedded", "replay": "replay"}


def add_model(settings: Settings, entry: dict[str, Any]) -> None:
    """Append a model, keeping the rest of the file and its comments.

    Args:
        settings: Where `home` is and which models are known.
        entry: Fields of `ModelSettings`, as JSON values.

    Raises:
        ConfigError: The entry is not valid, or its name and URL are there already.
    """
    import tomlkit

    try:
        model = ModelSettings(**entry)
    except ValidationError as error:
        raise ConfigError(
            f"The model cannot be added: {describe_problems(error)}.",
            remedy="See agentfarm models add --help.",
        ) from None
    own = _RESERVED.get(model.name)
    if own is not None and model.provider != own:
        raise ConfigError(
            f"The name {model.name} means AgentFarm's own {own} model.",
            remedy="Choose another name.",
        )
    if any((k.name, k.url) == (model.name, model.url) for k in settings.models):
        raise ConfigError(
            f"A model {model.name} at {model.url or model.provider} is registered.",
            remedy=f"Remove it first: agentfarm models remove {model.name}",
        )
    document = _read(settings.config_path)
    tables = document.setdefault("models", tomlkit.aot())
    tables.append(tomlkit.item(entry))
    _write(settings.config_path, document)


def remove_model(settings: Settings, name: str) -> None:
    """Take every model of this name out of the file.

    Raises:
        ConfigError: There is none.
    """
    document = _read(settings.config_path)
    tables = document.get("models", [])
    positions = [i for i, table in enumerate(tables) if table.get("name") == name]
    if not positions:
        raise ConfigError(
            f"{settings.config_path} has no model {name}.",
            remedy="See agentfarm models list.",
        )
    for position in reversed(positions):
        del tables[position]
    if not tables:
        document.pop("models")
    _write(settings.config_path, document)


def _read(path: Path) -> TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, TOMLKitError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}.",
            remedy="Mend or remove it, or set AGENTFARM_HOME to another folder.",
        ) from error


def _write(path: Path, document: TOMLDocument) -> None:
    """Replace the file in one step, so that a kill leaves the old or the new one."""
    import tomlkit

    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_text(tomlkit.dumps(document), encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}.",
            remedy="Set AGENTFARM_HOME to a folder that you may write.",
        ) from error
