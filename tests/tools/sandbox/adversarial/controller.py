"""A program with a sandbox, for tests which end it or look at its memory.

It prints a JSON object: whose its containers are, or how the flood went.
"""

import json
import sys
from pathlib import Path

import anyio

from agentfarm.containers import labels
from agentfarm.tools.sandbox import DockerSandbox, Limits, _docker, _options


def say(**words):
    print(json.dumps(words), flush=True)


def outlive_me(owner=None):
    """Lift what ends a container with its controller; another owner is never dead."""
    told = _docker.container_options

    def change(*arguments, **named):
        options = told(*arguments, **named) | {"StdinOnce": False}
        if owner:
            options["Labels"]["agentfarm.owner"] = owner
        return options

    _docker.container_options = change


async def run(sandbox, word):
    """Run something that does not end."""
    say(owner=labels("test", lifetime_s=60)["agentfarm.owner"])
    await sandbox.warm()
    async with anyio.create_task_group() as tasks:
        command = ["python3", "-c", "import time; time.sleep(600)", word]
        tasks.start_soon(lambda: sandbox.run(command, timeout_s=600.0))


def memory_bytes(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


async def flood(sandbox, seconds):
    """Be flooded, and say by how much memory that has taken at its height."""
    code = "import os\nwhile True: os.write(1, b'x' * 65536), os.write(2, b'y' * 65536)"
    await sandbox.run(python=code, timeout_s=0.5)
    if len(sys.argv) == 5:
        _options.SUPERVISOR = Path(sys.argv[4])
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak starts anew
    result = await sandbox.run(python=code, timeout_s=seconds)
    say(
        growth_bytes=memory_bytes("VmHWM") - before,
        kept_bytes=len(result.stdout) + len(result.stderr),
        timed_out=result.timed_out,
    )


async def main():
    what, argument, image = sys.argv[1:4]
    if what == "outlived":
        outlive_me(*sys.argv[4:])
    limits = Limits(output_bytes=int(argument)) if what == "flood" else Limits()
    async with DockerSandbox(
        image=image, pool=0 if what == "flood" else 2, limits=limits
    ) as sandbox:
        await (flood(sandbox, 5.0) if what == "flood" else run(sandbox, argument))


if __name__ == "__main__":
    anyio.run(main)
