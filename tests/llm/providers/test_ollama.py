"""Ollama's wire format: what goes out, and every shape of what comes back."""

import json
from contextlib import aclosing
from dataclasses import replace

import pytest

from agentfarm.errors import ContextOverflow, ProviderError
from agentfarm.llm._messages import (
    ChatRequest,
    Message,
    ModelInfo,
    ToolCall,
    ToolSpec,
    user,
)
from agentfarm.llm.providers import OllamaProvider
from agentfarm.llm.testing import Fault, Reply

TOOL = ToolSpec(name="add", description="Adds.", parameters={"type": "object"})
DONE = {"model": "qwen:latest", "done": True, "done_reason": "stop"}


def part(**message) -> dict:
    return {
        "model": "qwen",
        "message": {"role": "assistant", **message},
        "done": False,
    }


@pytest.fixture
async def provider(wire):
    wire.content_type = "application/x-ndjson"
    provider = OllamaProvider(wire.url)
    yield provider
    await provider.aclose()


@pytest.fixture
async def stubbed(stub):
    provider = OllamaProvider(stub.url)
    yield provider
    await provider.aclose()


@pytest.fixture
def send(wire):
    """Stream these objects, a line each."""

    def send(*lines: object) -> None:
        wire.pieces = [json.dumps(line).encode() + b"\n" for line in lines]

    return send


# What goes out.


async def test_every_field_of_a_request_reaches_the_server(wire, hear, provider, send):
    send(DONE)
    call = ToolCall(id="c1", name="add", arguments={"a": 1}, raw_arguments='{"a":1}')
    broken = ToolCall(id="c2", name="add", arguments=None, raw_arguments="{oops")
    request = ChatRequest(
        model="qwen",
        messages=(
            user("Hi"),
            Message(role="assistant", reasoning="hm", tool_calls=(call, broken)),
            Message(role="tool", content="2", tool_call_id="c1", name="add"),
        ),
        tools=(TOOL,),
        response_schema={"type": "object"},
        temperature=0.0,
        top_p=0.9,
        seed=7,
        stop=("END",),
        max_tokens=5,
        context_length=8192,
        extra={"min_p": 0.1, "think": True, "keep_alive": "10m"},
    )
    await hear(provider, request)
    assert wire.paths == ["/api/chat"]
    assert wire.bodies[0] == {
        "model": "qwen",
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": "",
                "thinking": "hm",
                "tool_calls": [
                    {
                        "id": "c1",
                        "function": {"index": 0, "name": "add", "arguments": {"a": 1}},
                    },
                    {
                        "id": "c2",
                        "function": {
                            "index": 1,
                            "name": "add",
                            "arguments": {"invalid": "{oops"},
                        },
                    },
                ],
            },
            {
                "role": "tool",
                "content": "2",
                "tool_name": "add",
                "tool_call_id": "c1",
            },
        ],
        "stream": True,
        "truncate": False,
        "options": {
            "num_ctx": 8192,
            "temperature": 0.0,
            "top_p": 0.9,
            "seed": 7,
            "stop": ["END"],
            "num_predict": 5,
            "min_p": 0.1,
        },
        "think": True,
        "keep_alive": "10m",
        "format": {"type": "object"},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "add",
                    "description": "Adds.",
                    "parameters": {"type": "object"},
                },
            }
        ],
    }


async def test_tool_choice_that_ollama_does_not_know(wire, hear, provider, send, ask):
    send(DONE)
    never = replace(ask, tools=(TOOL,), tool_choice="none")
    assert (await hear(provider, never)).response.warnings == ()
    assert "tools" not in wire.bodies[0]
    must = replace(ask, tools=(TOOL,), tool_choice="required")
    assert "tool_choice" in (await hear(provider, must)).response.warnings[0]


@pytest.mark.parametrize("path", ["", "/", "/api", "/v1"])
def test_urls_with_and_without_path(path):
    assert OllamaProvider(f"http://10.0.0.5:11434{path}").host == (
        "http://10.0.0.5:11434"
    )


# What comes back.


async def test_a_whole_stream(hear, provider, send, ask, wire):
    send(
        part(content="", thinking="Hm."),
        part(content="Hel"),
        part(content="lo"),
        DONE
        | {
            "message": {"role": "assistant", "content": ""},
            "total_duration": 3_000_000_000,
            "load_duration": 1_500_000_000,
            "prompt_eval_count": 26,
            "prompt_eval_duration": 500_000_000,
            "eval_count": 40,
            "eval_duration": 800_000_000,
        },
    )
    heard = await hear(provider, ask)
    response = heard.response
    assert [chunk.text for chunk in heard.chunks] == ["", "Hel", "lo"]
    assert heard.reasoning == response.message.reasoning == "Hm."
    assert response.text == "Hello"
    assert response.model == "qwen:latest"
    assert (response.provider, response.host) == ("ollama", wire.url)
    assert response.finish_reason == "stop"
    assert response.usage.input_tokens == 26
    assert response.usage.output_tokens == 40
    assert response.server.load_s == response.timing.load_s == 1.5
    assert response.server.prompt_s == 0.5
    assert response.server.output_s == 0.8
    assert response.server.total_s == 3.0
    assert response.server.output_tokens_per_s == pytest.approx(50.0)


