"""The tokens of the API server: made once, kept in a file that only its owner reads."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TYPE_CHECKING, Literal

from agentfarm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Role", "Tokens", "load_tokens"]

Role = Literal["operator", "read_only"]

_SHORTEST = 16
# What a URL and a cookie hold as it is.
_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{{_SHORTEST},}}")
_LARGEST_FILE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Who holds one of these may ask.

    Attributes:
        operator: May read, and start and interrupt workflows.
        read_only: May read.
    """

    operator: str = field(repr=False)
    read_only: str = field(repr=False)

    def role(self, given: bytes) -> Role | None:
        """What the holder of `given` may do; None where it is no token of ours.

        It takes as long for a wrong token as for a right one.
        """
        # As bytes, since comparing text raises on what is not ASCII.
        operator = compare_digest(given, self.operator.encode())
        read_only = compare_digest(given, self.read_only.encode())
        return "operator" if operator else "read_only" if read_only else None


def load_tokens(path: Path) -> tuple[Tokens, bool]:
    """Read the tokens, or make them at the first start.

    Returns:
        The tokens, and whether they were made now.

    Raises:
        ConfigError: The file cannot be read or written, others may read it, or it
            does not hold two tokens.
    """
    made = Tokens(
        operator=secrets.token_urlsafe(32), read_only=secrets.token_urlsafe(32)
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Nobody else may read it at any moment, so not a chmod afterwards.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path), False
    except OSError as error:
        raise _failure(path, "made", error) from error
    content = {"operator": made.operator, "read_only": made.read_only}
    try:
        with os.fdopen(file, "w", encoding="utf-8") as out:
            out.write(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise _failure(path, "written", error) from error
    return made, True


def _read(path: Path) -> Tokens:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise ConfigError(
                    f"The token file {path} may be read by others.",
                    remedy=f"Make it yours alone: chmod 600 {path}. If they may have "
                    "read it, remove it; new tokens are made at the next start.",
                )
            text = file.read(_LARGEST_FILE)
        values = json.loads(text)
        tokens = Tokens(operator=values["operator"], read_only=values["read_only"])
        both = {tokens.operator, tokens.read_only}
        if len(both) == 2 and all(map(_TOKEN.fullmatch, both)):
            return tokens
    except OSError as error:
        raise _failure(path, "read", error) from error
    except (ValueError, KeyError, TypeError):
        pass
    raise ConfigError(
        f"The token file {path} does not hold two tokens.",
        remedy='Write {"operator": "…", "read_only": "…"} with two different tokens '
        f"of at least {_SHORTEST} letters, digits or -._~; or remove it to have them "
        "made.",
    )


def _failure(path: Path, what: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"The token file {path} cannot be {what}: {error.strerror}.",
        remedy="Name another one with --token-file or AGENTFARM_WEB__TOKEN_FILE.",
    )
