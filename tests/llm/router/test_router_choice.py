"""Which model the router asks, and how many at once."""

import asyncio

import anyio
import pytest

from agentfarm.errors import (
    ModelNotFound,
    ProviderError,
)
from agentfarm.events import EventType
from agentfarm.llm import (
    ChatRequest,
    RegisteredModel,
    ToolSpec,
    user,
)
from agentfarm.llm._hosts import HostGate
from agentfarm.llm.testing import Answer, FakeProvider

TOOL = ToolSpec(name="add", description="Adds", parameters={"type": "object"})


def ask(model="m", text="Say hello", **fields):
    return ChatRequest(messages=(user(text),), model=model, **fields)


def fakes(*scripts):
    return [
        FakeProvider(script, host=f"http://127.0.0.1:{port}/fake")
        for port, script in enumerate(scripts, start=1)
    ]


async def test_an_unknown_name_lists_the_known_and_a_near_one(make):
    router = make(
        RegisteredModel(name="qwen3", provider=FakeProvider()),
        RegisteredModel(name="llama", provider=FakeProvider()),
    )
    with pytest.raises(ModelNotFound) as caught:
        await router.complete(ask("qwen-3"))
    text = str(caught.value)
    assert "'qwen-3'" in text
    assert "Did you mean 'qwen3'? Known are llama, qwen3." in text


async def test_a_router_without_models_says_how_to_register_one(make):
    with pytest.raises(ModelNotFound, match="agentfarm models add"):
        await make().complete(ask(None))


async def test_the_server_gets_its_own_name_and_the_registered_context(make):
    fake = FakeProvider()
    router = make(
        RegisteredModel(name="m", provider=fake, model="org/m:7b", context_length=8192)
    )
    await router.complete(ask())
    await router.complete(ask(context_length=1024))
    assert [r.model for r in fake.requests] == ["org/m:7b"] * 2
    assert [r.context_length for r in fake.requests] == [8192, 1024]


async def test_a_task_type_goes_to_a_model_that_lists_it_then_to_a_general_one(make):
    math, general, code = fakes("math", "general", "code")
    router = make(
        RegisteredModel(name="math", provider=math, task_types=frozenset({"math"})),
        RegisteredModel(name="general", provider=general),
        RegisteredModel(
            name="code", provider=code, task_types=frozenset({"code_generation"})
        ),
    )

    async def answer(task_type):
        response = await router.complete(ask(None, task_type=task_type))
        return response.text

    assert await answer("code_generation") == "code"
    assert await answer("math") == "math"
    assert await answer("translation") == "general"


async def test_a_declared_lack_of_a_capability_weighs_more_than_the_task(make):
    plain, able = fakes("plain", "able")
    router = make(
        RegisteredModel(
            name="plain",
            provider=plain,
            task_types=frozenset({"planning"}),
            capabilities=frozenset({"vision"}),
        ),
        RegisteredModel(
            name="able", provider=able, capabilities=frozenset({"tools", "json_schema"})
        ),
    )
    for needed in ({"tools": (TOOL,)}, {"response_schema": {"type": "object"}}):
        request = ask(None, task_type="planning", **needed)
        assert (await router.complete(request)).text == "able"
    unneeded = ask(None, task_type="planning", tools=(TOOL,), tool_choice="none")
    assert (await router.complete(unneeded)).text == "plain"


async def test_a_missing_capability_is_no_refusal_but_named_in_the_error(make):
    fake = FakeProvider(["fine", ProviderError("bad request", status_code=400)])
    router = make(
        RegisteredModel(name="m", provider=fake, capabilities=frozenset({"vision"}))
    )
    assert (await router.complete(ask(tools=(TOOL,)))).text == "fine"
    with pytest.raises(ProviderError, match="No model that was asked declares tools"):
        await router.complete(ask(tools=(TOOL,)))


