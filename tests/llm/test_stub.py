"""StubServer speaks both wire formats, byte by byte as scripted."""

import json
import time

import anyio
import httpx
import pytest

from agentfarm.llm._messages import ModelInfo, ServerTiming, ToolCall, Usage
from agentfarm.llm.testing import Fault, Reply, StubServer

CALL = ToolCall(id="c1", name="say", arguments={"a": "é"}, raw_arguments='{"a": "é"}')
OPENAI = "/v1/chat/completions"
OLLAMA = "/api/chat"


async def events(client, body=None) -> list[dict | str]:
    """The SSE events of one streamed answer."""
    body = {"model": "m", "stream": True} | (body or {})
    async with client.stream("POST", OPENAI, json=body) as response:
        assert response.headers["content-type"] == "text/event-stream"
        text = (await response.aread()).decode()
    found = [part.removeprefix("data: ") for part in text.split("\n\n") if part]
    return [json.loads(part) if part.startswith("{") else part for part in found]


async def lines(client, body=None) -> list[dict]:
    """The NDJSON lines of one streamed answer."""
    body = {"model": "m"} | (body or {})
    async with client.stream("POST", OLLAMA, json=body) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) async for line in response.aiter_lines()]


async def test_openai_stream_is_llama_cpps(stub, http):
    stub.queue.append(
        Reply(
            "Hi there",
            reasoning=("hm",),
            usage=Usage(input_tokens=5, output_tokens=9, cached_tokens=4),
            server=ServerTiming(prompt_s=0.5, output_s=0.25),
        )
    )
    role, thought, first, second, finish, usage, done = await events(
        http, {"stream_options": {"include_usage": True}}
    )
    delta = [event["choices"][0]["delta"] for event in (role, thought, first, second)]
    assert delta == [
        {"role": "assistant", "content": None},
        {"reasoning_content": "hm"},
        {"content": "Hi "},
        {"content": "there"},
    ]
    assert finish["choices"][0] == {"finish_reason": "stop", "index": 0, "delta": {}}
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 9,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert usage["timings"]["predicted_n"] == 9
    assert usage["timings"]["predicted_ms"] == 250
    assert usage["timings"]["predicted_per_second"] == 36
    assert done == "[DONE]"


async def test_openai_usage_is_sent_only_when_asked_for(stub, http):
    stub.queue.append(Reply("a", server=ServerTiming(output_s=1.0), role_chunk=False))
    _content, finish, done = await events(http)
    assert "usage" not in finish
    assert "timings" in finish
    assert done == "[DONE]"


async def test_comment_comes_first(stub, http):
    stub.queue.append(Reply("a", comment=True))
    assert (await events(http))[0] == ": PROCESSING"


async def test_ollama_stream(stub, http):
    stub.queue.append(
        Reply(
            "Hi there",
            reasoning=("hm",),
            tool_calls=(CALL,),
            usage=Usage(input_tokens=5, output_tokens=9),
            server=ServerTiming(load_s=1.5, prompt_s=0.5, output_s=0.25, total_s=2.5),
        )
    )
    thought, first, second, call, done = await lines(http)
    assert thought["message"] == {
        "role": "assistant",
        "content": "",
        "thinking": "hm",
    }
    assert (first["message"]["content"], first["done"]) == ("Hi ", False)
    assert second["message"]["content"] == "there"
    assert call["message"]["tool_calls"] == [
        {"id": "c1", "function": {"index": 0, "name": "say", "arguments": {"a": "é"}}}
    ]
    assert done["done"] is True
    assert done["done_reason"] == "stop"
    numbers = {key: value for key, value in done.items() if isinstance(value, int)}
    assert numbers == {
        "done": True,
        "total_duration": 2_500_000_000,
        "load_duration": 1_500_000_000,
        "prompt_eval_count": 5,
        "prompt_eval_duration": 500_000_000,
        "eval_count": 9,
        "eval_duration": 250_000_000,
    }


async def test_ollama_leaves_zeros_out(stub, http):
    stub.queue.append(Reply("a", usage=Usage(input_tokens=0, output_tokens=1)))
    done = (await lines(http))[-1]
    assert "prompt_eval_count" not in done
    assert "load_duration" not in done
    assert done["eval_count"] == 1