async def test_load_time_is_kept_apart_from_first_token_time(
    wire, hear, provider, send, ask
):
    wire.gap_s = 0.3
    send(
        DONE
        | {
            "message": {"role": "assistant", "content": "x"},
            "load_duration": 200_000_000,
        }
    )
    timing = (await hear(provider, ask)).response.timing
    assert timing.ttft_s >= 0.3
    assert timing.ttft_excl_load_s == pytest.approx(timing.ttft_s - 0.2)


async def test_what_is_left_out_is_unknown_and_not_zero(hear, provider, send, ask):
    send(part(content="cached"), DONE)
    response = (await hear(provider, ask)).response
    assert response.usage.input_tokens is None
    assert response.usage.output_tokens is None
    assert response.server.load_s is None
    assert response.server.output_tokens_per_s is None
    assert response.timing.load_s is None


async def test_tool_calls_are_objects_in_any_number_of_lines(hear, provider, send, ask):
    def call(index=0, **function):
        return {"function": {"index": index, **function}}

    send(
        part(
            content="",
            tool_calls=[
                {"id": "a"} | call(name="f", arguments={"x": [1, "zwölf"]}),
                call(1, name="g", arguments={}),
            ],
        ),
        part(content="", tool_calls=[call(name="h", arguments='{"as": "text"}')]),
        DONE,
    )
    response = (await hear(provider, ask)).response
    assert [
        (call.id, call.name, call.arguments) for call in response.message.tool_calls
    ] == [
        ("a", "f", {"x": [1, "zwölf"]}),
        ("call_1", "g", {}),
        ("call_2", "h", {"as": "text"}),
    ]
    assert response.finish_reason == "tool_calls"
    assert response.timing.ttft_s is not None


async def test_bytes_may_be_cut_anywhere(wire, hear, provider, ask):
    lines = [part(content="zwölf 🎉"), part(content=" \n "), DONE]
    whole = b"\n".join(json.dumps(line, ensure_ascii=False).encode() for line in lines)
    wire.pieces = [whole[at : at + 1] for at in range(len(whole))]
    assert (await hear(provider, ask)).response.text == "zwölf 🎉 \n "


async def test_an_answer_in_one_piece(wire, hear, provider, ask):
    wire.page("/api/chat", DONE | {"message": {"content": "whole"}, "eval_count": 3})
    response = (await hear(provider, ask)).response
    assert response.text == "whole"
    assert response.usage.output_tokens == 3


async def test_an_error_line_after_the_status_carries_the_partial_text(
    hear, provider, send, ask
):
    send(part(content="so far"), {"error": "an error was encountered: EOF"})
    with pytest.raises(ProviderError, match="EOF") as caught:
        await hear(provider, ask)
    assert caught.value.partial_text == "so far"
    assert caught.value.retryable


async def test_half_a_line_at_the_end_is_a_cut_and_not_malformed(
    wire, hear, provider, send, ask
):
    send(part(content="part"))
    wire.pieces.append(b'{"model":"qw')
    with pytest.raises(ProviderError, match="cut the answer off") as caught:
        await hear(provider, ask)
    assert caught.value.partial_text == "part"


async def test_a_refusal_to_truncate_is_an_overflow(wire, hear, provider, ask):
    wire.page("/api/chat", {"error": "prompt too long; exceeded max context"}, 400)
    with pytest.raises(ContextOverflow):
        await hear(provider, ask)


async def test_a_model_without_tools_says_so(wire, hear, provider, ask):
    wire.page("/api/chat", {"error": "qwen does not support tools"}, 400)
    with pytest.raises(ProviderError, match="does not support tools") as caught:
        await hear(provider, ask)
    assert not caught.value.retryable


# Silent truncation.

WORDS = "word " * 4000  # 20,000 bytes: about 5,000 tokens by the estimate


@pytest.mark.parametrize(
    ("num_ctx", "counted", "cut"),
    [
        pytest.param(4096, 2050, True, id="num_ctx/2 + 2"),
        pytest.param(4096, 2051, True, id="one beside it"),
        pytest.param(None, 2050, True, id="a usual default"),
        pytest.param(4096, 3000, False, id="fits, words are short"),
        pytest.param(2000, 1990, True, id="far below the estimate"),
        pytest.param(8192, 4098, False, id="num_ctx/2 + 2, and true"),
        pytest.param(None, 900, False, id="a cached prefix, num_ctx unknown"),
        pytest.param(8192, 12, False, id="a cached prefix that fits"),
        pytest.param(4096, None, False, id="not counted"),
    ],
)
async def test_silent_truncation(hear, provider, send, num_ctx, counted, cut):
    send(part(content="x"), DONE | {"prompt_eval_count": counted})
    request = ChatRequest(model="qwen", messages=(user(WORDS),), context_length=num_ctx)
    response = (await hear(provider, request)).response
    assert response.context_truncated is cut
    assert len(response.warnings) == cut
    if cut:
        assert f"kept {counted} of about 5000" in response.warnings[0]


