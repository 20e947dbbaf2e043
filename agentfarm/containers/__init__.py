"""The one door to Docker: a lazy engine, our labels, and the removal of orphans.

Nothing is imported or connected until an `Engine` is used.
"""

from __future__ import annotations

from agentfarm.containers._advisories import Weakness, mentions, weaknesses
from agentfarm.containers._engine import DEFAULT_URL, Engine
from agentfarm.containers._info import EngineInfo
from agentfarm.containers._labels import Owned, Reaped, labels, owned, reap
from agentfarm.containers._owner import Owner

__all__ = [
    "DEFAULT_URL",
    "Engine",
    "EngineInfo",
    "Owned",
    "Owner",
    "Reaped",
    "Weakness",
    "labels",
    "mentions",
    "owned",
    "reap",
    "weaknesses",
]
