"""A plan: few steps that say what they wait for, checked before anybody starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from agentfarm.errors import StoreError

MAX_STEPS = 12
MAX_TITLE_CHARS = 200

PLAN_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {
            "type": ["string", "null"],
            "description": "The approach in one or two sentences.",
        },
        "interface": {
            "type": ["boolean", "null"],
            "description": "Whether people will look at or click on the result.",
        },
        "steps": {
            "type": ["array", "null"],
            # A server that constrains a weak model by this ends its repetitions, too.
            "maxItems": MAX_STEPS,
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": ["string", "integer"]},
                    "title": {"type": "string"},
                    "detail": {"type": ["string", "null"]},
                    "depends_on": {
                        "type": ["array", "null"],
                        "maxItems": MAX_STEPS,
                        "items": {"type": ["string", "integer"]},
                        "description": "Ids of steps that must be finished first.",
                    },
                },
                "required": ["id", "title"],
            },
        },
    },
    "required": ["summary", "steps"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One piece of work for one executor.

    Attributes:
        id: Unique within its plan.
        title: What it does, in one line.
        detail: What else the executor should know.
        depends_on: Ids of the steps that must be finished first.
    """

    id: str
    title: str
    detail: str = ""
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Steps that form a directed acyclic graph.

    Attributes:
        summary: The approach, in one or two sentences.
        steps: As the planner ordered them.
        interface: Whether the planner says that people will look at or click on
            the result; None where it did not say.
        is_fallback: The planner gave no valid plan, and this one, of a single step
            that is the whole task, stands in for it.
    """

    summary: str
    steps: tuple[Step, ...]
    interface: bool | None = None
    is_fallback: bool = False

    @classmethod
    def parse(cls, value: object) -> Self | str:
        """Read what a planner wrote.

        ``null`` and absent fields count as empty, numbers as ids are taken as text.

        Returns:
            The plan; or what is wrong with it, in words for the model that wrote it.
        """
        if not isinstance(value, Mapping):
            return "The plan is not a JSON object."
        listed = value.get("steps")
        if not isinstance(listed, list | tuple | None):
            return "steps is not a list."
        steps = []
        for number, item in enumerate(listed or (), start=1):
            step = _step(item, f"Step {number}")
            if isinstance(step, str):
                return step
            steps.append(step)
        interface = value.get("interface")
        plan = cls(
            summary=_text(value.get("summary")) or "",
            steps=tuple(steps),
            interface=interface if isinstance(interface, bool) else None,
        )
        return plan.problem() or plan

    @classmethod
    def fallback(cls, task: str) -> Self:
        """The whole task as one step, for when no valid plan can be had."""
        title = " ".join(task.split())
        if len(title) > MAX_TITLE_CHARS:
            title = f"{title[: MAX_TITLE_CHARS - 1]}…"
        step = Step(id="1", title=title or "Do the task", detail=task)
        return cls(
            summary="The task is done in one step, without a plan.",
            steps=(step,),
            is_fallback=True,
        )

    def problem(self) -> str:
        """What keeps it from being carried out; `""` if nothing does."""
        ids = [step.id for step in self.steps]
        if not ids:
            return "The plan has no steps."
        if len(ids) > MAX_STEPS:
            return f"The plan has {len(ids)} steps; at most {MAX_STEPS} are allowed."
        if twice := sorted({id for id in ids if ids.count(id) > 1}):
            return f"These step ids are used more than once: {', '.join(twice)}."
        for step in self.steps:
            if unknown := [name for name in step.depends_on if name not in ids]:
                return (
                    f"Step {step.id} depends on {', '.join(unknown)}, which is no "
                    f"step's id. The ids are: {', '.join(ids)}."
                )
        reached = {step.id for layer in self.layers() for step in layer}
        if circular := [id for id in ids if id not in reached]:
            return f"These steps wait for each other: {', '.join(circular)}."
        return ""

    def layers(self) -> tuple[tuple[Step, ...], ...]:
        """Steps in the order of work: those of one layer do not need each other.

        Each layer needs only earlier ones, and keeps the planner's order.
        """
        layers: list[tuple[Step, ...]] = []
        done: set[str] = set()
        left = self.steps
        while ready := tuple(step for step in left if done.issuperset(step.depends_on)):
            layers.append(ready)
            done.update(step.id for step in ready)
            left = tuple(step for step in left if step.id not in done)
        return tuple(layers)

    def outline(self) -> str:
        """The summary and the steps' titles, for another agent to read."""
        steps = [f"{step.id}. {step.title}" for step in self.steps]
        return "\n".join([*([self.summary] if self.summary else []), *steps])

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        data = asdict(self)
        data["steps"] = [
            {**step, "depends_on": list(step["depends_on"])} for step in data["steps"]
        ]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave.

        Raises:
            StoreError: It is no valid plan.
        """
        plan = cls.parse(data)
        if isinstance(plan, str):
            raise StoreError(
                f"The stored plan cannot be read. {plan}",
                remedy="Start the task anew instead of resuming it.",
            )
        return cls(
            summary=plan.summary,
            steps=plan.steps,
            interface=plan.interface,
            is_fallback=data.get("is_fallback") is True,
        )


def _step(item: object, place: str) -> Step | str:
    if not isinstance(item, Mapping):
        return f"{place} is not a JSON object."
    texts = {name: _text(item.get(name)) for name in ("id", "title", "detail")}
    for name in ("id", "title"):
        if not texts[name]:
            return f"{place} has no {name}, which must be a text that is not empty."
    waits_for = item.get("depends_on")
    if not isinstance(waits_for, list | tuple | None):
        return f"depends_on of {place.lower()} is not a list of step ids."
    names = [_text(name) for name in waits_for or ()]
    return Step(
        id=texts["id"] or "",
        title=" ".join((texts["title"] or "").split())[:MAX_TITLE_CHARS],
        detail=texts["detail"] or "",
        # A null among them counts as absent, too.
        depends_on=tuple(dict.fromkeys(name for name in names if name)),
    )


def _text(value: object) -> str | None:
    """A text without white space around it; a whole number counts as one."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None
