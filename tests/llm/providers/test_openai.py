"""OpenAI's wire format: what goes out, and every shape of what comes back."""

import pytest
from pydantic import SecretStr

from agentfarm.errors import (
    ConfigError,
    ContextOverflow,
    ProviderError,
)
from agentfarm.llm._messages import (
    ChatRequest,
    Message,
    ToolCall,
    ToolSpec,
    user,
)
from agentfarm.llm.providers import OpenAIProvider

CHAT = "/v1/chat/completions"
TOOL = ToolSpec(name="add", description="Adds.", parameters={"type": "object"})


def delta(finish_reason=None, **fields) -> dict:
    choice = {"index": 0, "delta": fields, "finish_reason": finish_reason}
    return {"choices": [choice], "model": "wire-model"}


ROLE = delta(role="assistant", content=None)
STOP = delta("stop")


@pytest.fixture
async def provider(wire):
    provider = OpenAIProvider(wire.url)
    yield provider
    await provider.aclose()


@pytest.fixture
async def stubbed(stub):
    provider = OpenAIProvider(stub.url)
    yield provider
    await provider.aclose()


# What goes out.


@pytest.mark.parametrize(
    ("given", "path", "host"),
    [
        ("", CHAT, ""),
        ("/", CHAT, ""),
        ("/v1", CHAT, ""),
        ("/v1/", CHAT, ""),
        (CHAT, CHAT, ""),
        ("/openai/v1", "/openai/v1/chat/completions", "/openai"),
        ("/v1beta/openai", "/v1beta/openai/chat/completions", "/v1beta/openai"),
    ],
)
async def test_urls_with_and_without_version(wire, hear, ask, given, path, host):
    wire.send(delta(content="hi"), STOP, "[DONE]")
    provider = OpenAIProvider(wire.url + given)
    await hear(provider, ask)
    assert wire.paths == [path]
    assert provider.host == wire.url + host
    await provider.aclose()


async def test_every_field_of_a_request_reaches_the_server(wire, hear, provider):
    wire.send(STOP, "[DONE]")
    call = ToolCall(id="c1", name="add", arguments={"a": 1}, raw_arguments='{"a":1}')
    broken = ToolCall(id="c2", name="add", arguments=None, raw_arguments="{oops")
    schema = {"type": "object", "additionalProperties": False}
    request = ChatRequest(
        model="m",
        messages=(
            user("Hi"),
            Message(role="assistant", tool_calls=(call, broken)),
            Message(role="tool", content="2", tool_call_id="c1", name="add"),
        ),
        tools=(TOOL,),
        tool_choice="add",
        response_schema=schema,
        temperature=0.0,
        top_p=0.9,
        seed=7,
        stop=("END",),
        max_tokens=5,
        context_length=512,
        extra={"min_p": 0.1, "top_p": 0.5, "stream_options": None},
    )
    await hear(provider, request)
    assert wire.bodies[0] == {
        "model": "m",
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "add", "arguments": '{"a":1}'},
                    },
                    {
                        "id": "c2",
                        "type": "function",
                        "function": {"name": "add", "arguments": '{"invalid":"{oops"}'},
                    },
                ],
            },
            {"role": "tool", "content": "2", "tool_call_id": "c1"},
        ],
        "stream": True,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["END"],
        "max_tokens": 5,
        "min_p": 0.1,
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
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "response", "schema": schema, "strict": True},
        },
    }


async def test_a_plain_request_asks_for_usage_and_for_no_compression(
    wire, hear, provider, ask
):
    wire.send(STOP, "[DONE]")
    await hear(provider, ask)
    assert wire.bodies[0]["stream_options"] == {"include_usage": True}
    assert "accept-encoding: identity" in wire.heads[0].lower()
    assert set(wire.bodies[0]) == {"model", "messages", "stream", "stream_options"}


async def test_the_key_is_sent_and_shown_nowhere(wire, hear, ask):
    wire.page(CHAT, {"error": {"message": "Bad key sk-12345."}}, 401)
    provider = OpenAIProvider(
        wire.url, api_key=SecretStr(" sk-12345\n"), api_key_env="MY_KEY"
    )
    with pytest.raises(ProviderError, match=r"Bad key \*\*\*") as caught:
        await hear(provider, ask)
    assert "authorization: Bearer sk-12345\r\n".lower() in wire.heads[0].lower()
    assert "MY_KEY" in caught.value.remedy
    assert "sk-12345" not in f"{caught.value!r} {caught.value} {provider!r}"
    await provider.aclose()


def test_a_key_that_is_no_key_is_refused_without_showing_it():
    with pytest.raises(ConfigError) as caught:
        OpenAIProvider("http://127.0.0.1:1", api_key="sk-1\nX-Evil: 1")
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://h", "http://", "http://h:x"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="address"):
        OpenAIProvider(url)