@pytest.mark.parametrize("path", [OPENAI, OLLAMA])
async def test_answers_without_streaming(stub, http, path):
    stub.queue.append(Reply("Hi there", reasoning=("hm",), tool_calls=(CALL,)))
    response = await http.post(path, json={"model": "m", "stream": False})
    body = response.json()
    message = body["message"] if path == OLLAMA else body["choices"][0]["message"]
    assert message["content"] == "Hi there"
    (call,) = message["tool_calls"]
    arguments = call["function"]["arguments"]
    assert arguments == (CALL.arguments if path == OLLAMA else CALL.raw_arguments)
    assert stub.chats[0].true_ttft_s > 0


async def test_replies_come_in_order_then_the_default(http, stub):
    stub.queue.extend(["one", Reply("two")])
    stub.default = "rest"
    said = []
    for _ in range(4):
        body = (await http.post(OLLAMA, json={"stream": False})).json()
        said.append(body["message"]["content"])
    assert said == ["one", "two", "rest", "rest"]


async def test_reply_may_depend_on_the_request():
    async with (
        StubServer(respond=lambda request: request.body["model"] + "!") as stub,
        httpx.AsyncClient(base_url=stub.url, trust_env=False) as http,
    ):
        body = (await http.post(OLLAMA, json={"model": "me", "stream": False})).json()
        assert body["message"]["content"] == "me!"


async def test_every_chunk_is_a_write_of_its_own_stamped_when_sent(stub, http):
    stub.queue.append(Reply("a b c d", first_delay_s=0.03, gap_s=0.01))
    async with http.stream("POST", OLLAMA, json={"model": "m"}) as response:
        arrived = [time.perf_counter() async for _ in response.aiter_raw()]
    record = stub.chats[0]
    assert [piece.chunk.text for piece in record.sent] == ["a ", "b ", "c ", "d"]
    assert len(arrived) == 5
    assert record.true_ttft_s >= 0.03
    assert record.last_piece_at - record.first_piece_at >= 0.027
    late_s = [a - piece.at for a, piece in zip(arrived, record.sent, strict=False)]
    assert min(late_s) >= 0
    assert record.headers_at < record.first_piece_at < record.finished_at


async def test_headers_can_be_late(stub, http):
    stub.queue.append(Reply("a", header_delay_s=0.03))
    await events(http)
    record = stub.chats[0]
    assert record.headers_at - record.received_at >= 0.03


async def test_logs_requests_without_secrets(stub, http):
    await http.post(
        OLLAMA,
        json={"model": "m", "options": {"seed": 1}, "stream": False},
        headers={"Authorization": "Bearer sk-secret", "X-Api-Key": "sk-secret"},
    )
    record = stub.requests[0]
    assert (record.method, record.path, record.status) == ("POST", OLLAMA, 200)
    assert record.body["options"] == {"seed": 1}
    assert record.headers["authorization"] == "<redacted>"
    assert "sk-secret" not in repr(record)


async def test_api_key_is_demanded():
    async with (
        StubServer(api_key="sk-1") as stub,
        httpx.AsyncClient(base_url=stub.url, trust_env=False) as http,
    ):
        assert (await http.get("/v1/models")).status_code == 401
        good = {"Authorization": "Bearer sk-1"}
        assert (await http.get("/v1/models", headers=good)).status_code == 200


