"""What a scorer is given and what it returns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from agentfarm.errors import EvalError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from agentfarm.evals._suite import Task
    from agentfarm.llm import ChatResponse
    from agentfarm.tools.sandbox import Sandbox, SandboxFile


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How good one answer is.

    Attributes:
        value: 0 for wrong to 1 for right.
        answer: The part of the output that was judged.
        explanation: Why, in one sentence for people.
        metadata: Whatever else is worth keeping, as JSON values.

    Raises:
        EvalError: `value` is not a number from 0 to 1, or another field could not
            be kept.
    """

    value: float
    answer: str = ""
    explanation: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0 or math.isnan(self.value):
            raise EvalError(
                f"A score of {self.value!r} is outside 0 to 1.",
                remedy="Scale the scorer's value.",
            )
        # A row that the Store refuses would end the run, not just this sample.
        explanation: object = self.explanation  # a scorer is not type-checked
        if not isinstance(explanation, str) or not isinstance(self.metadata, Mapping):
            raise EvalError(
                f"A score has explanation={explanation!r}, metadata={self.metadata!r}.",
                remedy="Give it a text and a mapping, or leave them out.",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreContext:
    """Everything a scorer may look at.

    Attributes:
        task: The task, with its target.
        text: The model's answer, without surrounding white space.
        response: The whole response, with tokens, timing and tool calls; None
            where a solver answered, which may have asked any number of times.
        files: What a solver left in its workspace, by relative name.
        sandbox: Where code is run; None unless the scorer says ``needs_sandbox``.
    """

    task: Task
    text: str
    response: ChatResponse | None = None
    files: Mapping[str, SandboxFile] = field(
        default_factory=lambda: MappingProxyType({})
    )
    sandbox: Sandbox | None = None


class Scorer(Protocol):
    """Judges one answer; any function of this shape is a scorer.

    It may be ``async``. An exception it raises becomes the sample's error and
    stops nothing. It runs in the event loop, so long computations belong into a
    thread. A scorer may have

    - a ``name``, else the function's is used,
    - a ``check`` method, see `TaskCheck`,
    - ``needs_sandbox = True``: a run then opens the sandbox before it begins, and
      `ScoreContext.sandbox` is it,
    - a ``spec()`` method: what decides its scores, as a mapping of JSON values;
      it goes into the suite's hash.
    """

    def __call__(self, context: ScoreContext, /) -> Score | Awaitable[Score]:
        """Judge `context.text` by `context.task`."""
        ...


@runtime_checkable
class TaskCheck(Protocol):
    """A scorer that can tell a malformed task before the run begins."""

    def check(self, task: Task) -> None:
        """Raise EvalError if `task` cannot be scored, e.g. for want of a target."""
        ...


def scorer_name(scorer: object) -> str:
    """What people call a scorer or solver: its ``name``, else that of its code."""
    for attribute in ("name", "__name__"):
        name = getattr(scorer, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(scorer).__name__


def needs_sandbox(scorer: object) -> bool:
    """Whether a scorer or solver runs code."""
    return getattr(scorer, "needs_sandbox", False) is True


def scorer_spec(scorer: object) -> dict[str, Any]:
    """What tells one scorer or solver from another, as JSON values.

    It is what its ``spec()`` says; else a dataclass is its name and fields. Of any
    other callable only its place counts: an edit inside the function goes unseen.
    """
    if callable(own := getattr(scorer, "spec", None)):
        return {"name": scorer_name(scorer), **own()}
    if dataclasses.is_dataclass(scorer):
        # mypy takes a dataclass type for possible here; a scorer is an instance.
        fields = dataclasses.asdict(cast("Any", scorer))
        return {"name": scorer_name(scorer), **fields}
    target = scorer if hasattr(scorer, "__qualname__") else type(scorer)
    module = getattr(target, "__module__", "")
    return {"name": f"{module}.{getattr(target, '__qualname__', scorer_name(scorer))}"}
