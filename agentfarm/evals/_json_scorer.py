"""The scorer behind `agentfarm.evals.json_schema`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from agentfarm.evals import _text
from agentfarm.evals._scoring import Score

if TYPE_CHECKING:
    from agentfarm.evals._scoring import ScoreContext
    from agentfarm.evals._suite import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonSchemaScorer:
    """Judges JSON by a schema and by expected fields."""

    name: ClassVar[str] = "json_schema"
    schema: Mapping[str, Any] | None
    partial: bool

    def check(self, task: Task) -> None:
        """Refuse a task without schema and target, or with a malformed schema."""
        from jsonschema import Draft202012Validator, SchemaError

        schema = self._schema(task)
        if schema is None and task.target is None:
            raise task.error(
                "has neither a JSON schema nor a target",
                "Set response_schema, json_schema(schema) or the expected fields.",
            )
        try:
            Draft202012Validator.check_schema(schema if schema is not None else True)
        except SchemaError as error:
            raise task.error(
                f"has a JSON schema that is not valid: {error.message}", "Mend it."
            ) from None

    def __call__(self, context: ScoreContext) -> Score:
        """Judge one answer."""
        try:
            value = _text.find_json(context.text)
        except ValueError:
            return Score(value=0.0, explanation="holds no JSON")
        checks = {"schema": self._violation(context.task, value)}
        checks.update(_differences(context.task.target, value))
        wrong = [why for why in checks.values() if why]
        share = 1 - len(wrong) / len(checks)
        return Score(
            value=share if self.partial else float(not wrong),
            answer=_text.to_json(value),
            explanation="; ".join(wrong)[:500] or "follows the schema and the target",
            metadata={"checks": len(checks), "failed": len(wrong)},
        )

    def _schema(self, task: Task) -> Mapping[str, Any] | None:
        return self.schema if self.schema is not None else task.response_schema

    def _violation(self, task: Task, value: Any) -> str:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
        from referencing import Registry

        schema = self._schema(task)
        # An empty registry: the default one would fetch a remote $ref.
        validator = Draft202012Validator(
            dict(schema) if schema is not None else True, registry=Registry()
        )
        error = best_match(validator.iter_errors(value))
        return f"{error.json_path}: {error.message}" if error else ""


def _differences(target: Any, value: Any) -> dict[str, str]:
    """Per expected field, what is wrong with it; `""` where it is right."""
    if target is None:
        return {}
    if not isinstance(target, Mapping):
        return {"$": "" if _same(target, value) else "is not the target"}
    if not isinstance(value, Mapping):
        return {f"$.{key}": f"{key} is missing" for key in target}
    return {
        f"$.{key}": ""
        if key in value and _same(wanted, value[key])
        else f"{key} is {value.get(key, 'missing')!r}, not {wanted!r}"
        for key, wanted in target.items()
    }


def _same(target: Any, value: Any) -> bool:
    if isinstance(target, bool) or isinstance(value, bool):
        return target is value
    if isinstance(target, str) and isinstance(value, str):
        return _text.normalise(target) == _text.normalise(value)
    if isinstance(target, Mapping) and isinstance(value, Mapping):
        return target.keys() == value.keys() and all(
            _same(target[key], value[key]) for key in target
        )
    if isinstance(target, Sequence) and isinstance(value, Sequence):
        return len(target) == len(value) and all(map(_same, target, value))
    return bool(target == value)
