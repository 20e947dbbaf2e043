"""Which spans become of which events, and what they say."""

import contextvars
import time

import pytest

from agentfarm.events import Event, EventType
from agentfarm.monitoring import _otlp_spans

REQUEST = {
    "model": "m",
    "provider": "openai",
    "host": "http://127.0.0.1:8080/v1",
    "task_type": "planning",
    "messages": 2,
    "tools": [],
    "sample_id": None,
}


def ask(bus, request_id="q", **more):
    return bus.emit(EventType.LLM_REQUEST, REQUEST, request_id=request_id, **more)


def answer(bus, record, **more):
    return bus.emit(
        EventType.LLM_RESPONSE,
        {"record": record, "text": "The secret is 42."},
        request_id=record.request_id,
        **more,
    )


def fail(bus, record, **more):
    return bus.emit(
        EventType.LLM_ERROR,
        {"record": record, "partial_text": "The secr"},
        request_id=record.request_id,
        **more,
    )


def stage(bus, kind, key, agent, **data):
    bus.emit(kind, {"key": key, "title": "A title", **data}, run_id="r", agent=agent)


def use(bus, call="c", tool="look", agent="executor", *, ok=True, **data):
    """A call of a tool and its result."""
    bus.emit(
        EventType.AGENT_TOOL_CALL,
        {"id": call, "tool": tool, "arguments": {"path": "secret.txt"}},
        run_id="r",
        agent=agent,
    )
    bus.emit(
        EventType.AGENT_TOOL_RESULT,
        {"id": call, "tool": tool, "ok": ok, "text": "the secret", "data": data},
        run_id="r",
        agent=agent,
    )


def start_workflow(bus, run_id="r", resumed=None):
    bus.emit(
        EventType.WORKFLOW_STARTED,
        {"task": "Find the secret.", "workspace": "/secret", "resumed": resumed},
        run_id=run_id,
        agent="workflow",
    )


def end_workflow(bus, kind=EventType.WORKFLOW_COMPLETED, run_id="r", **data):
    bus.emit(kind, {"ok": True, **data}, run_id=run_id, agent="workflow")


def a_whole_workflow(bus, record):
    start_workflow(bus)
    stage(bus, EventType.STEP_STARTED, "plan", "planner")
    ask(bus, "1", run_id="r", agent="planner")
    answer(bus, record("1"), run_id="r", agent="planner")
    stage(bus, EventType.STEP_COMPLETED, "plan", "planner", ok=True)
    stage(bus, EventType.STEP_STARTED, "step:a", "executor")
    ask(bus, "2", run_id="r", agent="executor")
    answer(bus, record("2"), run_id="r", agent="executor")
    use(bus)
    stage(bus, EventType.STEP_COMPLETED, "step:a", "executor", ok=True)
    end_workflow(bus)


def test_a_workflow_is_a_tree_of_agents_requests_and_tools(
    receiver, bus, export, record
):
    exported = export()
    a_whole_workflow(bus, record)
    exported.close()
    assert receiver.tree() == {
        "": ["invoke_workflow plan-execute-verify"],
        "invoke_workflow plan-execute-verify": [
            "invoke_agent planner",
            "invoke_agent executor",
        ],
        "invoke_agent planner": ["chat m"],
        "invoke_agent executor": ["chat m", "execute_tool look"],
    }
    assert len({span.trace_id for span in receiver.spans}) == 1
    assert not any(span.failed for span in receiver.spans)
    kinds = {span.name.partition(" ")[0]: span.kind for span in receiver.spans}
    assert kinds == {
        "invoke_workflow": "internal",
        "invoke_agent": "internal",
        "chat": "client",
        "execute_tool": "internal",
    }
    assert receiver.resource["service.name"] == "agentfarm"
    assert (exported.sent, exported.dropped) == (6, 0)


def test_spans_begin_and_end_when_the_events_happened(receiver, bus, export, record):
    exported = export()
    asked = ask(bus)
    answered = answer(bus, record())
    exported.close()
    span = receiver.one("chat m")
    assert span.started_ns == round(asked.timestamp * 1e9)
    assert span.ended_ns == round(answered.timestamp * 1e9)


