"""Who takes part in `bench_sandbox.py`, and what they run.

llm-sandbox gets what suits it best: no environment to set up, `sleep` as its
container's command, and SIGKILL to stop it (it waits 10 s for a command that ignores
SIGTERM).
"""

from __future__ import annotations

import asyncio
import secrets
import time

from agentfarm.containers import labels
from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox import BubblewrapSandbox, DockerSandbox

CODE = "print(1)"
POOL = 4
AT_ONCE = 8
TIMEOUT_S = 1.0
FLOOD_S = 5.0
DEFAULT = "llm-sandbox, default"
COLD = "agentfarm, opened for one run"
BUBBLEWRAP = "agentfarm, bubblewrap"
POOLED = f"agentfarm, pool of {POOL}, at most 1 run/s"

FLOOD = f"""
import os, threading, time
end, counts = time.monotonic() + {FLOOD_S}, []
def flood(stream):
    count = 0
    while time.monotonic() < end:
        count += os.write(stream, b"x" * 65536)
    counts.append(count)
other = threading.Thread(target=flood, args=(2,))
other.start()
flood(1)
other.join()
open("written", "w").write(str(sum(counts)))
"""

# What a job could at worst make of the supervisor: it keeps to the format of the
# frames, and to no limit.
HOSTILE = f"""
import os, struct, threading, time
def frame(kind, payload=b""):
    return struct.pack(">cI", kind, len(payload)) + payload
os.write(1, frame(b"R"))
seen = b""
while not seen.endswith(frame(b"G")):
    seen += os.read(0, 65536)
end = time.monotonic() + {FLOOD_S}
def flood(stream, data):
    while time.monotonic() < end:
        os.write(stream, data)
threading.Thread(target=flood, args=(2, b"x" * 65536)).start()
flood(1, frame(b"O", b"x" * 65536) + frame(b"E", b"x" * 65536))
os.write(1, frame(b"X", b'{{"code": 0, "oom_killed": false}}') + frame(b"."))
"""

# Ignores what can be ignored, in two sessions, with its output closed.
STUBBORN = """
import os, signal, sys
for number in range(1, signal.NSIG):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
if os.fork() == 0:
    os.setsid()
os.close(1)
os.close(2)
wait = "import time; time.sleep(30)"
os.execv(sys.executable, [sys.executable, "-c", wait, "TOKEN"])
"""


class Ours:
    """Runs on our sandbox; `pool=None` opens one for every run."""

    def __init__(self, name, make, *, engine=None, pool=None):
        self.name = name
        self.make, self.engine, self.pool = make, engine, pool
        self.sandbox = make() if pool is not None else None

    async def once(self):
        """Seconds to the result, and until nothing is left of the run."""
        started = time.perf_counter()
        if self.sandbox is not None:
            await expect_one(self.sandbox)
            return time.perf_counter() - started, None
        async with self.make() as sandbox:
            await expect_one(sandbox)
            result_s = time.perf_counter() - started
        return result_s, time.perf_counter() - started

    async def aclose(self):
        if self.sandbox is not None:
            await self.sandbox.aclose()


class Theirs:
    """Runs in sessions of llm-sandbox, a new one for every run."""

    def __init__(self, name, *, keep=None, **options):
        self.name, self.keep, self.options = name, keep, options

    async def once(self):
        """As of `Ours`; closing a session of theirs is not part of the result."""
        return await asyncio.to_thread(self.run)

    def run(self):
        from llm_sandbox import SandboxSession

        started = time.perf_counter()
        with SandboxSession(lang="python", **self.options) as session:
            if session.run(CODE).stdout.strip() != "1":
                raise SystemExit(f"{self.name} did not print 1.")
            result_s = time.perf_counter() - started
        whole_s = None if self.keep else time.perf_counter() - started
        return result_s, whole_s

    async def aclose(self):
        if self.keep is not None:
            await asyncio.to_thread(self.keep.close)


async def settle(contenders):
    """Wait until every pool is full and the engine has removed what ran."""
    ours = [one for one in contenders if isinstance(one, Ours)]
    for one in ours:
        if one.pool:
            await one.sandbox.warm()
    ready = sum(one.pool or 0 for one in ours)
    for engine in {one.engine for one in ours if one.engine is not None}:
        while len(own_containers(engine)) > ready:  # noqa: ASYNC110 - no event says it
            await asyncio.sleep(0.02)


async def expect_one(sandbox):
    result = await sandbox.run(python=CODE)
    if result.stdout != "1\n":
        raise SystemExit(f"The sandbox did not print 1: {result} {result.stderr}")


