"""The tasks of `coding` with prompts in Swedish."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentfarm.evals import Suite

    SUITE: Suite

__all__ = ["SUITE"]


def __getattr__(name: str) -> Suite:
    if name == "SUITE":
        from agentfarm.evals.suites.coding import coding

        return coding("sv")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
