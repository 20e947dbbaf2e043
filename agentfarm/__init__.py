"""A research workbench for LLM agents on your own hardware, Jupyter first.

Names load on first use, so that `import agentfarm` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentfarm._version import __version__

if TYPE_CHECKING:
    from agentfarm.config import Settings, load_settings
    from agentfarm.errors import AgentFarmError
    from agentfarm.events import EventBus
    from agentfarm.runtime import Runtime, open_runtime

__all__ = [
    "AgentFarmError",
    "EventBus",
    "Runtime",
    "Settings",
    "__version__",
    "load_settings",
    "open_runtime",
]

_HOMES = {
    "AgentFarmError": "agentfarm.errors",
    "EventBus": "agentfarm.events",
    "Runtime": "agentfarm.runtime",
    "Settings": "agentfarm.config",
    "load_settings": "agentfarm.config",
    "open_runtime": "agentfarm.runtime",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'agentfarm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
