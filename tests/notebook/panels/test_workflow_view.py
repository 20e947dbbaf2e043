"""The picture of a workflow: what it shows after which events, and never as markup."""

import pytest

from agentfarm.events import Event, EventType, RequestRecord
from agentfarm.notebook.panels import _workflow_html as html
from agentfarm.notebook.panels._workflow_view import (
    ENDED_STREAMS,
    STREAM_CHARS,
    WorkflowView,
)

HOSTILE = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture
def view():
    return WorkflowView(task="Write it.", status="running")


@pytest.fixture
def tell(view):
    """Let the view take an event."""

    def tell(kind, agent="executor", request=None, **data):
        view.take(
            Event(
                type=EventType(kind),
                data=data,
                run_id="r",
                agent=agent,
                request_id=request,
            )
        )

    return tell


def record(agent, request="q", **fields):
    given = {"input_tokens": 10, "output_tokens": 5, "output_tokens_per_s": 20.0}
    return RequestRecord(
        request_id=request,
        model="m",
        provider="fake",
        host="h",
        started_at=0.0,
        status="ok",
        latency_s=1.0,
        agent=agent,
        **given | fields,
    )


def phases(view):
    return [view.phase_state(name) for name in ("plan", "ux", "step", "verify")]


def test_phases_follow_the_stages(view, tell):
    assert phases(view) == ["waiting"] * 4
    tell("step_started", key="plan", title="Plan")
    assert phases(view) == ["running", "waiting", "waiting", "waiting"]
    tell("step_completed", key="plan", title="Plan", ok=True, duration_s=1, tokens=7)
    tell("step_started", key="step:a", title="A")
    # Nobody designs once the work has begun.
    assert phases(view) == ["done", "skipped", "running", "waiting"]
    tell("step_completed", key="step:a", title="A", ok=False, duration_s=1, tokens=7)
    tell("step_started", key="verify:1", title="Verify")
    tell("step_failed", key="verify:1", title="Verify", error="No sandbox.")
    assert phases(view) == ["done", "skipped", "failed", "failed"]
    tell("step_started", key="fix:1", title="Mend")
    assert phases(view)[2] == "running"


def test_a_stage_that_was_finished_before_says_so(view, tell):
    tell("step_completed", key="plan", title="Plan", resumed=True)
    assert phases(view)[0] == "done"
    assert "Plan (finished before)" in html.steps(view)


def test_the_end_stands_in_the_picture(view, tell):
    tell("step_started", key="plan", title="Plan")
    tell("workflow_failed", ok=False, error="The server is gone.", duration_s=2.5)
    assert (view.status, view.elapsed_s) == ("failed", 2.5)
    assert phases(view)[0] == "waiting"
    assert "The server is gone." in html.outcome(view)


def test_a_stream_has_a_cursor_until_it_ends(view, tell):
    tell("llm_request", request="q", model="qwen")
    tell("llm_stream_chunk", request="q", text="", reasoning="Hm. ")
    tell("llm_stream_chunk", request="q", text="def f():", reasoning="")
    shown = html.streams(view)
    assert "▌" in shown
    assert "def f():" in shown
    assert "Hm. " in shown
    assert "qwen" in shown
    tell("llm_response", request="q", record=record("executor"), text="def f():")
    assert "▌" not in html.streams(view)
    assert "def f():" in html.streams(view)


def test_long_streams_and_old_ones_make_room(view, tell):
    for number in range(ENDED_STREAMS + 3):
        tell("llm_request", request=f"q{number}")
        tell("llm_stream_chunk", request=f"q{number}", text="x" * 2 * STREAM_CHARS)
        tell("llm_response", request=f"q{number}", record=record("executor"))
    assert list(view.streams) == ["q3", "q4"]
    assert len(view.streams["q4"].text) == STREAM_CHARS


def test_tokens_are_counted_for_each_agent(view, tell):
    tell("llm_response", record=record("planner"))
    tell("llm_response", record=record("executor"))
    tell("llm_error", record=record("executor", output_tokens=None))
    planner, executor = view.tokens["planner"], view.tokens["executor"]
    assert (planner.requests, planner.input_tokens, planner.output_tokens) == (1, 10, 5)
    assert (executor.requests, executor.input_tokens) == (2, 20)
    assert executor.estimated
    assert not planner.estimated
    assert "≈20" in html.tokens(view)
    assert ">10<" in html.tokens(view)


def test_calls_of_tools_show_how_they_ended(view, tell):
    tell("agent_tool_call", id="1", tool="write_file", arguments={"path": "a.py"})
    assert "◐" in html.calls(view)
    tell("agent_tool_result", id="1", tool="write_file", ok=False, text="Refused.")
    assert "✗" in html.calls(view)
    assert "Refused." in html.calls(view)
    assert "path=&#x27;a.py&#x27;" in html.calls(view)
    # The next step's calls are numbered anew.
    tell("agent_tool_call", id="1", tool="write_file", arguments={"path": "b.py"})
    tell("agent_tool_result", id="1", tool="write_file", ok=True, text="Created.")
    assert [call.ok for call in view.calls] == [False, True]
    tell("code_generated", path="c.py")
    assert "c.py" in html.calls(view)


def test_checks_are_shown_with_what_they_found(view, tell):
    check = {"name": "tests", "status": "failed", "detail": "1 failed"}
    tell("verification", agent="verifier", checks=[check])
    assert "✗ tests failed" in html.outcome(view)
    assert 'title="1 failed"' in html.outcome(view)


def test_nothing_that_a_model_wrote_is_markup(view, tell):
    tell("workflow_started", task=HOSTILE)
    tell("llm_request", request="q", model=HOSTILE, agent=HOSTILE)
    tell("llm_stream_chunk", request="q", text=HOSTILE, reasoning=HOSTILE)
    tell("step_started", key="step:a", title=HOSTILE, agent=HOSTILE)
    tell("agent_tool_call", id="1", tool=HOSTILE, arguments={HOSTILE: HOSTILE})
    tell("agent_tool_result", id="1", tool=HOSTILE, ok=True, text=HOSTILE)
    tell("agent_message", text=HOSTILE, notice="repair")
    tell("llm_retry", error=HOSTILE, wait_s=1.0)
    tell("code_generated", path=HOSTILE)
    tell("llm_response", record=record(HOSTILE))
    tell("verification", checks=[dict.fromkeys(("name", "status", "detail"), HOSTILE)])
    tell("workflow_failed", error=HOSTILE)
    parts = (html.head, html.steps, html.streams, html.calls, html.tokens, html.outcome)
    shown = "".join(part(view) for part in parts)
    assert shown.count("&lt;img src=x onerror=alert(1)&gt;&amp;") > 10
    assert "<img" not in shown


def test_before_the_start_it_says_what_to_do():
    view = WorkflowView()
    assert "Write a task" in html.head(view)
    assert html.steps(view) == html.streams(view) == html.tokens(view) == ""
