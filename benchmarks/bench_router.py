"""What the router costs per streamed chunk, over a provider that costs nothing.

Run: python benchmarks/bench_router.py [--json]
"""

import asyncio
import gc
import json
import statistics
import sys
import time

from agentfarm.events import EventBus, EventType
from agentfarm.llm import (
    ChatChunk,
    ChatRequest,
    ChatResponse,
    LLMRouter,
    Message,
    RegisteredModel,
    Timing,
    Usage,
    user,
)
from agentfarm.llm.testing import FakeProvider

CHUNKS = 20_000
ROUNDS = 7


class Instant(FakeProvider):
    """Streams ready-made chunks as fast as it is asked."""

    def __init__(self):
        super().__init__()
        self.chunks = [ChatChunk(text="word ", at_s=n * 1e-3) for n in range(CHUNKS)]
        self.answer = ChatResponse(
            message=Message(role="assistant", content="word " * CHUNKS),
            model="m",
            provider="fake",
            host=self.host,
            finish_reason="stop",
            usage=Usage(output_tokens=CHUNKS),
            timing=Timing(started_at=0.0),
        )

    async def stream(self, request):
        for chunk in self.chunks:
            yield chunk
        yield self.answer


async def drain(stream):
    start = time.process_time()
    async for _ in stream:
        pass
    return (time.process_time() - start) / CHUNKS * 1e6


def cases():
    provider = Instant()
    models = [RegisteredModel(name="m", provider=provider)]
    idle, heard = EventBus(), EventBus()
    heard.on(lambda event: None, EventType.LLM_RESPONSE)
    heard.on(lambda event: None, EventType.LLM_STREAM_CHUNK)
    request = ChatRequest(messages=(user("hi"),), model="m")
    routers = {
        "router, no bus": LLMRouter(models),
        "router, bus without subscribers": LLMRouter(models, bus=idle),
        "router, bus with a chunk subscriber": LLMRouter(models, bus=heard),
    }
    return {
        "provider alone": lambda: provider.stream(request),
        **{name: lambda r=r: r.stream(request) for name, r in routers.items()},
    }


async def measure():
    found = {name: [] for name in cases()}
    makers = cases()
    for _ in range(ROUNDS):
        for name, make in makers.items():
            gc.collect()
            found[name].append(await drain(make()))
    return {name: statistics.median(values) for name, values in found.items()}


def main():
    with asyncio.Runner() as runner:
        medians = runner.run(measure())
    base = medians["provider alone"]
    if "--json" in sys.argv:
        print(json.dumps({"us_per_chunk": medians}))
        return
    for name, value in medians.items():
        print(f"{name:40} {value:6.2f} µs/chunk  (+{value - base:.2f})")


if __name__ == "__main__":
    main()
