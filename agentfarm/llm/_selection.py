"""Which model answers a request."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from agentfarm.errors import ModelNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentfarm.llm._hosts import Lane
    from agentfarm.llm._messages import ChatRequest

__all__ = ["candidates", "missing_capabilities", "needs", "rank"]


def needs(request: ChatRequest) -> frozenset[str]:
    """Capabilities without which a model cannot do what is asked."""
    wanted = set()
    if request.tools and request.tool_choice != "none":
        wanted.add("tools")
    if request.response_schema is not None:
        wanted.add("json_schema")
    return frozenset(wanted)


def candidates(lanes: Sequence[Lane], request: ChatRequest) -> list[Lane]:
    """The lanes that may answer: those of the name, or all where none is named.

    Raises:
        ModelNotFound: No model has this name, or there is none at all.
    """
    if request.model is None and lanes:
        return list(lanes)
    found = [lane for lane in lanes if lane.entry.name == request.model]
    if found:
        return found
    names = list(dict.fromkeys(lane.entry.name for lane in lanes))
    near = difflib.get_close_matches(request.model or "", names, n=1, cutoff=0.5)
    remedy = (
        f"Did you mean {near[0]!r}? Known are {', '.join(sorted(names))}."
        if near
        else f"Known are {', '.join(sorted(names))}; "
        "`agentfarm models add` registers more."
        if names
        else "Register one with `agentfarm models add`."
    )
    raise ModelNotFound(
        f"The router knows no model {request.model!r}."
        if request.model is not None
        else "The router has no models.",
        remedy=remedy,
        provider="router",
        model=request.model,
    )


def rank(lane: Lane, request: ChatRequest, wanted: frozenset[str]) -> tuple[float, ...]:
    """Order of preference: the smallest is asked first, all else being ready.

    A declared lack of a capability weighs most, then the task type, then (where
    the choice is free) the model's preference, an undeclared capability, the
    load on the host, its recent latency, and the order of registration.
    """
    entry = lane.entry
    capable = wanted <= entry.capabilities
    if request.task_type in entry.task_types:
        task = 0
    elif not entry.task_types or "general" in entry.task_types:
        task = 1
    else:
        task = 2
    return (
        bool(entry.capabilities) and not capable,
        task,
        -entry.preference if request.model is None else 0,
        not capable,
        lane.gate.load,
        lane.latency_s or 0.0,
        lane.order,
    )


def missing_capabilities(
    lanes: Iterable[Lane], wanted: frozenset[str]
) -> frozenset[str]:
    """What is wanted and declared by none of `lanes`."""
    return wanted.difference(*(lane.entry.capabilities for lane in lanes))
