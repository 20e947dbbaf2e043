"""A plan is checked before anybody works by it."""

import json

import pytest

from agentfarm.agents._plan import MAX_STEPS, PLAN_SCHEMA, Plan, Step
from agentfarm.errors import StoreError


def steps(**depends_on: list) -> dict:
    listed = [
        {"id": id, "title": f"Do {id}", "depends_on": names}
        for id, names in depends_on.items()
    ]
    return {"summary": "s", "steps": listed}


def layers(plan: Plan) -> list[list[str]]:
    return [[step.id for step in layer] for layer in plan.layers()]


def test_a_plan_is_read_as_it_was_written():
    plan = Plan.parse(
        {
            "summary": " Two steps. ",
            "interface": True,
            "steps": [
                {"id": "a", "title": "Write\n it", "detail": "In x.py"},
                {"id": "b", "title": "Test it", "depends_on": ["a"]},
            ],
        }
    )
    assert plan == Plan(
        summary="Two steps.",
        interface=True,
        steps=(
            Step(id="a", title="Write it", detail="In x.py"),
            Step(id="b", title="Test it", depends_on=("a",)),
        ),
    )


def test_null_counts_as_empty_and_numbers_are_ids():
    plan = Plan.parse(
        {
            "summary": None,
            "interface": None,
            "steps": [
                {"id": 1, "title": "x", "detail": None, "depends_on": None},
                {"id": "2", "title": "y", "depends_on": [1, None, 1]},
            ],
        }
    )
    assert isinstance(plan, Plan)
    assert (plan.summary, plan.interface) == ("", None)
    assert plan.steps[0] == Step(id="1", title="x")
    assert plan.steps[1].depends_on == ("1",)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "not a JSON object"),
        ([], "not a JSON object"),
        ({}, "no steps"),
        ({"steps": None}, "no steps"),
        ({"steps": []}, "no steps"),
        ({"steps": "1. Do it"}, "steps is not a list"),
        ({"steps": ["Do it"]}, "Step 1 is not a JSON object"),
        ({"steps": [None]}, "Step 1 is not a JSON object"),
        ({"steps": [{"id": "1", "title": "  "}]}, "Step 1 has no title"),
        ({"steps": [{"id": "1", "title": None}]}, "Step 1 has no title"),
        ({"steps": [{"title": "x"}]}, "Step 1 has no id"),
        ({"steps": [{"id": True, "title": "x"}]}, "Step 1 has no id"),
        (
            {"steps": [{"id": "1", "title": "x", "depends_on": "2"}]},
            "depends_on of step 1 is not a list",
        ),
        (steps(a=["b"]), "Step a depends on b, which is no step's id. The ids are: a."),
        (steps(a=["a"]), "wait for each other: a"),
        (steps(a=[], b=["c"], c=["b"]), "wait for each other: b, c"),
        (
            {"steps": [{"id": "1", "title": "x"}, {"id": 1, "title": "y"}]},
            "used more than once: 1",
        ),
        (
            steps(**{f"s{number}": [] for number in range(MAX_STEPS + 1)}),
            "has 13 steps; at most 12",
        ),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(value, said):
    problem = Plan.parse(value)
    assert isinstance(problem, str)
    assert said in problem


def test_as_many_steps_as_are_allowed():
    plan = Plan.parse(steps(**{f"s{number}": [] for number in range(MAX_STEPS)}))
    assert isinstance(plan, Plan)
    assert len(plan.layers()) == 1


def test_layers_hold_what_may_run_at_once_in_the_order_of_need():
    plan = Plan.parse(
        steps(end=["left", "right"], left=["base"], base=[], right=["base"], own=[])
    )
    assert layers(plan) == [["base", "own"], ["left", "right"], ["end"]]


def test_a_plan_survives_the_store():
    plan = Plan.parse({**steps(a=[], b=["a"]), "interface": False})
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    fallback = Plan.fallback("Write\nit")
    assert Plan.from_dict(json.loads(json.dumps(fallback.to_dict()))) == fallback


def test_a_stored_plan_that_makes_no_sense_is_an_error():
    with pytest.raises(StoreError, match="has no steps"):
        Plan.from_dict({"summary": "x"})


@pytest.mark.parametrize("task", ["Write it.", "", "\n", "x" * 1000])
def test_the_fallback_is_the_whole_task_in_one_valid_step(task):
    plan = Plan.fallback(task)
    assert plan.is_fallback
    assert plan.problem() == ""
    assert plan.steps[0].detail == task
    assert len(plan.steps[0].title) <= 200


def test_the_schema_takes_nulls_and_refuses_what_parse_refuses_by_form():
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(PLAN_SCHEMA)
    step = {"id": 1, "title": "x", "detail": None, "depends_on": None}
    assert validator.is_valid({"summary": None, "interface": None, "steps": [step]})
    assert not validator.is_valid({"summary": "x", "steps": ["Do it"]})
    assert not validator.is_valid({"summary": "x"})
    assert not validator.is_valid({"summary": "x", "steps": [step] * (MAX_STEPS + 1)})