async def test_describes_its_models():
    big = ModelInfo(
        name="big:8b",
        context_length=8192,
        capabilities=frozenset({"tools", "json_schema"}),
        loaded=False,
        size_bytes=5,
    )
    async with (
        StubServer(models=["stub", big], context_length=512) as stub,
        httpx.AsyncClient(base_url=stub.url, trust_env=False) as http,
    ):
        listed = (await http.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["stub", "big:8b"]
        assert [model["meta"]["n_ctx"] for model in listed] == [512, 8192]
        tags = (await http.get("/api/tags")).json()["models"]
        assert tags[1]["capabilities"] == ["completion", "tools"]
        warm = (await http.get("/api/ps")).json()["models"]
        assert [model["name"] for model in warm] == ["stub"]
        shown = await http.post("/api/show", json={"model": "big:8b"})
        assert shown.json()["model_info"]["llama.context_length"] == 8192
        missing = await http.post("/api/show", json={"model": "nix"})
        assert missing.json() == {"error": "model 'nix' not found"}
        props = (await http.get("/props")).json()
        assert props["default_generation_settings"]["n_ctx"] == 512
        assert (await http.get("/api/version")).status_code == 200
        assert (await http.get("/nowhere")).status_code == 404


async def test_pull_reports_progress_and_adds_the_model(stub, http):
    async with http.stream("POST", "/api/pull", json={"model": "new"}) as response:
        steps = [json.loads(line) async for line in response.aiter_lines()]
    assert steps[0] == {"status": "pulling manifest"}
    assert [step["completed"] for step in steps if "completed" in step][-1] == 1000
    assert steps[-1] == {"status": "success"}
    assert [model.name for model in stub.models] == ["stub", "new"]


async def test_not_ready_is_503_everywhere(stub, http):
    stub.ready = False
    assert (await http.get("/health")).json()["error"]["message"] == "Loading model"
    assert (await http.get("/api/tags")).status_code == 503
    stub.ready = True
    assert (await http.get("/health")).json() == {"status": "ok"}


async def test_speaks_one_format_only_if_told():
    async with (
        StubServer(speaks="openai") as stub,
        httpx.AsyncClient(base_url=stub.url, trust_env=False) as http,
    ):
        assert (await http.get("/api/tags")).status_code == 404
        assert (await http.post(OLLAMA, json={"model": "m"})).status_code == 404
        assert (await http.get("/v1/models")).status_code == 200


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "talking"])
async def test_sees_a_client_leave(stub, http, silent):
    delay_s = 60.0 if silent else 0.0
    stub.queue.append(Reply("a b", first_delay_s=delay_s, gap_s=60.0))

    async def read():
        async with http.stream("POST", OLLAMA, json={"model": "m"}) as response:
            async for _ in response.aiter_raw():
                pass

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await stub.wait_until(
            lambda stub: stub.active == 1 and (silent or stub.chats[0].sent)
        )
        group.cancel_scope.cancel()
        left_at = time.perf_counter()
    await stub.chats[0].wait_over()
    assert 0 <= stub.chats[0].disconnected_at - left_at < 0.1
    assert stub.chats[0].finished_at is None


async def test_counts_requests_in_flight(stub, http):
    stub.default = Reply("a", first_delay_s=60.0)

    async def read():
        await http.post(OLLAMA, json={"model": "m"})

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(read)
        await stub.wait_until(lambda stub: stub.active == 2)
        group.cancel_scope.cancel()
    await stub.wait_until(lambda stub: stub.active == 0)
    assert stub.max_active == 2


async def test_utf8_split_leaves_no_write_whole(stub, http):
    stub.queue.append(Reply(chunks=("é🎉",), fault=Fault.UTF8_SPLIT, role_chunk=False))
    body = {"model": "m", "stream": True}
    async with http.stream("POST", OPENAI, json=body) as response:
        parts = [part async for part in response.aiter_raw()]
    assert parts[0].endswith(b"\xc3")
    assert parts[1].startswith(b"\xa9")
    assert "é🎉" in b"".join(parts).decode()


async def test_tool_arguments_split(stub, http):
    stub.queue.append(Reply(tool_calls=(CALL,), fault=Fault.TOOL_ARGUMENTS_SPLIT))
    deltas = [
        event["choices"][0]["delta"]["tool_calls"][0]
        for event in (await events(http))[1:-2]
    ]
    assert len(deltas) > 2
    assert deltas[0]["id"] == "c1"
    assert all("id" not in delta for delta in deltas[1:])
    joined = "".join(delta["function"]["arguments"] for delta in deltas)
    assert joined == CALL.raw_arguments


async def test_fault_of_the_other_format_is_a_mistake_that_shows(http):
    stub = await StubServer(Reply("a", fault=Fault.SILENT_TRUNCATION)).start()
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(stub.url + OPENAI, json={"model": "m"})
    with pytest.raises(ExceptionGroup) as caught:
        await stub.aclose()
    assert caught.group_contains(ValueError, match="SILENT_TRUNCATION")


async def test_close_cuts_what_is_under_way(http):
    stub = await StubServer(Reply("a", first_delay_s=60.0)).start()

    async def read():
        with pytest.raises(httpx.HTTPError):
            await http.post(f"{stub.url}{OLLAMA}", json={"model": "m"})

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await stub.wait_until(lambda stub: stub.active == 1)
        await stub.aclose()
    with pytest.raises(RuntimeError, match="not running"):
        _ = stub.url
