"""What `agentfarm doctor` says about one part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "optional", "warning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One part of the installation.

    Attributes:
        part: Its name.
        state: ``missing`` stands in the way of an evaluation; ``optional`` is not
            there and only some features need it; ``warning`` works, but holds less
            than it could.
        detail: What was found or tried.
        remedy: What to do about it; `""` if nothing.
    """

    part: str
    state: State
    detail: str
    remedy: str = ""
