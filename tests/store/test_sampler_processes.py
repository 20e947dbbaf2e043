"""Samplers in several processes at one database, of either engine."""

import signal
import time
from pathlib import Path

import anyio

from agentfarm.config import SamplerSettings
from agentfarm.events import EventBus
from agentfarm.monitoring import Sampler
from agentfarm.store import Store

HOLDER = """
import asyncio, sys
from pathlib import Path
from agentfarm.config import SamplerSettings
from agentfarm.events import EventBus
from agentfarm.monitoring import Sampler
from agentfarm.store import Store

async def main():
    bus = EventBus()
    bus.on(lambda event: print(event.data["timestamp"], flush=True))
    await Sampler(store=Store.open(sys.argv[1]), bus=bus, gpus=None,
                  settings=SamplerSettings(), disk=Path("/")).run()

asyncio.run(main())
"""


async def test_a_killed_holder_is_succeeded_within_five_seconds(url, python):
    child = python(HOLDER, url)
    first = await anyio.to_thread.run_sync(child.stdout.readline)
    with Store.open(url) as store:
        async with EventBus() as bus, bus.subscribe() as events:
            heir = Sampler(
                store=store,
                bus=bus,
                gpus=None,
                settings=SamplerSettings(),
                disk=Path("/"),
            )
            heir.start()
            with anyio.fail_after(30):
                relayed = await anext(events)
                assert relayed.data["timestamp"] > float(first)
                assert not heir.sampling
                child.send_signal(signal.SIGKILL)
                killed_at = time.time()
                async for event in events:
                    if heir.sampling and event.data["timestamp"] > killed_at:
                        break
            assert event.data["timestamp"] - killed_at < 5
            await heir.aclose()
        times = [row.timestamp for row in store.host_samples()]
        assert len(times) <= times[-1] - times[0] + 2, "one sampled at a time"