async def test_thinking_that_a_template_leaves_out_is_not_taken_for_cut(
    hear, provider, send
):
    send(part(content="x"), DONE | {"prompt_eval_count": 40})
    past = Message(role="assistant", content="Blue.", reasoning=WORDS)
    turns = (user("A colour?"), past, user("Another?"))
    request = ChatRequest(model="qwen", messages=turns, context_length=4096)
    assert not (await hear(provider, request)).response.context_truncated


async def test_a_short_prompt_is_not_taken_for_a_cut_one(hear, provider, send, ask):
    send(part(content="x"), DONE | {"prompt_eval_count": 2050})
    assert not (await hear(provider, ask)).response.context_truncated


# Models, health, pull.


async def test_models_join_tags_show_and_ps(wire, provider):
    details = {"parameter_size": "1.5B", "family": ""}
    wire.page(
        "/api/tags",
        {
            "models": [
                {"name": "warm", "size": 1000, "details": details},
                {"name": "cold", "size": 2000, "capabilities": ["completion"]},
            ]
        },
    )
    wire.page(
        "/api/ps",
        {"models": [{"name": "warm", "context_length": 4096, "size_vram": 900}]},
    )
    wire.page(
        "/api/show",
        {
            "capabilities": ["completion", "tools", "thinking"],
            "model_info": {"general.architecture": "q", "q.context_length": 32768},
        },
    )
    warm, cold = await provider.models()
    assert (warm.name, warm.loaded, warm.size_bytes) == ("warm", True, 1000)
    assert warm.context_length == 32768
    assert warm.capabilities == {"json_schema", "tools", "thinking"}
    assert warm.details["loaded_context_length"] == 4096
    assert warm.details["vram_bytes"] == 900
    assert warm.details["parameter_size"] == "1.5B"
    assert "family" not in warm.details
    assert (cold.name, cold.loaded) == ("cold", False)
    assert wire.bodies.count({"model": "cold"}) == 1


async def test_a_model_that_cannot_be_shown_is_still_listed(wire, provider):
    wire.page("/api/tags", {"models": [{"name": "gone"}]})
    wire.page("/api/ps", {"models": None})
    wire.page("/api/show", {"error": "model 'gone' not found"}, 404)
    (model,) = await provider.models()
    assert model.context_length is None
    assert model.loaded is False


async def test_health(stub, stubbed):
    health = await stubbed.health()
    assert health.ok
    assert "Ollama 0.0.0-stub" in health.detail
    stub.ready = False
    assert not (await stubbed.health()).ok


async def test_an_unknown_model_says_how_to_get_it(stub, hear, stubbed, ask):
    stub.models = [ModelInfo(name="qwen"), ModelInfo(name="llama")]
    stub.queue.append(Reply(fault=Fault.MODEL_NOT_FOUND))
    with pytest.raises(ProviderError) as caught:
        await hear(stubbed, replace(ask, model="smol"))
    assert "qwen, llama" in caught.value.remedy
    assert "ollama pull smol" in caught.value.remedy


async def test_pull_shows_its_progress(stub, stubbed):
    steps = [step async for step in stubbed.pull("new")]
    counted = [(step.completed_bytes, step.total_bytes) for step in steps]
    assert steps[0].status == "pulling manifest"
    assert steps[-1].status == "success"
    assert counted[1:6] == [
        (None, 1000),
        (250, 1000),
        (500, 1000),
        (750, 1000),
        (1000, 1000),
    ]
    assert counted[0] == counted[-1] == (None, None)
    assert "new" in [model.name for model in await stubbed.models()]


async def test_a_pull_that_the_server_cannot_do(stub, stubbed):
    stub.pull_progress = [
        {"status": "pulling manifest"},
        {"error": "pull model manifest: file does not exist"},
    ]
    with pytest.raises(ProviderError, match="file does not exist"):
        _ = [step async for step in stubbed.pull("nope")]


async def test_a_pull_that_ends_too_soon(stub, stubbed):
    stub.pull_progress = [{"status": "pulling manifest"}]
    with pytest.raises(ProviderError, match="before its end") as caught:
        _ = [step async for step in stubbed.pull("new")]
    assert caught.value.retryable
    assert "goes on" in caught.value.remedy


async def test_closing_a_pull_stops_the_download(stub, stubbed):
    stub.pull_gap_s = 5.0
    async with aclosing(stubbed.pull("new")) as steps:
        assert (await anext(steps)).status == "pulling manifest"
    await stub.requests[0].wait_over()
    assert stub.requests[0].disconnected_at is not None