async def test_credentials_in_the_url_are_used_and_hidden(wire, hear, ask):
    wire.send(STOP, "[DONE]")
    provider = OpenAIProvider(wire.url.replace("//", "//ada:secret@"))
    await hear(provider, ask)
    assert "authorization: basic" in wire.heads[0].lower()
    assert provider.host == wire.url
    await provider.aclose()


async def test_a_local_server_is_not_looked_for_behind_a_proxy(
    wire, hear, ask, monkeypatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    wire.send(STOP, "[DONE]")
    provider = OpenAIProvider(wire.url)
    await hear(provider, ask)
    assert wire.paths == [CHAT]
    await provider.aclose()


# What comes back.

USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 36,
        "completion_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 24},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}
TIMINGS = {
    "cache_n": 24,
    "prompt_n": 12,
    "prompt_ms": 563.0,
    "predicted_n": 12,
    "predicted_ms": 1534.0,
    "predicted_per_second": 7.17,
}


async def test_a_whole_stream_of_llama_cpp(wire, hear, provider, ask):
    wire.send(
        ROLE,
        delta(reasoning_content="Hm."),
        delta(content="Hel"),
        delta(content="lo"),
        STOP,
        USAGE | {"timings": TIMINGS},
        "[DONE]",
    )
    heard = await hear(provider, ask)
    response = heard.response
    assert [chunk.text for chunk in heard.chunks] == ["", "Hel", "lo"]
    assert response.text == "Hello"
    assert response.message.reasoning == "Hm."
    assert response.model == "wire-model"
    assert response.provider == "openai"
    assert response.host == wire.url
    assert response.finish_reason == "stop"
    assert response.usage.input_tokens == 36
    assert response.usage.output_tokens == 12
    assert response.usage.cached_tokens == 24
    assert response.usage.reasoning_tokens == 3
    assert response.server.prompt_s == pytest.approx(0.563)
    assert response.server.output_s == pytest.approx(1.534)
    assert response.server.output_tokens_per_s == 7.17
    assert response.warnings == ()
    assert heard.chunks[0].at_s == response.timing.ttft_s


async def test_timings_give_the_counts_where_usage_is_missing(
    wire, hear, provider, ask
):
    wire.send(delta(content="x"), STOP | {"timings": TIMINGS}, "[DONE]")
    usage = (await hear(provider, ask)).response.usage
    assert (usage.input_tokens, usage.output_tokens) == (36, 12)
    assert usage.cached_tokens == 24


async def test_forty_tokens_in_thirteen_chunks_are_forty(wire, hear, provider, ask):
    usage = {"choices": [], "usage": {"prompt_tokens": 33, "completion_tokens": 40}}
    wire.send(*[delta(content="🎉")] * 13, delta("length"), usage, "[DONE]")
    heard = await hear(provider, ask)
    assert len(heard.chunks) == 13
    assert heard.response.usage.output_tokens == 40


async def test_bytes_may_be_cut_anywhere(wire, hear, provider, ask):
    wire.send(delta(content="zwölf 🎉"), delta(content=" und \n eins"), STOP, "[DONE]")
    whole = b"".join(wire.pieces)
    wire.pieces = [whole[at : at + 1] for at in range(len(whole))]
    assert (await hear(provider, ask)).response.text == "zwölf 🎉 und \n eins"


async def test_the_freedoms_of_sse(wire, hear, provider, ask):
    wire.pieces = [
        b": OPENROUTER PROCESSING\r\n\r\n",
        b"event: message\r\nid: 1\r\nretry: 5\r\n",
        b'data:{"choices":[{"delta":{"content":"a"}}]}\r\n\r\n',
        b"data:\n\n",
        b'data:   {"choices":[{"delta":{"content":"b"}}]}\n\ndata:[DONE]\r\n\r\n',
    ]
    assert (await hear(provider, ask)).response.text == "ab"


@pytest.mark.parametrize(
    ("fields", "text", "reasoning"),
    [
        ({"content": [{"type": "text", "text": "a"}]}, "a", ""),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "t"}]},
                    {"type": "text", "text": "a"},
                ]
            },
            "a",
            "t",
        ),
        ({"content": "a", "tool_calls": {}}, "a", ""),
        ({"content": "a", "reasoning": {"effort": 1}}, "a", ""),
        ({"content": "a", "reasoning": "t", "reasoning_content": None}, "a", "t"),
        ({"content": "a", "reasoning": "t", "reasoning_content": "t"}, "a", "t"),
    ],
)
async def test_odd_deltas(wire, hear, provider, ask, fields, text, reasoning):
    wire.send(delta(**fields), STOP, "[DONE]")
    heard = await hear(provider, ask)
    assert (heard.text, heard.reasoning) == (text, reasoning)


