"""The contract between the router and whatever answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from agentfarm.llm._messages import (
        ChatChunk,
        ChatRequest,
        ChatResponse,
        Health,
        ModelInfo,
    )


@runtime_checkable
class Provider(Protocol):
    """One LLM server, or something that behaves like one.

    Attributes:
        kind: ``openai``, ``ollama``, ``embedded``, ``replay`` or ``fake``.
        host: Base URL without credentials; the router limits concurrency by it.
    """

    kind: str
    host: str

    def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk | ChatResponse]:
        """Ask, yielding each chunk as it arrives and the whole answer last.

        `request.model` is the server's own name for the model. Closing the
        generator, or cancelling its consumer, closes the connection at once.

        Raises:
            ProviderError: Or one of its leaves, carrying the partial text.
        """
        ...

    async def models(self) -> list[ModelInfo]:
        """Models that the server offers.

        Raises:
            ProviderError: The server cannot be asked.
        """
        ...

    async def health(self) -> Health:
        """Whether the server is ready; never raises."""
        ...

    async def aclose(self) -> None:
        """Release connections and whatever else is held."""
        ...
