"""GPUs that follow a script."""

import time
from dataclasses import replace

import pytest

from agentfarm.monitoring import GPUReading, GPUSnapshot

CARD = GPUReading(
    uuid="GPU-1",
    index=0,
    vendor="nvidia",
    source="nvml",
    name="Card",
    driver="1.0",
    temperature_c=60.0,
    vram_used_bytes=2**30,
    vram_total_bytes=2**34,
    power_w=100.0,
    utilization_percent=90.0,
    throttle_reasons=("hw_thermal_slowdown", "sw_power_cap"),
)


class ScriptedGPUs:
    """Gives the same cards at every moment, or raises, or never answers."""

    def __init__(self, *cards):
        self.cards = cards
        self.error = None
        self.wait = None
        self.asked = 0

    async def snapshot(self):
        self.asked += 1
        if self.wait is not None:
            await self.wait.wait()
        if self.error is not None:
            raise self.error
        return GPUSnapshot(
            timestamp=time.time(),
            gpus=self.cards,
            reason="" if self.cards else "No GPU found",
        )


@pytest.fixture
def a_card():
    def make(**fields):
        return replace(CARD, **fields)

    return make


@pytest.fixture
def scripted_gpus(a_card):
    return ScriptedGPUs(a_card())
