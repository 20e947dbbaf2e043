"""Designer, executor and reviewer: what each is told, and what is made of its word."""

import json

import pytest

from agentfarm.agents._agent import Budget
from agentfarm.agents._executor import ExecutorAgent, StepResult
from agentfarm.agents._plan import Plan, Step
from agentfarm.agents._prompts import PROMPTS, prompt
from agentfarm.agents._reviewer import Finding, Review, ReviewerAgent
from agentfarm.agents._ux_designer import UXDesignerAgent, needs_ux
from agentfarm.events import EventType
from agentfarm.llm import ToolCall
from agentfarm.llm.testing import Answer
from agentfarm.tools import ToolRegistry, file_tools

PLAN = Plan(
    summary="Two files.",
    steps=(
        Step(id="1", title="Write a.py", detail="It has f()."),
        Step(id="2", title="Write b.py"),
        Step(id="3", title="Join them", depends_on=("1",)),
    ),
)


@pytest.fixture
def farm(stage):
    """A stage whose script each test sets."""
    return stage()


def calls(name: str, **arguments) -> Answer:
    raw = json.dumps(arguments)
    call = ToolCall(id="c1", name=name, arguments=arguments, raw_arguments=raw)
    return Answer(tool_calls=(call,))


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_short_and_name_the_language(name):
    text = prompt(name)
    assert text.startswith("You are ")
    assert "language of the" in text
    assert len(text) < 2600  # about 650 tokens: small models have little room


def test_no_other_prompt_can_be_read():
    with pytest.raises(ValueError, match="no prompt"):
        prompt("../_plan")


@pytest.mark.parametrize(
    "task",
    [
        "Build a user interface for the notes.",
        "Add a GUI.",
        "A small UI-based tool",
        "Make the submit button blue",
        "Write a web page that lists items.",
        "Create a website for the club",
        "A login form, please.",
        "Add form validation.",
        "A form with name and e-mail",
        "Show the numbers in a dashboard!",
        "Use tkinter to draw a clock.",
        "A TUI with curses",
        "Improve the page layout",
        "The home screen flickers",
        "There is no save button; add one.",
        "An API without a GUI, and a web page for it.",
        "Bygg ett gränssnitt för anteckningar.",
        "Gör ett grafiskt användargränssnitt",
        "Skapa en webbsida som visar listan.",
        "Webbsidorna laddar långsamt",
        "Lägg till en knapp.",
        "Knapparna fungerar inte",
        "Ett formulär för kontaktuppgifter",
        "Kontaktformuläret tappar text",
        "Rita om instrumentpanelen",
        "Det finns ingen knapp för att spara.",
    ],
)
def test_a_task_about_an_interface_needs_a_designer(task):
    decision = needs_ux(task)
    assert decision.wanted
    assert "names something people see" in decision.reason


@pytest.mark.parametrize(
    "task",
    [
        "",
        "Build a small REST API: GET and POST items, GET by id.",
        "Write the class against the programming interface Storage.",
        "Format the platform's information uniformly.",
        "Return the result in the form of a dict.",
        "Bring the matrix to normal form.",
        "Form a list of the last n lines.",
        "Rename submit_button_handler and unbuttoned.",
        "Change the memory layout of the record.",
        "A sliding window over the pages of a log.",
        "Print the table to the screen.",
        "Write a TODO command-line app with storage and tests.",
        "Build requires fruit: suite, guide, quick.",
        "A calculator without a GUI.",
        "No graphical user interface is needed.",
        "A non-GUI tool",
        "This is not a web page.",
        "Skriv en funktion som avgör om ett tal är ett primtal.",
        "Ett REST-API utan gränssnitt.",
        "Inget grafiskt användargränssnitt behövs.",
        "Formatera utdata och informera användaren.",
        "Det är knappt om tid: knappologi duger inte.",
        "Implementera programmeringsgränssnittet och API-gränssnittet.",
    ],
)
def test_a_task_about_code_needs_none(task):
    assert not needs_ux(task).wanted