def own_containers(engine):
    """Ids of the containers that this process made."""
    owner = labels("sandbox", lifetime_s=1)["agentfarm.owner"]
    with engine.calls("list containers") as api:
        found = api.containers(
            all=True, filters={"label": f"agentfarm.owner={owner}"}, quiet=True
        )
    return [item["Id"] for item in found]


def make_peer_image(engine, image):
    """Our image with a `python` where llm-sandbox looks for it, as a thin layer."""
    links = (
        "mkdir -p /sandbox/.sandbox-venv/bin && "
        "ln -sf $(command -v python3) /sandbox/.sandbox-venv/bin/python && "
        "{ command -v python || ln -s python3 $(command -v python3 | sed s/3$//); }"
    )
    name = "agentfarm-bench"
    with engine.calls("make the peer's image") as api:
        made = api.create_container(
            image, ["/bin/sh", "-c", links], user="0:0", labels={"agentfarm.bench": ""}
        )
        try:
            api.start(made["Id"])
            if api.wait(made["Id"])["StatusCode"] != 0:
                raise SystemExit(f"{image}: {api.logs(made['Id']).decode()}")
            api.commit(made["Id"], name, tag := secrets.token_hex(4))
        finally:
            api.remove_container(made["Id"], force=True)
    return f"{name}:{tag}"


def remove_peer_image(engine, name):
    """Remove it with whatever still runs on it."""
    with engine.calls("remove the peer's image") as api:
        for left in api.containers(all=True, filters={"ancestor": name}):
            engine.remove_container(left["Id"])
        api.remove_image(name)


def peer_options(image, **runtime):
    runtime = {"command": ["sleep", "600"], "stop_signal": "SIGKILL", **runtime}
    return {"image": image, "skip_environment_setup": True, "runtime_configs": runtime}


def docker_peers(image):
    """llm-sandbox as it comes, without a network, and with its pool."""
    from llm_sandbox.pool import PoolConfig, create_pool_manager

    options = peer_options(image)
    pool = create_pool_manager(
        config=PoolConfig(max_pool_size=POOL, min_pool_size=POOL),
        lang="python",
        **options,
    )
    return [
        Theirs(DEFAULT, **options),
        Theirs("llm-sandbox, no network", **peer_options(image, network_mode="none")),
        Theirs(f"llm-sandbox, pool of {POOL}, reused", keep=pool, pool=pool),
    ]


def docker_contenders(engine, image):
    def sandbox(pool):
        return lambda: DockerSandbox(
            engine=engine, image=image, pool=pool, concurrency=AT_ONCE
        )

    return [
        Ours(COLD, sandbox(0), engine=engine),
        Ours("agentfarm, open, no pool", sandbox(0), engine=engine, pool=0),
        Ours(POOLED, sandbox(POOL), engine=engine, pool=POOL),
    ]


async def bubblewrap_contenders(with_peer):
    sandbox = BubblewrapSandbox(concurrency=AT_ONCE)
    try:
        await expect_one(sandbox)
    except SandboxUnavailable as error:
        print(f"bubblewrap is not measured: {error}")
        return []
    finally:
        await sandbox.aclose()

    def make():
        return BubblewrapSandbox(concurrency=AT_ONCE)

    ours = [Ours(BUBBLEWRAP, make, pool=0), Ours(f"{BUBBLEWRAP}, opened for it", make)]
    options = {"backend": "bubblewrap", "skip_environment_setup": True}
    return [*ours, *([Theirs("llm-sandbox, bubblewrap", **options)] * with_peer)]


def our_timeout(sandbox):
    async def run(code, ended):
        started = time.perf_counter()
        result = await sandbox.run(python=code, timeout_s=TIMEOUT_S)
        took_s = time.perf_counter() - started
        ended()
        if not result.timed_out:
            raise SystemExit(f"The stubborn job ended by itself: {result.stderr}")
        return took_s - result.startup_s - TIMEOUT_S

    return run


def their_timeout(options):
    def work(code, ended):
        from llm_sandbox import SandboxSession
        from llm_sandbox.exceptions import SandboxTimeoutError

        with SandboxSession(lang="python", **options) as session:
            started = time.perf_counter()
            try:
                session.run(code, timeout=TIMEOUT_S)
            except SandboxTimeoutError:
                took_s = time.perf_counter() - started
            ended()
        return took_s - TIMEOUT_S

    return lambda code, ended: asyncio.to_thread(work, code, ended)
