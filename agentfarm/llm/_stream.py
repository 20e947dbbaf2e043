"""An answer while it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast

from agentfarm.errors import AgentFarmError
from agentfarm.llm._call import Call, ClosedElsewhere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from types import AsyncGeneratorType, TracebackType

    from agentfarm.llm._messages import ChatChunk, ChatResponse

__all__ = ["ChatStream"]


class ChatStream:
    """The chunks of one answer, as an async iterator; made by `LLMRouter.stream`.

    Nothing is sent before the first iteration. Use it as an async context
    manager: leaving the block, by whatever way, closes the upstream connection
    at once and frees the place on the host::

        async with router.stream(request) as answer:
            async for chunk in answer:
                print(chunk.text, end="")
        print(answer.response.usage)
    """

    __slots__ = ("_call", "_chunks")

    def __init__(self, call: Call) -> None:
        # The generator must not refer to this object: so it is closed as soon as
        # a consumer without `async with` drops the stream, not by a later gc.
        self._call = call
        self._chunks = cast("AsyncGeneratorType[ChatChunk, None]", call.chunks())

    @property
    def response(self) -> ChatResponse:
        """The whole answer with its cost, once the iteration has ended.

        Raises:
            AgentFarmError: The answer is not complete.
        """
        response = self._call.outcome.response
        if response is None:
            raise AgentFarmError(
                "The answer is not complete, so it has no response.",
                remedy="Iterate to the end first; `text` holds what came so far.",
            )
        return response

    @property
    def text(self) -> str:
        """The content that arrived so far."""
        return self._call.outcome.text

    async def aclose(self) -> None:
        """Stop; any task may call this, and what iterates then sees the end."""
        if self._chunks.ag_running:
            self._call.interrupt(ClosedElsewhere())
            await self._call.finished.wait()
        else:
            await self._chunks.aclose()

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        # Not self: `async for` then steps the generator without a call through here.
        return self._chunks

    def __anext__(self) -> Awaitable[ChatChunk]:
        return self._chunks.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