@pytest.mark.parametrize(
    ("interface", "wanted"), [(True, True), (False, False), (None, False)]
)
def test_the_plan_can_ask_for_one(interface, wanted):
    plan = Plan(summary="", steps=PLAN.steps, interface=interface)
    decision = needs_ux("Sort numbers.", plan)
    assert decision.wanted is wanted
    assert decision.reason


def test_words_decide_even_where_the_plan_says_no():
    plan = Plan(summary="", steps=PLAN.steps, interface=False)
    assert needs_ux("Add a dashboard.", plan).wanted


async def test_the_designer_writes_short_notes(farm):
    farm.fake.script = "Use a list. " * 1000
    notes = await UXDesignerAgent().design("A page.", PLAN, caller=farm.caller)
    assert notes.text.startswith("Use a list.")
    assert len(notes.text) <= 2400
    system, asked = farm.fake.requests[0].messages
    assert system.content == prompt("ux_designer")
    assert "1. Write a.py\n2. Write b.py" in asked.content
    assert notes.result.agent == "ux_designer"


async def test_a_designer_without_an_answer_leaves_no_notes(farm):
    farm.fake.script = ""
    notes = await UXDesignerAgent().design("A page.", PLAN, caller=farm.caller)
    assert (notes.text, notes.result.end) == ("", "malformed")


