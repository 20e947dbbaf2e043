"""Waiting for a bus, with a deadline."""

import asyncio
import sys

import pytest


@pytest.fixture
def read():
    """Take a number of events from a subscription."""

    async def take(subscription, count):
        async with asyncio.timeout(5):
            return [await anext(subscription) for _ in range(count)]

    return take


@pytest.fixture
def until():
    """Let others run until a condition holds."""

    async def wait(condition):
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - the bus knows of no test
                await asyncio.sleep(0)

    return wait


@pytest.fixture
def often():
    """Switch between threads so often that a race shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
