"""Eleven programming tasks that agents work on, with hidden tests.

Each folder beside this file is one task; `agentfarm.evals._code` says what it holds.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentfarm.evals import Suite

    SUITE: Suite

__all__ = ["SUITE", "coding"]

_NAMES = {"en": "coding", "sv": "coding_sv"}


@cache
def coding(language: str = "en") -> Suite:
    """The suite with prompts in a language, ``en`` or ``sv``, read once.

    Raises:
        EvalError: There are no prompts in that language.
    """
    from agentfarm.evals._code_suite import code_suite

    return code_suite(
        Path(__file__).parent,
        name=_NAMES.get(language, "coding"),
        description="Agents write, fix and refactor programs; hidden tests judge.",
        language=language,
    )


def __getattr__(name: str) -> Suite:
    if name == "SUITE":
        return coding()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