@pytest.fixture
def executor(tmp_path) -> ExecutorAgent:
    tools = ToolRegistry(file_tools(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    return ExecutorAgent(tools=tools, tool_mode="native")


async def test_a_step_is_carried_out_with_tools(farm, executor, tmp_path):
    farm.fake.script = [
        calls("write_file", path="a.py", content="x = 1\n"),
        calls("write_file", path="old.py", content=""),
        calls("delete_file", path="old.py"),
        "a.py is there.",
    ]
    done = await executor.execute(
        PLAN.steps[0], task="Write both.", plan=PLAN, caller=farm.caller
    )
    assert (tmp_path / "work" / "a.py").read_text() == "x = 1\n"
    assert (done.step_id, done.ok, done.summary) == ("1", True, "a.py is there.")
    assert (done.written, done.deleted) == (("a.py",), ("old.py",))
    assert farm.fake.requests[0].task_type == "code_generation"
    assert StepResult.from_dict(json.loads(json.dumps(done.to_dict()))).to_dict() == (
        done.to_dict()
    )


async def test_the_prompt_holds_what_the_step_needs_and_no_more(farm, executor):
    farm.fake.script = "Done."
    finished = [
        StepResult(step_id="1", summary="f() is in\na.py. " * 200, written=("a.py",)),
        StepResult(step_id="2", summary="b.py is unrelated."),
    ]
    await executor.execute(
        PLAN.steps[2],
        task="Write both.",
        plan=PLAN,
        caller=farm.caller,
        finished=finished,
        notes="Blue.",
        files=[f"f{number}.py" for number in range(100)],
        context="[block]",
    )
    system, asked = farm.fake.requests[0].messages
    assert system.content == f"{prompt('executor')}\n\n[block]"
    text = asked.content
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "## Task",
        "## Plan",
        "## Finished before",
        "## Design notes",
        "## Files in the workspace",
        "## Your step",
    ]
    assert "- 1: f() is in a.py." in text
    assert "(wrote a.py)" in text
    assert "unrelated" not in text
    assert "- and 40 more" in text
    assert len(text) < 2000


async def test_a_round_of_mending_sees_the_evidence_and_every_step(farm, executor):
    farm.fake.script = "Mended."
    finished = [
        StepResult(step_id="1", summary="One.", ok=False),
        StepResult(step_id="2", summary="Two."),
    ]
    mend = Step(id="fix:1", title="Mend what failed")
    done = await executor.execute(
        mend,
        task="Write both.",
        plan=PLAN,
        caller=farm.caller,
        finished=finished,
        evidence="test_f FAILED " + "x" * 20_000 + " assert 1 == 2",
    )
    text = farm.fake.requests[0].messages[1].content
    assert "- 1 [not finished]: One.\n- 2: Two." in text
    evidence = text.split("## What failed and must be mended\n")[1]
    assert evidence.startswith("test_f FAILED")
    assert evidence.endswith("assert 1 == 2")
    assert len(evidence) <= 6000
    assert done.step_id == "fix:1"


async def test_work_is_kept_where_the_loop_ended_early(farm, executor, tmp_path):
    farm.fake.script = [
        calls("write_file", path="a.py", content="x = 1\n"),
        calls("list_files"),
    ]
    short = ExecutorAgent(
        tools=executor.tools, tool_mode="native", budget=Budget(steps=2)
    )
    done = await short.execute(PLAN.steps[0], task="t", plan=PLAN, caller=farm.caller)
    assert (done.ok, done.written) == (False, ("a.py",))
    assert done.summary == "[Not finished: steps.] Wrote a.py."
    assert (tmp_path / "work" / "a.py").exists()


FENCED = "Here you are.\n\n**pkg/a.py**\n```python\nx = 1\n```\nIt has x."


async def test_fenced_code_is_written_by_the_tool(farm, executor, tmp_path):
    farm.fake.script = [FENCED]
    done = await executor.execute(
        PLAN.steps[0], task="t", plan=PLAN, caller=farm.caller
    )
    assert (tmp_path / "work" / "pkg" / "a.py").read_text() == "x = 1\n"
    assert (done.ok, done.written) == (True, ("pkg/a.py",))
    assert done.summary.startswith("Here you are.")
    assert "```" not in done.summary
    assert [use.tool for use in done.result.tool_calls] == ["write_file"]
    assert [event.data["tool"] for event in farm.events(EventType.AGENT_TOOL_CALL)] == [
        "write_file"
    ]
    [made] = farm.events(EventType.CODE_GENERATED)
    assert (made.data, made.agent) == ({"path": "pkg/a.py"}, "executor")


async def test_a_model_that_knows_no_protocol_still_does_the_step(farm, executor):
    farm.fake.script = FENCED
    weak = ExecutorAgent(tools=executor.tools, tool_mode="json")
    done = await weak.execute(PLAN.steps[0], task="t", plan=PLAN, caller=farm.caller)
    assert done.result.end == "malformed"
    assert (done.ok, done.written) == (True, ("pkg/a.py",))


async def test_prose_alone_is_no_work(farm, executor):
    farm.fake.script = "I would write a.py."
    weak = ExecutorAgent(tools=executor.tools, tool_mode="json")
    done = await weak.execute(PLAN.steps[0], task="t", plan=PLAN, caller=farm.caller)
    assert (done.ok, done.written) == (False, ())


async def test_fenced_code_is_only_shown_where_tools_have_written(
    farm, executor, tmp_path
):
    farm.fake.script = [calls("write_file", path="b.py", content="y = 1\n"), FENCED]
    done = await executor.execute(
        PLAN.steps[0], task="t", plan=PLAN, caller=farm.caller
    )
    assert done.written == ("b.py",)
    assert not (tmp_path / "work" / "pkg").exists()


async def test_fenced_code_without_the_tool_stays_text(farm, tmp_path):
    farm.fake.script = FENCED
    done = await ExecutorAgent().execute(
        PLAN.steps[0], task="t", plan=PLAN, caller=farm.caller
    )
    assert (done.ok, done.written, done.result.tool_calls) == (True, (), ())


def finding(severity="major", message="Wrong.", **more) -> dict:
    return {"severity": severity, "message": message, **more}


async def test_a_review_that_asks_for_changes(farm):
    value = {
        "verdict": "request_changes",
        "summary": "Not yet.",
        "findings": [
            finding("minor", "Slow.", file=None, line=None),
            finding("critical", "Loses data.", file="a.py", line=3),
        ],
    }
    farm.fake.script = json.dumps(value)
    review = await ReviewerAgent().review(
        "Write it.", "diff --git a/a.py b/a.py\n+x", "tests: passed", caller=farm.caller
    )
    assert (review.verdict, review.blocking) == ("request_changes", True)
    assert review.findings == (
        Finding(severity="critical", message="Loses data.", file="a.py", line=3),
        Finding(severity="minor", message="Slow."),
    )
    assert review.evidence(200) == (
        "Not yet.\n- critical in a.py:3: Loses data.\n- minor: Slow."
    )
    assert review.result.agent == "reviewer"
    system, asked = farm.fake.requests[0].messages
    assert system.content.startswith(prompt("reviewer"))
    assert "## Results of the checks\ntests: passed" in asked.content
    assert farm.fake.requests[0].task_type == "code_review"


@pytest.mark.parametrize(
    ("value", "verdict", "count"),
    [
        ({"verdict": "approve", "findings": None, "summary": None}, "approve", 0),
        ({"verdict": "approve", "findings": [finding()]}, "approve", 1),
        ({"verdict": "request_changes", "findings": [finding()]}, "request_changes", 1),
        ({"verdict": "request_changes", "findings": []}, "approve", 0),
        ({"verdict": "request_changes", "findings": [finding("minor")]}, "approve", 1),
        ({"verdict": "request_changes", "findings": [finding(None)]}, "approve", 1),
        (
            {"verdict": "request_changes", "findings": [finding(message=None)]},
            "approve",
            0,
        ),
        (
            {"verdict": "approve", "findings": [None, "bad", finding(line="3")]},
            "approve",
            1,
        ),
        ({"verdict": None, "findings": []}, "none", 0),
        ({"verdict": ["approve"]}, "none", 0),
        ("approve", "none", 0),
        (None, "none", 0),
    ],
)
def test_what_a_review_counts_as(value, verdict, count):
    review = Review.parse(value)
    assert (review.verdict, len(review.findings)) == (verdict, count)
    again = Review.from_dict(json.loads(json.dumps(review.to_dict())))
    assert again.to_dict() == review.to_dict()


def test_a_request_without_a_grave_finding_says_what_it_counts_as():
    review = Review.parse(
        {"verdict": "request_changes", "summary": "Meh.", "findings": []}
    )
    assert review.summary.startswith("Meh. (Changes were requested without")
    assert review.evidence(100) == ""


async def test_no_valid_review_blocks_nothing(farm):
    farm.fake.script = "Looks good to me!"
    review = await ReviewerAgent().review("t", "+a", "", caller=farm.caller)
    assert (review.verdict, review.blocking) == ("none", False)
    assert review.summary == "The reviewer gave no valid review."
    assert review.result.end == "malformed"
    assert len(farm.fake.requests) == 2


async def test_where_nothing_was_changed_nobody_is_asked(farm):
    review = await ReviewerAgent().review("t", "\n", "", caller=farm.caller)
    assert (review.verdict, review.blocking) == ("none", False)
    assert "nothing to review" in review.summary
    assert Review.from_dict(review.to_dict()) == review
    assert farm.fake.requests == []


async def test_a_long_diff_is_shortened_file_by_file(farm):
    farm.fake.script = json.dumps({"verdict": "approve", "findings": []})
    diff = "".join(
        f"diff --git a/{name} b/{name}\n" + "+line\n" * 5000 + f"+end of {name}\n"
        for name in ("a.py", "b.py")
    )
    await ReviewerAgent(diff_tokens=500).review("t", diff, "", caller=farm.caller)
    shown = farm.fake.requests[0].messages[1].content.split("## Diff\n")[1]
    assert len(shown) <= 2000
    assert "+end of a.py" in shown
    assert "+end of b.py" in shown
