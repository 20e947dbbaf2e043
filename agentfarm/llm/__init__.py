"""Talk to models: messages, providers, and the router that chooses among them.

The providers load on first use, so that importing this package is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentfarm.llm._breaker import BreakerPolicy
from agentfarm.llm._build import build_router
from agentfarm.llm._messages import (
    CallContext,
    ChatChunk,
    ChatRequest,
    ChatResponse,
    Health,
    Message,
    ModelInfo,
    Role,
    ServerTiming,
    TaskType,
    Timing,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
    system,
    user,
)
from agentfarm.llm._provider import Provider
from agentfarm.llm._registry import RegisteredModel
from agentfarm.llm._retry import RetryPolicy
from agentfarm.llm._router import LLMRouter
from agentfarm.llm._status import ModelStatus, RouterStatus
from agentfarm.llm._stream import ChatStream

if TYPE_CHECKING:
    from agentfarm.llm._embedded import (
        EmbeddedStatus,
        embedded_down,
        embedded_status,
        embedded_up,
    )
    from agentfarm.llm._gguf import ModelProgress
    from agentfarm.llm._gguf import fetch_model as fetch_embedded_model
    from agentfarm.llm._gguf import find_model as find_embedded_model
    from agentfarm.llm._model_file import add_model, remove_model
    from agentfarm.llm.providers._embedded import EmbeddedProvider
    from agentfarm.llm.providers._ollama import OllamaProvider, PullProgress
    from agentfarm.llm.providers._openai import OpenAIProvider
    from agentfarm.llm.providers._replay import RecordingProvider, ReplayProvider

__all__ = [
    "BreakerPolicy",
    "CallContext",
    "ChatChunk",
    "ChatRequest",
    "ChatResponse",
    "ChatStream",
    "EmbeddedProvider",
    "EmbeddedStatus",
    "Health",
    "LLMRouter",
    "Message",
    "ModelInfo",
    "ModelProgress",
    "ModelStatus",
    "OllamaProvider",
    "OpenAIProvider",
    "Provider",
    "PullProgress",
    "RecordingProvider",
    "RegisteredModel",
    "ReplayProvider",
    "RetryPolicy",
    "Role",
    "RouterStatus",
    "ServerTiming",
    "TaskType",
    "Timing",
    "ToolCall",
    "ToolCallDelta",
    "ToolSpec",
    "Usage",
    "add_model",
    "build_router",
    "embedded_down",
    "embedded_status",
    "embedded_up",
    "fetch_embedded_model",
    "find_embedded_model",
    "remove_model",
    "system",
    "user",
]

# Where the rest is, as module and name.
_HOMES = {
    "EmbeddedProvider": ("providers._embedded", "EmbeddedProvider"),
    "EmbeddedStatus": ("_embedded", "EmbeddedStatus"),
    "ModelProgress": ("_gguf", "ModelProgress"),
    "OllamaProvider": ("providers._ollama", "OllamaProvider"),
    "OpenAIProvider": ("providers._openai", "OpenAIProvider"),
    "PullProgress": ("providers._ollama", "PullProgress"),
    "RecordingProvider": ("providers._replay", "RecordingProvider"),
    "ReplayProvider": ("providers._replay", "ReplayProvider"),
    "add_model": ("_model_file", "add_model"),
    "embedded_down": ("_embedded", "embedded_down"),
    "embedded_status": ("_embedded", "embedded_status"),
    "embedded_up": ("_embedded", "embedded_up"),
    "fetch_embedded_model": ("_gguf", "fetch_model"),
    "find_embedded_model": ("_gguf", "find_model"),
    "remove_model": ("_model_file", "remove_model"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        module, attribute = _HOMES[name]
        value = getattr(import_module(f"agentfarm.llm.{module}"), attribute)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'agentfarm.llm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
