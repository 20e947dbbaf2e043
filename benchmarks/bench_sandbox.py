"""The sandbox beside llm-sandbox: one run, one engine, one image, `print(1)`.

Contenders take turns, and the order is turned around every other round, so that a
busy machine hurts them alike. The time to the result leaves the clean-up out.

    python benchmarks/bench_sandbox.py [--rounds 20] [--image NAME] [--json] [--check]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
from sandbox_contenders import (
    AT_ONCE,
    BUBBLEWRAP,
    CODE,
    COLD,
    DEFAULT,
    FLOOD,
    FLOOD_S,
    HOSTILE,
    POOLED,
    STUBBORN,
    TIMEOUT_S,
    bubblewrap_contenders,
    docker_contenders,
    docker_peers,
    expect_one,
    make_peer_image,
    our_timeout,
    peer_options,
    remove_peer_image,
    settle,
    their_timeout,
)

from agentfarm.config import load_settings
from agentfarm.containers import Engine
from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox import (
    SANDBOX_IMAGE,
    BubblewrapSandbox,
    DockerSandbox,
    check_image,
)

MIB = 2**20


async def in_turns(contenders, rounds):
    """Seconds to the result and as a whole, by contender, one run at a time."""
    found = {one.name: ([], []) for one in contenders}
    for turn in range(-1, rounds):
        for one in contenders if turn % 2 else contenders[::-1]:
            await settle(contenders)
            gc.collect()
            result_s, whole_s = await one.once()
            if turn < 0:
                continue  # the first round warms up
            found[one.name][0].append(result_s)
            if whole_s is not None:
                found[one.name][1].append(whole_s)
    return found


async def back_to_back(contenders, rounds):
    """Seconds to the result where the next run starts at once, by contender."""
    found = {one.name: [] for one in contenders}
    for turn in range(2):
        for one in contenders if turn % 2 else contenders[::-1]:
            await settle(contenders)
            for _ in range(rounds // 2):
                found[one.name].append((await one.once())[0])
            await settle(contenders)
    return found


async def at_once(contenders, runs):
    """Runs a second with `AT_ONCE` in flight, each until nothing is left of it."""
    found = {one.name: [] for one in contenders}
    for turn in range(2):
        for one in contenders if turn % 2 else contenders[::-1]:
            await settle(contenders)
            free = asyncio.Semaphore(AT_ONCE)

            async def run(one=one, free=free):
                async with free:
                    await one.once()

            started = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for _ in range(runs):
                    group.create_task(run())
            await settle(contenders)
            found[one.name].append(runs / (time.perf_counter() - started))
    return {name: statistics.mean(rates) for name, rates in found.items()}


def with_token(token):
    """Processes of this machine that carry it."""
    return sum(
        token in (process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline"])
    )


async def overshoots(run, rounds):
    """Seconds beyond the timeout, the processes seen at work, and the survivors."""
    found, seen, left = [], [], []

    async def look(token, most=0):
        try:
            while True:
                await asyncio.sleep(0.2)
                most = max(most, with_token(token))
        finally:
            seen.append(most)

    for _ in range(rounds):
        token = secrets.token_hex(8)
        code = STUBBORN.replace("TOKEN", token)
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(look(token))
            found.append(await run(code, lambda t=token: left.append(with_token(t))))
            looking.cancel()
    return {"overshoot_s": found, "seen": min(seen), "survivors": sum(left)}


class Peak:
    """The largest resident memory of this process while it is entered, in bytes."""

    def __enter__(self):
        gc.collect()
        self.process = psutil.Process()
        self.start = self.peak = self.process.memory_info().rss
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.stop.wait(0.005):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    @property
    def growth_mib(self):
        return (self.peak - self.start) / MIB


async def flood(kind, image, hostile):
    """In a process of its own: MiB that a flood adds to the controller."""
    if kind == "llm-sandbox":
        from llm_sandbox import SandboxSession

        with (
            SandboxSession(lang="python", **peer_options(image)) as session,
            Peak() as p,
        ):
            result = session.run(FLOOD)
            returned = len(result.stdout) + len(result.stderr)
        return {"growth_mib": p.growth_mib, "written_mib": returned / MIB}
    settings = load_settings()
    async with AsyncExitStack() as stack:
        if kind == "bubblewrap":
            sandbox = BubblewrapSandbox()
        else:
            engine = Engine(settings.docker_host)
            sandbox = DockerSandbox(engine=engine, image=image, pool=0)
        await stack.enter_async_context(sandbox)
        await expect_one(sandbox)
        if kind == "hostile":
            # There is no other way to have a supervisor that a job has taken over.
            target = "agentfarm.tools.sandbox._options.SUPERVISOR"
            stack.enter_context(patch(target, hostile))
        peak = stack.enter_context(Peak())
        result = await sandbox.run(python=FLOOD)
        growth_mib = peak.growth_mib
    if not result.truncated or not result.ok:
        raise SystemExit(f"There was no flood: {result} {result.stderr[-500:]}")
    written = result.files.get("written")
    return {
        "growth_mib": growth_mib,
        "written_mib": int(written.content) / MIB if written else None,
    }


def flood_apart(kind, image):
    """`flood` in a process of its own, so that nothing else grew before."""
    command = [sys.executable, __file__, "--flood", kind, "--image", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


async def measure_docker(engine, image, rounds, with_peer):
    """Everything that needs an engine, and what of bubblewrap takes turns with it."""
    bubblewrap = await bubblewrap_contenders(with_peer)
    peer_image = make_peer_image(engine, image) if with_peer else None
    try:
        ours = docker_contenders(engine, image)
        peers = docker_peers(peer_image) if with_peer else []
        found = await measure_speed([*ours, *peers, *bubblewrap], rounds)
        async with DockerSandbox(engine=engine, image=image, pool=0) as sandbox:
            found["timeouts"]["agentfarm"] = await overshoots(
                our_timeout(sandbox), rounds
            )
        kinds = {"agentfarm": "capped", "agentfarm, supervisor taken over": "hostile"}
        found["floods"] |= {
            name: flood_apart(kind, image) for name, kind in kinds.items()
        }
        if with_peer:
            found["timeouts"][DEFAULT] = await overshoots(
                their_timeout(peer_options(peer_image)), min(rounds, 5)
            )
            found["floods"][DEFAULT] = flood_apart("llm-sandbox", peer_image)
    finally:
        if peer_image:
            remove_peer_image(engine, peer_image)
    return found


async def measure_speed(contenders, rounds):
    """The three speeds of all, and the safety of bubblewrap if it takes part."""
    try:
        found = {
            "single": await in_turns(contenders, rounds),
            "back_to_back": await back_to_back(contenders, rounds),
            "at_once": await at_once(contenders, 3 * AT_ONCE),
            "timeouts": {},
            "floods": {},
        }
    finally:
        for one in contenders:
            await one.aclose()
    if any(one.name == BUBBLEWRAP for one in contenders):
        async with BubblewrapSandbox() as sandbox:
            found["timeouts"][BUBBLEWRAP] = await overshoots(
                our_timeout(sandbox), rounds
            )
        found["floods"][BUBBLEWRAP] = flood_apart("bubblewrap", "")
    return found


def summary(values):
    """Median and p95, by linear interpolation."""
    return {
        "median": statistics.median(values),
        "p95": float(np.percentile(values, 95)),
        "runs": len(values),
    }


def summarise(found):
    single = {
        name: {
            "result_s": summary(result),
            "whole_s": summary(whole) if whole else None,
        }
        for name, (result, whole) in found["single"].items()
    }
    timeouts = {
        name: {**value, "overshoot_s": summary(value["overshoot_s"])}
        for name, value in found["timeouts"].items()
    }
    series = {name: summary(values) for name, values in found["back_to_back"].items()}
    return {**found, "single": single, "back_to_back": series, "timeouts": timeouts}


def goals(report):
    """Rows of (goal, measured, whether it is met; None where nothing was)."""
    single = report["single"]
    peer = single.get(DEFAULT)
    rows = []
    if COLD in single:
        for text, name, least in (
            ("pooled: 3 times faster than llm-sandbox's default", POOLED, 3.0),
            ("cold: no slower than llm-sandbox's default", COLD, 1.0),
        ):
            ours = single[name]["result_s"]["median"]
            ratio = peer["result_s"]["median"] / ours if peer else None
            said = f"{ratio:.1f} times" if peer else "no llm-sandbox"
            rows.append((text, said, ratio >= least if peer else None))
    for name, value in report["timeouts"].items():
        if name != DEFAULT:
            p95, left = value["overshoot_s"]["p95"], value["survivors"]
            text = f"{name}: timeout overshoot p95 at most 0.5 s"
            rows.append((text, f"{p95:.3f} s", p95 <= 0.5))
            seen = value["seen"] > 0
            said = str(left) if seen else "the jobs were not seen at work"
            rows.append((f"{name}: no survivors", said, left == 0 if seen else None))
    for name, value in report["floods"].items():
        if name != DEFAULT:
            growth = value["growth_mib"]
            text = f"{name}: a flood adds at most 10 MiB"
            rows.append((text, f"{growth:.1f} MiB", growth <= 10))
    return rows


def show(report):
    print(f"\n{CODE}, in ms; ratio: {DEFAULT}'s median to the row's")
    print(f"{'':40}{'to result':>10}{'p95':>7}{'ratio':>7}{'as a whole':>12}{'p95':>7}")
    peer = report["single"].get(DEFAULT)
    for name, value in report["single"].items():
        result, whole = value["result_s"], value["whole_s"]
        row = f"{name:40}{milliseconds(result)}{ratio(peer, result)}"
        print(row + (f"  {milliseconds(whole)}" if whole else ""))
    print("\none after the other without a pause, ms")
    for name, value in report["back_to_back"].items():
        print(f"{name.split(', at most')[0]:40}{milliseconds(value)}")
    print(f"\n{AT_ONCE} at once, runs a second")
    for name, rate in report["at_once"].items():
        print(f"{name.split(', at most')[0]:40}{rate:10.1f}")
    print(
        f"\nbeyond a timeout of {TIMEOUT_S:g} s, every signal ignored, two sessions, ms"
    )
    for name, value in report["timeouts"].items():
        overshoot = value["overshoot_s"]
        left = f"processes left by {overshoot['runs']} runs: {value['survivors']}"
        print(f"{name:40}{milliseconds(overshoot)}   {left}")
    print(f"\na flood of {FLOOD_S:g} s on both streams adds to the controller, MiB")
    for name, value in report["floods"].items():
        written = value.get("written_mib")
        said = f"   of {written:.0f} MiB written" if written else ""
        print(f"{name:40}{value['growth_mib']:10.1f}{said}")
    print()
    for text, said, met in report["goals"]:
        print(f"{VERDICT[met]:14}{text}: {said}")


VERDICT = {True: "met", False: "MISSED", None: "not measured"}


def milliseconds(value):
    return f"{value['median'] * 1e3:10.0f}{value['p95'] * 1e3:7.0f}"


def ratio(peer, result):
    return f"{peer['result_s']['median'] / result['median']:7.1f}" if peer else " " * 7


async def measure(image, rounds):
    try:
        import llm_sandbox  # noqa: F401

        with_peer = True
    except ImportError:
        print("llm-sandbox is not installed: pip install --group bench")
        with_peer = False
    engine = Engine(load_settings().docker_host)
    try:
        check_image(engine, image).require()
    except SandboxUnavailable as error:
        print(f"Docker is not measured: {error}")
        contenders = await bubblewrap_contenders(with_peer)
        return await measure_speed(contenders, rounds) if contenders else None
    return await measure_docker(engine, image, rounds, with_peer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--image", default=SANDBOX_IMAGE)
    parser.add_argument("--json", action="store_true", help="print figures only")
    parser.add_argument("--check", action="store_true", help="fail if a goal is missed")
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        if options.flood:
            hostile = Path(folder, "hostile.py")
            hostile.write_text(HOSTILE)
            found = runner.run(flood(options.flood, options.image, hostile))
            print(json.dumps(found))
            return
        found = runner.run(measure(options.image, options.rounds))
    if found is None:
        return
    report = summarise(found)
    report["goals"] = goals(report)
    print(json.dumps(report)) if options.json else show(report)
    if options.check and any(met is False for _, _, met in report["goals"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
