"""The API server under load, and what a poll of it costs.

*Live.* A server in a process of its own publishes bursts of events, half of them
chunks of streams, from a thread; clients in this process read `WS /ws`, and one more
never reads. Every reader must get every event. The same bursts are published once
more before, without a client, so that one sees what clients cost the publisher.

*Poll.* Time inside the server, from the request to the end of the answer, of
`GET /api/hardware/performance` with a full window and news before each poll, of the
same without news (304), and of an empty endpoint, in turns in one run. "cpu" is the
loop's own share of it, which other programs on the machine change less.

    python benchmarks/bench_web.py [--clients 100] [--rate 5000] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import httpx
import psutil
from websockets.asyncio.client import connect

from agentfarm import open_runtime
from agentfarm.config import WebSettings, load_settings
from agentfarm.events import EventType, RequestRecord
from agentfarm.web._serving import AppServer, listen
from agentfarm.web.server import create_app

BURSTS_PER_S = 20
POLLS = 2000
PERFORMANCE = "/api/hardware/performance"
CHUNK = EventType.LLM_STREAM_CHUNK


class NoGPUs:
    async def snapshot(self):
        raise AssertionError("Nobody asks for GPUs here.")


class Timed:
    """Notes how long the app takes for each request; there is news before some."""

    def __init__(self, app, news) -> None:
        self.app = app
        self.news = news
        self.seconds: dict[tuple[str, int], list[tuple[float, float]]] = {}

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def noting(message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        if scope["path"] == PERFORMANCE and not has_tag(scope):
            self.news()
        wall, cpu = time.perf_counter(), time.thread_time()
        await self.app(scope, receive, noting)
        taken = (time.perf_counter() - wall, time.thread_time() - cpu)
        self.seconds.setdefault((scope["path"], status), []).append(taken)


def has_tag(scope) -> bool:
    return any(name == b"if-none-match" for name, _ in scope["headers"])


def publish(bus, *, rate: int, seconds: float) -> dict:
    """Bursts from this thread; what a publish took, in microseconds."""
    per_burst = rate // BURSTS_PER_S
    chunk = {"text": "a token of an answer "}
    result = {"tool": "run_tests", "ok": True, "text": "what a tool printed\n" * 20}
    costs = []
    started = time.perf_counter()
    for burst in range(int(seconds * BURSTS_PER_S)):
        due = started + burst / BURSTS_PER_S
        time.sleep(max(0.0, due - time.perf_counter()))
        for number in range(per_burst):
            request = f"request-{number % 16}"
            t0 = time.perf_counter()
            if number % 2:
                bus.emit(CHUNK, chunk, run_id="run", request_id=request)
            else:
                bus.emit(EventType.AGENT_TOOL_RESULT, result, run_id="run")
            costs.append((time.perf_counter() - t0) * 1e6)
    costs.sort()
    return {
        "events": len(costs),
        "seconds": time.perf_counter() - started,
        "p50_us": costs[len(costs) // 2],
        "p99_us": costs[int(len(costs) * 0.99)],
    }


async def watch_memory(peak: list[float]) -> None:
    process = psutil.Process()
    while True:
        peak.append(process.memory_info().rss / 2**20)
        await anyio.sleep(0.05)


async def serve(rate: int, seconds: float) -> None:
    """The server's process: does what its stdin says, answers on stdout."""
    with tempfile.TemporaryDirectory() as home:
        web = WebSettings(requests_per_s=None)
        settings = load_settings(home=Path(home), web=web)
        sock = listen("127.0.0.1", 0)
        async with open_runtime(settings) as farm, anyio.create_task_group() as tasks:
            app = create_app(farm, gpus=NoGPUs())
            server = AppServer(app, sock)
            tasks.start_soon(server.run_until_stopped)
            say({"port": sock.getsockname()[1]})
            while (line := await anyio.to_thread.run_sync(sys.stdin.readline)).strip():
                peak: list[float] = []
                async with anyio.create_task_group() as beside:
                    beside.start_soon(watch_memory, peak)
                    found = await anyio.to_thread.run_sync(
                        lambda: publish(farm.bus, rate=rate, seconds=seconds)
                    )
                    await anyio.sleep(2.0)
                    beside.cancel_scope.cancel()
                hub = app.state.farm.hub
                rss = {"rss_before_mib": peak[0], "rss_peak_mib": max(peak)}
                extra = {"dropped": hub.dropped, "clients": len(hub.clients)}
                say({"what": line.strip(), **found, **rss, **extra})
            server.should_exit = True


def say(value: dict) -> None:
    print(json.dumps(value), flush=True)


