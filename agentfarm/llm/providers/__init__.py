"""What answers a request: servers over HTTP, one of our own, or a recording.

Each loads on first use: a replay needs no HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentfarm.llm.providers._embedded import EmbeddedProvider
    from agentfarm.llm.providers._ollama import OllamaProvider, PullProgress
    from agentfarm.llm.providers._openai import OpenAIProvider
    from agentfarm.llm.providers._replay import RecordingProvider, ReplayProvider

__all__ = [
    "EmbeddedProvider",
    "OllamaProvider",
    "OpenAIProvider",
    "PullProgress",
    "RecordingProvider",
    "ReplayProvider",
]

_HOMES = {
    "EmbeddedProvider": "agentfarm.llm.providers._embedded",
    "OllamaProvider": "agentfarm.llm.providers._ollama",
    "OpenAIProvider": "agentfarm.llm.providers._openai",
    "PullProgress": "agentfarm.llm.providers._ollama",
    "RecordingProvider": "agentfarm.llm.providers._replay",
    "ReplayProvider": "agentfarm.llm.providers._replay",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
