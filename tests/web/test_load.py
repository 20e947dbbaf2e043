"""Many readers, bursts of events, and one client that never reads."""

import json
import socket
import threading
import time

import anyio
import anyio.lowlevel
import psutil
import pytest

from agentfarm.events import EventType

READERS = 25
RATE = 2000
SECONDS = 3
BURSTS_PER_S = 20
CHUNK = EventType.LLM_STREAM_CHUNK
RESULT = {"tool": "run_tests", "ok": True, "text": "what a tool printed\n" * 40}


class Publisher(threading.Thread):
    """Bursts from a thread of its own, and the longest that a publish took."""

    def __init__(self, bus) -> None:
        super().__init__()
        self._bus = bus
        self.costs_s: list[float] = []

    def run(self) -> None:
        started = time.perf_counter()
        for burst in range(SECONDS * BURSTS_PER_S):
            due = started + burst / BURSTS_PER_S
            time.sleep(max(0.0, due - time.perf_counter()))
            for number in range(RATE // BURSTS_PER_S):
                begun = time.perf_counter()
                if number % 2:
                    request = f"r{number % 8}"
                    self._bus.emit(CHUNK, {"text": f"{burst} "}, request_id=request)
                else:
                    self._bus.emit(EventType.AGENT_TOOL_RESULT, RESULT)
                self.costs_s.append(time.perf_counter() - begun)


class Tally:
    """What one reader got; a text that several got is parsed once."""

    def __init__(self, known: dict[str, list]) -> None:
        self._known = known
        self.whole = self.chunks = self.seq = 0
        self.in_order = True

    def take(self, text: str) -> None:
        events = self._known.get(text)
        if events is None:
            events = self._known[text] = json.loads(text).get("events", [])
        for event in events:
            self.in_order &= event["seq"] > self.seq
            self.seq = event["seq"]
            if event["type"] == CHUNK:
                self.chunks += event["data"].get("coalesced", 1)
            else:
                self.whole += 1


def never_read(served) -> socket.socket:
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect((served.host, served.port))
    stuck.sendall(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    return stuck


@pytest.mark.timeout(120)
async def test_readers_get_every_event_beside_a_client_that_never_reads(served, farm):
    total = RATE * SECONDS
    hub = served.app.state.farm.hub
    known: dict[str, list] = {}
    tallies = [Tally(known) for _ in range(READERS)]
    process = psutil.Process()

    async def read(tally: Tally, *, task_status) -> None:
        async with served.socket() as ws:
            tally.take(await ws.recv())
            task_status.started()
            while tally.whole + tally.chunks < total:
                tally.take(await ws.recv())

    with never_read(served):
        async with anyio.create_task_group() as tasks:
            for tally in tallies:
                await tasks.start(read, tally)
            before = process.memory_info().rss
            publisher = Publisher(farm.bus)
            publisher.start()
        grown = process.memory_info().rss - before
        publisher.join()
        assert [(t.whole, t.chunks) for t in tallies] == [(total // 2,) * 2] * READERS
        assert all(tally.in_order for tally in tallies)
        # The stuck client is given up as soon as enough waits for it.
        with anyio.fail_after(30):
            while not hub.dropped:
                for _ in range(100):
                    farm.bus.emit(EventType.AGENT_TOOL_RESULT, RESULT)
                await anyio.lowlevel.checkpoint()
        assert hub.dropped == 1
    costs = sorted(publisher.costs_s)
    assert costs[len(costs) // 2] < 0.001
    assert grown < 100 * 2**20
