"""A snapshot of AMD cards from the kernel's files, beside starting a tool for it.

All contenders take turns in one run. The cards are files in a temporary folder, so
the driver's own time is not in it; the tools are stand-ins, and cheaper than the real
ones: a shell script that prints what amd-smi prints, and a Python that starts and
does nothing, as amd-smi and rocm-smi are Python programs.

    python benchmarks/bench_gpu.py [--cards 1] [--rounds 200] [--check]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from agentfarm.monitoring import GPUMonitor
from agentfarm.monitoring._gpu_sysfs import AmdgpuSysfs

GOAL_MS = 1.0
DEVICE = {
    "vendor": "0x1002",
    "gpu_busy_percent": "97",
    "mem_busy_percent": "40",
    "mem_info_vram_used": "12884901888",
    "mem_info_vram_total": "17163091968",
}
HWMON = {
    "temp1_label": "edge",
    "temp1_input": "61000",
    "temp2_label": "junction",
    "temp2_input": "77000",
    "temp3_label": "mem",
    "temp3_input": "82000",
    "freq1_label": "sclk",
    "freq1_input": "2431000000",
    "freq2_label": "mclk",
    "freq2_input": "1218000000",
    "power1_average": "207000000",
    "power1_cap": "212000000",
    "fan1_input": "1450",
    "pwm1": "102",
}


def make_sysfs(root: Path, cards: int) -> Path:
    for n in range(cards):
        device = root / f"card{n}" / "device"
        hwmon = device / "hwmon" / f"hwmon{n}"
        hwmon.mkdir(parents=True)
        (device / "gpu_metrics").write_bytes(bytes([120, 0, 1, 3]) + bytes(116))
        for folder, files in ((device, DEVICE), (hwmon, HWMON)):
            for name, text in files.items():
                (folder / name).write_text(f"{text}\n")
    return root


def make_tool(folder: Path, cards: int) -> str:
    folder.mkdir()
    card = {
        "usage": {"gfx_activity": {"value": 97, "unit": "%"}},
        "power": {"socket_power": {"value": 207, "unit": "W"}},
        "temperature": {"edge": {"value": 61, "unit": "C"}},
    }
    listed = [{"gpu": n, **card} for n in range(cards)]
    (folder / "out").write_text(json.dumps(listed))
    tool = folder / "amd-smi"
    tool.write_text(f"#!/bin/sh\nexec /bin/cat '{folder}/out'\n")
    tool.chmod(0o755)
    return str(folder)


async def python_starts() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", "pass")
    await process.wait()


async def measure(cards: int, rounds: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drm = make_sysfs(folder / "drm", cards)
        tools = make_tool(folder / "bin", cards)
        source = AmdgpuSysfs(drm)
        with (
            GPUMonitor(drm_path=drm, search_path="") as by_files,
            GPUMonitor(drm_path=folder / "none", search_path=tools) as by_tool,
        ):

            async def read() -> None:
                source.read(1)

            async def snapshot(monitor: GPUMonitor) -> None:
                if len((await monitor.snapshot()).gpus) != cards:
                    raise SystemExit("A card was not read.")

            contenders = {
                "files, without a thread": read,
                "snapshot from files": lambda: snapshot(by_files),
                "snapshot from a tool (sh)": lambda: snapshot(by_tool),
                "a Python starts": python_starts,
            }
            return await in_turns(contenders, rounds)


async def in_turns(contenders, rounds: int) -> dict[str, list[float]]:
    """Milliseconds by contender; the first round warms up."""
    found = {name: [] for name in contenders}
    for turn in range(-1, rounds):
        for name, work in contenders.items():
            started = time.perf_counter()
            await work()
            if turn >= 0:
                found[name].append((time.perf_counter() - started) * 1e3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cards", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--check", action="store_true", help="fail above 1 ms")
    args = parser.parse_args()
    with asyncio.Runner() as runner:
        costs = runner.run(measure(args.cards, args.rounds))
    print(f"{args.cards} card(s), {args.rounds} rounds, ms")
    for name, values in costs.items():
        p95 = float(np.percentile(values, 95))
        print(f"{name:28} median {statistics.median(values):7.3f}  p95 {p95:7.3f}")
    if args.check and statistics.median(costs["snapshot from files"]) >= GOAL_MS:
        raise SystemExit(f"A snapshot from files took {GOAL_MS} ms or more.")


if __name__ == "__main__":
    main()