class Tally:
    """Counts events; a text that many clients got is read once only."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def count(self, text: str) -> tuple[int, int]:
        """Events that may not be joined, and chunks, in one message."""
        found = self._known.get(text)
        if found is None:
            whole = chunks = 0
            for event in json.loads(text).get("events", ()):
                if event["type"] == CHUNK:
                    chunks += event["data"].get("coalesced", 1)
                else:
                    whole += 1
            found = self._known[text] = (whole, chunks)
            if len(self._known) > 50:
                del self._known[next(iter(self._known))]
        return found


async def read(port: int, tally: Tally, counts: list[int], ready) -> None:
    uri = f"ws://127.0.0.1:{port}/ws"
    async with connect(uri, max_size=None, compression=None) as ws:
        counts.extend((0, 0))
        ready()
        async for text in ws:
            whole, chunks = tally.count(text)
            counts[0] += whole
            counts[1] += chunks


def never_read(port: int) -> socket.socket:
    """A client that shakes hands and then sleeps."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    if sock.recv(12) != b"HTTP/1.1 101":
        raise SystemExit("The handshake failed.")
    return sock


class Child:
    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, __file__, "--serve", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._said, self._told = self._process.stdout, self._process.stdin

    def tell(self, line: str) -> None:
        self._told.write(line + "\n")
        self._told.flush()

    def hear(self) -> dict:
        return json.loads(self._said.readline())

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.tell("")
        if self._process.wait(30):
            raise SystemExit("The server failed.")


async def live(clients: int, rate: int, seconds: float) -> None:
    child = Child("--rate", str(rate), "--seconds", str(seconds))
    port = child.hear()["port"]
    child.tell("alone")
    show(await asyncio.to_thread(child.hear))
    counts: list[list[int]] = [[] for _ in range(clients)]
    waiting = clients
    everybody = asyncio.Event()

    def ready() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            everybody.set()

    tally = Tally()
    async with anyio.create_task_group() as tasks:
        for each in counts:
            tasks.start_soon(read, port, tally, each, ready)
        await everybody.wait()
        with never_read(port):
            child.tell(f"{clients} readers, 1 stuck")
            found = await asyncio.to_thread(child.hear)
        tasks.cancel_scope.cancel()
    child.end()
    show(found)
    half = found["events"] // 2
    lost = [(half - each[0], half - each[1]) for each in counts if each != [half, half]]
    print(f"readers that lost anything: {len(lost)} of {clients} {lost[:3]}")
    print("the stuck client was", "dropped" if found["dropped"] == 1 else "NOT dropped")


def show(found: dict) -> None:
    print(
        f"{found['what']:22} {found['events']:7} events in {found['seconds']:5.1f} s, "
        f"publish p50 {found['p50_us']:6.1f} us, p99 {found['p99_us']:7.1f} us, "
        f"RSS {found['rss_before_mib']:.0f} -> {found['rss_peak_mib']:.0f} MiB, "
        f"dropped {found['dropped']}"
    )


def make_record(number: int) -> RequestRecord:
    rng = random.Random(number)  # noqa: S311 - made-up latencies
    latency = rng.lognormvariate(0, 0.5)
    return RequestRecord(
        request_id=str(number),
        model=f"model-{number % 4}",
        provider="fake",
        host="http://127.0.0.1",
        started_at=1e9 + number,
        status="ok",
        latency_s=latency,
        agent=f"agent-{number % 4}",
        input_tokens=rng.randrange(10, 4000),
        output_tokens=rng.randrange(2, 900),
        ttft_s=latency * rng.random(),
        output_tokens_per_s=rng.uniform(10, 90),
    )


async def poll(window: int) -> None:
    """The server in this process, the client in another one."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as home:
        web = WebSettings(requests_per_s=None)
        settings = load_settings(home=Path(home), web=web, tracker_window=window)
        sock = listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        async with open_runtime(settings) as farm, anyio.create_task_group() as tasks:

            def news() -> None:
                record = make_record(next(numbers))
                farm.bus.emit(EventType.LLM_RESPONSE, {"record": record})

            timed = Timed(create_app(farm, gpus=NoGPUs()), news)
            server = AppServer(timed, sock)
            tasks.start_soon(server.run_until_stopped)
            for _ in range(window * 8):
                news()
            await anyio.run_process([sys.executable, __file__, "--ask", url])
            server.should_exit = True
    print(f"\nwindow {window}, 9 full groups; time inside the server, ms")
    for (path, status), values in sorted(timed.seconds.items()):
        wall, cpu = (percentiles(each) for each in zip(*values, strict=True))
        print(f"{path:28} {status}  wall {wall}  cpu {cpu}  n {len(values)}")


def percentiles(seconds) -> str:
    cuts = statistics.quantiles([each * 1e3 for each in seconds], n=100)
    return "  ".join(f"p{at} {cuts[at - 1]:6.3f}" for at in (50, 95, 99))


def ask(url: str) -> None:
    with httpx.Client(base_url=url) as http:
        for _ in range(POLLS):
            http.get("/healthz")
            tag = http.get(PERFORMANCE).headers["etag"]
            http.get(PERFORMANCE, headers={"If-None-Match": tag})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ask:
        ask(args.ask)
        return
    with asyncio.Runner() as runner:
        if args.serve:
            runner.run(serve(args.rate, args.seconds))
            return
        runner.run(live(args.clients, args.rate, args.seconds))
        runner.run(poll(args.window))


if __name__ == "__main__":
    main()
