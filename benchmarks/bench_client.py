"""What a streamed chunk costs the client: raw httpx, AgentFarm, the openai SDK.

One run, one stub in its own process, replies of 2000 chunks: in a burst, and one
chunk a millisecond. The clients take turns, so that a busy machine hurts them
alike; the table shows medians of CPU time, which waiting does not count in.

    python benchmarks/bench_client.py [--rounds N] [--check]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time

import httpx

from agentfarm.events import EventBus
from agentfarm.llm import ChatRequest, ChatResponse, LLMRouter, RegisteredModel, user
from agentfarm.llm.providers import OpenAIProvider

CHUNKS = 2000
BURST_REPLIES = 4
RATIO_BAR = 1.5
BODY = {
    "model": "burst",
    "messages": [{"role": "user", "content": "go"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


def reply_chunks():
    """The reply as the chunks of HTTP's chunked transfer coding."""
    frame = {
        "created": 1795366376,
        "id": "chatcmpl-9DT4tvCbvuBqBVeWBiHLVk2YtBCGnBlf",
        "model": "stub",
        "system_fingerprint": "b0-unknown",
        "object": "chat.completion.chunk",
    }

    def event(choices, **more):
        line = b"data: " + json.dumps({"choices": choices, **frame, **more}).encode()
        return b"%x\r\n%s\n\n\r\n" % (len(line) + 2, line)

    def choice(delta, reason=None):
        return [{"finish_reason": reason, "index": 0, "delta": delta}]

    usage = {"prompt_tokens": 8, "completion_tokens": CHUNKS, "total_tokens": 2008}
    return (
        event(choice({"role": "assistant", "content": None})),
        [event(choice({"content": f" word{n % 100}"})) for n in range(CHUNKS)],
        event(choice({}, "stop"))
        + event([], usage=usage)
        + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    )


async def serve():
    """The stub: prints its port, then answers until its stdin closes."""
    first, chunks, last = reply_chunks()

    async def answer(reader, writer):
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                writer.close()
                return
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" + first
            )
            if b'"burst"' in body:
                writer.write(b"".join(chunks))
            else:
                due = time.perf_counter()
                for chunk in chunks:
                    due += 0.001
                    writer.write(chunk)
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(last)
            await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


class RawHttpx:
    name = "raw httpx"

    def __init__(self, url):
        self.url = f"{url}/v1/chat/completions"
        self.client = httpx.AsyncClient(timeout=30, trust_env=False)

    async def ask(self, model):
        parts = []
        async with self.client.stream(
            "POST", self.url, json={**BODY, "model": model}
        ) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                choices = json.loads(line[6:])["choices"]
                if choices and (content := choices[0]["delta"].get("content")):
                    parts.append(content)
        return len(parts)

    async def aclose(self):
        await self.client.aclose()


class OurProvider:
    name = "agentfarm OpenAIProvider"

    def __init__(self, url):
        self.provider = OpenAIProvider(url)

    async def ask(self, model):
        chunks = 0
        request = ChatRequest(model=model, messages=(user("go"),))
        async for item in self.provider.stream(request):
            chunks += not isinstance(item, ChatResponse)
        return chunks

    async def aclose(self):
        await self.provider.aclose()


class OurRouter:
    name = "agentfarm LLMRouter, bus"

    def __init__(self, url):
        provider = OpenAIProvider(url)
        self.router = LLMRouter(
            [
                RegisteredModel(name=name, provider=provider, model=name)
                for name in ("burst", "paced")
            ],
            bus=EventBus(),
        )

    async def ask(self, model):
        chunks = 0
        request = ChatRequest(model=model, messages=(user("go"),))
        async with self.router.stream(request) as stream:
            async for _ in stream:
                chunks += 1
        return chunks

    async def aclose(self):
        await self.router.aclose()


class OpenAISDK:
    name = "openai SDK"

    def __init__(self, url):
        import openai

        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")

    async def ask(self, model):
        chunks = 0
        stream = await self.client.chat.completions.create(**{**BODY, "model": model})
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                chunks += 1
        return chunks

    async def aclose(self):
        await self.client.close()


async def cost_us(client, model, replies):
    """CPU microseconds of this process for each chunk."""
    started = time.process_time()
    for _ in range(replies):
        chunks = await client.ask(model)
        if chunks != CHUNKS:
            raise SystemExit(f"{client.name} saw {chunks} chunks of {CHUNKS}.")
    return (time.process_time() - started) / (replies * CHUNKS) * 1e6


async def measure(url, rounds):
    """Median cost by client and mode."""
    clients = [RawHttpx(url), OurProvider(url), OurRouter(url)]
    try:
        clients.append(OpenAISDK(url))
    except ImportError:
        print("The openai SDK is not installed: pip install --group bench")
    costs = {(client.name, mode): [] for client in clients for mode in MODES}
    for client in clients:
        await client.ask("burst")
    for turn in range(rounds):
        order = clients if turn % 2 == 0 else clients[::-1]
        for mode, replies in MODES.items():
            for client in order:
                costs[client.name, mode].append(await cost_us(client, mode, replies))
    for client in clients:
        await client.aclose()
    return {key: statistics.median(values) for key, values in costs.items()}


MODES = {"burst": BURST_REPLIES, "paced": 1}


def show(medians):
    """Print the table; return what misses the bars."""
    names = list(dict.fromkeys(name for name, _ in medians))
    print(f"{'client':26}{'burst':>12}{'':>8}{'paced 1 ms':>14}")
    print(f"{'':26}{'CPU µs/chunk':>12}{'ratio':>8}{'CPU µs/chunk':>14}{'ratio':>8}")
    missed = []
    for name in names:
        row = f"{name:26}"
        for mode, width in (("burst", 12), ("paced", 14)):
            cost = medians[name, mode]
            ratio = cost / medians[RawHttpx.name, mode]
            row += f"{cost:>{width}.1f}{ratio:>8.2f}"
            if name.startswith("agentfarm"):
                sdk = medians.get((OpenAISDK.name, mode))
                if ratio > RATIO_BAR:
                    missed.append(f"{name}, {mode}: {ratio:.2f} times raw httpx")
                if sdk is not None and cost >= sdk:
                    missed.append(f"{name}, {mode}: slower than the openai SDK")
        print(row)
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="fail if a bar is missed")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())  # noqa: TID251  a script of its own
        return
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stub:
        try:
            url = f"http://127.0.0.1:{int(stub.stdout.readline())}"
            medians = asyncio.run(measure(url, options.rounds))  # noqa: TID251
        finally:
            stub.stdin.close()
            stub.terminate()
    missed = show(medians)
    print("\n".join(f"missed: {line}" for line in missed) or "All bars are met.")
    if options.check and missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
