"""A router on a clock that the test turns, without jitter."""

import random

import anyio
import pytest

from agentfarm.events import EventBus
from agentfarm.llm import LLMRouter, RegisteredModel


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now_s = 1000.0
        self.sleeps = []

    def clock(self):
        return self.now_s

    async def sleep(self, seconds):
        self.sleeps.append(round(seconds, 6))
        self.now_s += seconds
        await anyio.lowlevel.checkpoint()


class NoJitter(random.Random):
    def uniform(self, a, b):
        return b


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def bus():
    return EventBus()


@pytest.fixture
def make(time, bus):
    """Make a router; a provider given alone is registered as ``m``."""

    def make_router(*models, **options):
        entries = [
            m
            if isinstance(m, RegisteredModel)
            else RegisteredModel(name="m", provider=m)
            for m in models
        ]
        options = {
            "bus": bus,
            "clock": time.clock,
            "sleep": time.sleep,
            "rng": NoJitter(),
            **options,
        }
        return LLMRouter(entries, **options)

    return make_router