def test_a_request_says_what_the_conventions_ask_for(receiver, bus, export, record):
    exported = export()
    ask(bus, run_id="r", agent="planner")
    done = record(
        input_tokens=10,
        output_tokens=5,
        cached_tokens=3,
        finish_reason="stop",
        ttft_s=0.25,
        queue_s=0.5,
        attempts=2,
    )
    answer(bus, done, run_id="r", agent="planner")
    exported.close()
    said = receiver.one("chat m").attributes
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.agent.name": "planner",
        "server.address": "127.0.0.1",
        "server.port": 8080,
        "agentfarm.run.id": "r",
        "agentfarm.request.id": "q",
        "agentfarm.task_type": "planning",
        "agentfarm.attempts": 2,
        "agentfarm.queue_s": 0.5,
        "agentfarm.latency_s": 1.0,
    }


def test_unknown_usage_is_not_reported_and_zero_is(receiver, bus, export, record):
    exported = export()
    answer(bus, record("unknown"))
    answer(bus, record("zero", input_tokens=0, output_tokens=0))
    answer(bus, record("guessed", output_tokens=7, tokens_estimated=True))
    exported.close()
    unknown, zero, guessed = (
        {
            key.removeprefix("gen_ai.").removeprefix("agentfarm."): value
            for key, value in span.attributes.items()
            if "usage" in key
        }
        for span in sorted(
            receiver.spans,
            key=lambda span: ("unknown", "zero", "guessed").index(
                span.attributes["agentfarm.request.id"]
            ),
        )
    )
    assert unknown == {}
    assert zero == {"usage.input_tokens": 0, "usage.output_tokens": 0}
    assert guessed == {"usage.output_tokens": 7, "usage.estimated": True}


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("https://llm.lan/v1", ("llm.lan", 443)),
        ("http://[::1]:9", ("::1", 9)),
        ("embedded:tiny", None),
        ("embedded", None),
        ("http://h:99999999", None),
    ],
)
def test_the_server_is_named_where_it_is_one(
    receiver, bus, export, record, host, server
):
    exported = export()
    answer(bus, record(host=host))
    exported.close()
    said = receiver.one("chat m").attributes
    found = (said.get("server.address"), said.get("server.port"))
    assert found == (server or (None, None))


def test_what_fails_has_an_error_and_its_kind(receiver, bus, export, record):
    exported = export()
    start_workflow(bus)
    stage(bus, EventType.STEP_STARTED, "plan", "planner")
    ask(bus, run_id="r", agent="planner")
    broken = record(status="error", error_type="ProviderTimeout", error="the secret")
    fail(bus, broken, run_id="r", agent="planner")
    stage(bus, EventType.STEP_FAILED, "plan", "planner", error="the secret")
    end_workflow(bus, EventType.WORKFLOW_FAILED, ok=False, error="the secret")
    exported.close()
    kinds = {span.name: span.attributes["error.type"] for span in receiver.spans}
    assert kinds == {
        "chat m": "ProviderTimeout",
        "invoke_agent planner": "failed",
        "invoke_workflow plan-execute-verify": "failed",
    }
    assert all(span.failed and not span.message for span in receiver.spans)
    assert "gen_ai.response.model" not in receiver.one("chat m").attributes


def test_a_request_whose_consumer_left_is_cancelled(receiver, bus, export, record):
    exported = export()
    ask(bus)
    fail(bus, record(status="cancelled"))
    exported.close()
    span = receiver.one("chat m")
    assert span.failed
    assert span.attributes["error.type"] == "cancelled"


def test_a_retry_is_an_event_of_its_request(receiver, bus, export, record):
    exported = export()
    ask(bus)
    bus.emit(
        EventType.LLM_RETRY,
        {
            "attempt": 2,
            "error": "the secret",
            "error_type": "RateLimited",
            "wait_s": 0.5,
        },
        request_id="q",
    )
    answer(bus, record())
    exported.close()
    retried = {
        "error.type": "RateLimited",
        "agentfarm.attempt": 2,
        "agentfarm.wait_s": 0.5,
    }
    assert receiver.one("chat m").events == [("agentfarm.retry", retried)]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"error": "repeated"}, "repeated"),
        ({}, "_OTHER"),
        ({"error": "a\nb"}, "_OTHER"),
    ],
)
def test_a_tool_that_fails_has_its_code(receiver, bus, export, data, kind):
    exported = export()
    use(bus, ok=False, **data)
    exported.close()
    span = receiver.one("execute_tool look")
    assert span.failed
    assert span.attributes["error.type"] == kind
    assert span.attributes["gen_ai.tool.name"] == "look"
    assert span.attributes["gen_ai.tool.type"] == "function"
    assert span.attributes["gen_ai.tool.call.id"] == "c"