async def test_a_lower_preference_is_asked_only_when_the_choice_is_free_and_fails(
    make,
):
    small, big = fakes("small", ["big", ProviderError("broken", status_code=400)])
    router = make(
        RegisteredModel(name="small", provider=small, preference=-1),
        RegisteredModel(name="big", provider=big),
    )
    assert (await router.complete(ask(None))).text == "big"
    assert (await router.complete(ask("small"))).text == "small"
    assert (await router.complete(ask(None))).text == "small"


async def test_the_least_loaded_host_answers_then_the_first_registered(make):
    hold = anyio.Event()
    first, second = fakes(Answer("first", hold=hold), Answer("second", hold=hold))
    router = make(
        RegisteredModel(name="m", provider=first, max_concurrency=4),
        RegisteredModel(name="m", provider=second, max_concurrency=2),
    )
    async with anyio.create_task_group() as tasks:
        for count in range(1, 7):
            tasks.start_soon(router.complete, ask())
            with anyio.fail_after(5):
                while first.active + second.active < count:
                    await anyio.lowlevel.checkpoint()
            if count == 3:
                assert (first.active, second.active) == (2, 1)
        assert (first.active, second.active) == (4, 2)
        hold.set()


async def test_among_idle_hosts_the_lowest_recent_latency_wins(make):
    slow, quick = fakes(Answer("slow", first_delay_s=0.03), "quick")
    router = make(slow, quick)
    texts = [(await router.complete(ask())).text for _ in range(4)]
    # An unmeasured host goes first, so each is measured once.
    assert texts == ["slow", "quick", "quick", "quick"]


async def test_the_limit_holds_per_host_over_its_models_and_is_first_come(make):
    hold = anyio.Event()
    fake = FakeProvider(lambda request: Answer(request.messages[0].content, hold=hold))
    router = make(
        RegisteredModel(name="a", provider=fake, max_concurrency=3),
        RegisteredModel(name="b", provider=fake, max_concurrency=2),
    )
    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(router.complete, ask("ab"[number % 2], str(number)))
            await anyio.wait_all_tasks_blocked()
        assert fake.active == 2
        [row, _] = router.status().models
        assert (row.active, row.waiting, row.limit) == (2, 4, 2)
        hold.set()
    assert fake.max_active == 2
    assert [r.messages[0].content for r in fake.requests] == list("012345")


async def test_the_wait_in_the_queue_is_measured_apart(make, bus):
    router = make(
        RegisteredModel(
            name="m",
            provider=FakeProvider(Answer("x", first_delay_s=0.05)),
            max_concurrency=1,
        ),
        clock=asyncio.get_running_loop().time,
    )
    responses = []

    async def one():
        responses.append(await router.complete(ask()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
    queued = [response.timing.queue_s for response in responses]
    assert queued[0] < 0.01
    assert 0.04 < queued[1] < 0.5
    records = [e.data["record"] for e in bus.history(EventType.LLM_RESPONSE)]
    assert [record.queue_s for record in records] == queued
    assert all(record.ttft_s < 0.5 for record in records)


async def test_a_waiting_request_that_is_cancelled_frees_its_turn(make):
    hold = anyio.Event()
    fake = FakeProvider(Answer("x", hold=hold))
    router = make(RegisteredModel(name="m", provider=fake, max_concurrency=1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.complete, ask(text="first"))
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0.02):
            await router.complete(ask(text="gone"))
        tasks.start_soon(router.complete, ask(text="last"))
        await anyio.wait_all_tasks_blocked()
        hold.set()
    assert [r.messages[0].content for r in fake.requests] == ["first", "last"]
    [row] = router.status().models
    assert (row.active, row.waiting) == (0, 0)


async def test_a_place_handed_to_a_request_as_it_is_cancelled_is_not_lost():
    gate = HostGate(1)
    await gate.enter()
    waiter = asyncio.get_running_loop().create_task(gate.enter())
    await anyio.wait_all_tasks_blocked()
    gate.leave()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert (gate.active, gate.waiting) == (0, 0)