async def test_odd_events(wire, hear, provider, ask):
    wire.send(
        {"choices": None, "usage": {"prompt_tokens": "5", "completion_tokens": 2.0}},
        {"choices": [{"delta": None, "finish_reason": None}]},
        {"choices": [{"text": "legacy", "finish_reason": 0}]},
        delta("stop", content="!") | {"model": 7, "timings": "none"},
        "[DONE]",
    )
    response = (await hear(provider, ask)).response
    assert response.usage.input_tokens == 5
    assert response.usage.output_tokens == 2
    assert response.model == "stub"
    assert response.text.endswith("!")


def piece(call_id=None, name=None, arguments=None, **more) -> dict:
    function = {"name": name, "arguments": arguments}
    return delta(tool_calls=[{"id": call_id, "function": function, **more}])


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [
                piece("a", "f", "", index=0),
                piece(None, None, '{"x"', index=0),
                piece(None, None, ":1}", index=0),
                piece("b", "g", "{}", index=1),
            ],
            id="by index",
        ),
        pytest.param(
            [
                piece("a", "f", '{"x"', index=0),
                piece("a", None, ":1}", index=0),
                piece("b", "g", "{}", index=0),
            ],
            id="one index for all",
        ),
        pytest.param([piece("a", "f", {"x": 1}), piece("b", "g", {})], id="no index"),
        pytest.param(
            [
                piece(None, "f", '{"x":1}', index=0),
                piece("a", None, "", index=0),
                piece("b", "g", "{}", index=4),
            ],
            id="late id, gap",
        ),
    ],
)
async def test_tool_calls_in_all_their_shapes(wire, hear, provider, ask, events):
    wire.send(*events, delta("tool_calls"), "[DONE]")
    response = (await hear(provider, ask)).response
    assert [
        (call.id, call.name, call.arguments) for call in response.message.tool_calls
    ] == [("a", "f", {"x": 1}), ("b", "g", {})]
    assert response.finish_reason == "tool_calls"
    assert response.timing.ttft_s is not None


async def test_an_answer_in_one_piece_is_an_answer(wire, hear, provider, ask):
    message = {"role": "assistant", "content": "whole"}
    choice = {"message": message, "finish_reason": "stop"}
    wire.page(CHAT, {"choices": [choice], "usage": USAGE["usage"]})
    heard = await hear(provider, ask)
    assert [chunk.text for chunk in heard.chunks] == ["whole"]
    assert heard.response.usage.output_tokens == 12
    assert "one piece" in heard.response.warnings[0]


async def test_an_error_with_status_200_is_an_error(wire, hear, provider, ask):
    wire.page(CHAT, {"error": {"message": "no more", "code": 503}})
    with pytest.raises(ProviderError, match="no more") as caught:
        await hear(provider, ask)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("application/json", b'{"pong": true}', "no chat completion"),
        ("application/json", b"[]", "no chat completion"),
        ("text/html", b"<html>Sign in to the hotel</html>\n", "malformed chunk"),
    ],
)
async def test_an_answer_of_something_else(
    wire, hear, provider, ask, content_type, body, says
):
    wire.content_type = content_type
    wire.pieces = [body]
    with pytest.raises(ProviderError, match=says) as caught:
        await hear(provider, ask)
    assert body.decode().strip() in str(caught.value)


async def test_an_error_between_chunks_carries_the_partial_text(
    wire, hear, provider, ask
):
    error = {"code": 400, "message": "x", "type": "exceed_context_size_error"}
    wire.send(delta(content="so far"))
    wire.pieces.append(b'{"error": %s}\n' % str(error).replace("'", '"').encode())
    with pytest.raises(ContextOverflow) as caught:
        await hear(provider, ask)
    assert caught.value.partial_text == "so far"
    assert not caught.value.retryable


@pytest.mark.parametrize("end", [[STOP], ["[DONE]"], [STOP, "[DONE]"]])
async def test_either_end_mark_is_enough(wire, hear, provider, ask, end):
    wire.send(delta(content="all"), *end)
    assert (await hear(provider, ask)).response.text == "all"


async def test_half_a_line_at_the_end_is_a_cut_and_not_malformed(
    wire, hear, provider, ask
):
    wire.send(delta(content="part"))
    wire.pieces.append(b'data: {"choices":[{"del')
    with pytest.raises(ProviderError, match="cut the answer off") as caught:
        await hear(provider, ask)
    assert caught.value.partial_text == "part"
    assert caught.value.retryable