def written(receiver):
    """Everything that came, as one text."""
    return "".join(str(body) for body in receiver.bodies)


def a_workflow_with_secrets(bus, record):
    start_workflow(bus)
    stage(bus, EventType.STEP_STARTED, "step:secret", "executor", title="The secret")
    ask(bus, run_id="r", agent="executor")
    answer(bus, record(error="the secret"), run_id="r", agent="executor")
    use(bus, tool="tell the secret")
    stage(bus, EventType.STEP_FAILED, "step:secret", "executor", error="the secret")
    end_workflow(bus, summary="the secret", error="the secret")


def test_what_people_and_models_wrote_stays_here(receiver, bus, export, record):
    exported = export()
    a_workflow_with_secrets(bus, record)
    exported.close()
    assert len(receiver.spans) == 4
    assert "secret" not in written(receiver)
    assert receiver.one("invoke_agent executor").attributes["agentfarm.stage"] == "step"
    assert receiver.one("execute_tool _OTHER")


def test_it_is_sent_where_a_setting_allows(receiver, bus, export, record):
    exported = export(content=True)
    a_workflow_with_secrets(bus, record)
    use(bus)
    exported.close()
    chat, tool = receiver.one("chat m"), receiver.one("execute_tool look")
    assert "The secret is 42." in chat.attributes["gen_ai.output.messages"]
    assert tool.attributes["gen_ai.tool.call.result"] == "the secret"
    assert "secret.txt" in tool.attributes["gen_ai.tool.call.arguments"]
    agent = receiver.one("invoke_agent executor")
    assert agent.attributes["agentfarm.stage"] == "step:secret"
    assert agent.message == "the secret"


def test_long_texts_are_cut(receiver, bus, export, record):
    exported = export(content=True)
    data = {"record": record(), "text": "x" * 100_000}
    bus.emit(EventType.LLM_RESPONSE, data, request_id="q")
    exported.close()
    sent = receiver.one("chat m").attributes["gen_ai.output.messages"]
    assert 16_000 < len(sent) < 17_000


def test_a_resumed_workflow_joins_its_trace(receiver, bus, export):
    exported = export()
    start_workflow(bus)
    stage(bus, EventType.STEP_STARTED, "plan", "planner")
    bus.emit(EventType.INTERRUPT, {"resume": "r"}, run_id="r", agent="workflow")
    exported.close()
    again = export()
    start_workflow(bus, resumed="r")
    # Finished before: it is no work of this attempt.
    stage(bus, EventType.STEP_COMPLETED, "plan", "planner", resumed=True)
    end_workflow(bus)
    again.close()
    interrupted, agent, resumed = receiver.spans
    assert interrupted.trace_id == resumed.trace_id
    assert interrupted.attributes["error.type"] == "interrupted"
    assert agent.parent_id == interrupted.span_id
    assert agent.attributes["error.type"] == "interrupted"
    assert resumed.attributes["agentfarm.workflow.resumed"] is True
    assert not resumed.failed


def test_other_runs_and_requests_without_one_have_other_traces(
    receiver, bus, export, record
):
    exported = export()
    for run_id in ("a", "b"):
        start_workflow(bus, run_id)
        end_workflow(bus, run_id=run_id)
    for request_id in ("1", "2"):
        ask(bus, request_id)
        answer(bus, record(request_id))
    exported.close()
    assert len({span.trace_id for span in receiver.spans}) == 4
    assert all(span.parent_id == "" for span in receiver.spans)


