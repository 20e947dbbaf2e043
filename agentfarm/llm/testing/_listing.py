"""What a stub server says of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.llm._messages import ModelInfo

__all__ = ["default_pull", "find", "ollama_ps", "ollama_show", "ollama_tags"]
__all__ += ["openai_models", "props"]


def openai_models(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """``/v1/models``, with llama.cpp's ``meta`` where the context is known."""
    return {"object": "list", "data": [_openai_model(model) for model in models]}


def props(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """llama.cpp's ``/props`` of the first model."""
    model = models[0]
    tools = "tools" in model.capabilities
    return {
        "default_generation_settings": {"n_ctx": model.context_length},
        "total_slots": model.slots or 1,
        "model_alias": model.name,
        "modalities": {"vision": "vision" in model.capabilities},
        "chat_template_caps": {"supports_tools": tools, "supports_tool_calls": tools},
        "build_info": "stub",
    }


def ollama_tags(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """``/api/tags``: models on the disk."""
    return {
        "models": [
            {
                "name": model.name,
                "model": model.name,
                "modified_at": "2026-08-21T10:00:00Z",
                "size": model.size_bytes or 0,
                "digest": "0" * 64,
                "details": _details(model),
                "capabilities": _capabilities(model),
            }
            for model in models
        ]
    }


def ollama_ps(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """``/api/ps``: models in memory."""
    return {
        "models": [
            {
                "name": model.name,
                "model": model.name,
                "size": model.size_bytes or 0,
                "size_vram": 0,
                "digest": "0" * 64,
                "details": _details(model),
                "expires_at": "2026-08-21T10:05:00Z",
                "context_length": model.context_length,
            }
            for model in models
            if model.loaded
        ]
    }


def ollama_show(model: ModelInfo) -> dict[str, Any]:
    """``/api/show`` of one model."""
    info: dict[str, Any] = {"general.architecture": "llama"}
    if model.context_length is not None:
        info["llama.context_length"] = model.context_length
    return {
        "details": _details(model),
        "model_info": info,
        "capabilities": _capabilities(model),
    }


def default_pull(total_bytes: int = 1_000) -> list[dict[str, Any]]:
    """``/api/pull``: the progress of one layer in four steps."""
    layer = "sha256:" + "0" * 64
    name = f"pulling {layer[7:19]}"
    steps = [total_bytes * quarter // 4 for quarter in range(5)]
    return [
        {"status": "pulling manifest"},
        *(
            {"status": name, "digest": layer, "total": total_bytes}
            | ({"completed": done} if done else {})
            for done in steps
        ),
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]


def find(models: Sequence[ModelInfo], name: str) -> ModelInfo | None:
    """The model of this name; Ollama adds ``:latest`` where there is no tag."""
    names = {name, f"{name}:latest"}
    return next((model for model in models if model.name in names), None)


def _openai_model(model: ModelInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": 1_795_366_372,
        "owned_by": "stub",
    }
    if model.context_length is not None:
        entry["meta"] = {
            "n_ctx": model.context_length,
            "n_ctx_train": model.context_length,
            "size": model.size_bytes or 0,
        }
    return entry


def _capabilities(model: ModelInfo) -> list[str]:
    known = model.capabilities & {"tools", "thinking", "vision"}
    return ["completion", *sorted(known)]


def _details(model: ModelInfo) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "parameter_size": str(model.details.get("parameter_size", "")),
        "quantization_level": str(model.details.get("quantization_level", "")),
    }