def test_an_evaluation_holds_its_requests_and_is_linked_with_workflows(
    receiver, bus, export, record
):
    exported = export()
    data = {"suite": "smoke", "model": "m", "planned_samples": 2}
    bus.emit(EventType.RUN_STARTED, data, run_id="e")
    bus.emit(
        EventType.LLM_REQUEST,
        {**REQUEST, "sample_id": "s"},
        request_id="q",
        run_id="e",
    )
    answer(bus, record(sample_id="s"), run_id="e")
    start_workflow(bus)
    end_workflow(bus)
    bus.emit(
        EventType.RUN_COMPLETED,
        {
            "status": "failed",
            "error": "EvalError: the secret",
            "finished_samples": 1,
            **data,
        },
        run_id="e",
    )
    exported.close()
    root = receiver.one("evaluate smoke")
    assert root.attributes["agentfarm.run.finished_samples"] == 1
    assert root.attributes["error.type"] == "EvalError"
    chat = receiver.one("chat m")
    assert chat.parent_id == root.span_id
    assert chat.attributes["agentfarm.sample.id"] == "s"
    workflow = receiver.one("invoke_workflow plan-execute-verify")
    assert workflow.links == [root.span_id]
    assert workflow.trace_id != root.trace_id


def test_a_request_of_another_run_is_no_child_of_the_one_around_it(
    receiver, bus, export, record
):
    exported = export()
    start_workflow(bus)
    for request_id, run_id in (("1", "other"), ("2", None), ("3", "r")):
        ask(bus, request_id, run_id=run_id)
        answer(bus, record(request_id), run_id=run_id)
    end_workflow(bus)
    exported.close()
    root = receiver.one("invoke_workflow plan-execute-verify").span_id
    parents = [span.parent_id for span in receiver.spans if span.name == "chat m"]
    assert parents == ["", root, root]


def test_from_another_context_the_parent_is_found_by_agent_then_run(
    receiver, bus, export, record
):
    exported = export()

    def elsewhere(*args, **more):
        contextvars.Context().run(*args, **more)

    elsewhere(start_workflow, bus)
    elsewhere(stage, bus, EventType.STEP_STARTED, "plan", "planner")
    elsewhere(ask, bus, "1", run_id="r", agent="planner")
    elsewhere(ask, bus, "2", run_id="r", agent="stranger")
    elsewhere(ask, bus, "3", run_id="other", agent="planner")
    for request_id in ("1", "2", "3"):
        elsewhere(answer, bus, record(request_id))
    elsewhere(stage, bus, EventType.STEP_COMPLETED, "plan", "planner")
    elsewhere(end_workflow, bus)
    exported.close()
    assert receiver.tree() == {
        "": ["invoke_workflow plan-execute-verify", "chat m"],
        "invoke_workflow plan-execute-verify": ["invoke_agent planner", "chat m"],
        "invoke_agent planner": ["chat m"],
    }


def test_what_never_ended_is_sent_as_abandoned_at_closing(
    receiver, bus, export, record
):
    exported = export()
    start_workflow(bus)
    stage(bus, EventType.STEP_STARTED, "plan", "planner")
    ask(bus, run_id="r", agent="planner")
    exported.close()
    assert len(receiver.spans) == 3
    assert all(s.attributes["error.type"] == "abandoned" for s in receiver.spans)
    # The bus goes on without it.
    answer(bus, record())
    assert len(receiver.spans) == 3


def test_requests_that_never_end_do_not_fill_the_memory(receiver, bus, export):
    exported = export()
    builder = exported._builder
    most = _otlp_spans._MOST_OPEN
    start_workflow(bus)
    for number in range(most + 50):
        ask(bus, str(number), run_id="r")
    assert builder.open == most
    assert len(builder._index) == most
    end_workflow(bus)
    assert builder.open == most - 1


def test_a_clock_that_is_set_back_makes_no_span_of_negative_length(
    receiver, bus, export, record
):
    exported = export()
    ask(bus)
    bus.publish(
        Event(
            type=EventType.LLM_RESPONSE,
            data={"record": record(), "text": ""},
            request_id="q",
            timestamp=time.time() - 3600,
        )
    )
    exported.close()
    span = receiver.one("chat m")
    assert span.ended_ns == span.started_ns


def test_an_event_of_another_make_breaks_nothing(receiver, bus, export):
    exported = export()
    for kind in EventType:
        bus.emit(kind)
        bus.emit(kind, {"record": None, "data": None, "id": 1}, run_id="r")
    (subscription,) = bus.metrics().subscriptions
    assert (subscription.name, subscription.failed) == ("otlp", 0)
    exported.close()
    assert bus.metrics().subscriptions == ()
    assert exported.dropped == 0
