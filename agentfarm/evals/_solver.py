"""What works on a task in place of one question to a model."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from agentfarm.errors import EvalError

if TYPE_CHECKING:
    from agentfarm.evals._suite import Task
    from agentfarm.llm import ChatRequest, ChatResponse, Message
    from agentfarm.runtime import Runtime
    from agentfarm.tools.sandbox import Sandbox, SandboxFile


@dataclass(frozen=True, kw_only=True, slots=True)
class SolveContext:
    """Everything a solver may use.

    Attributes:
        task: The task, with the files it starts from.
        request: What one question to the model would be: the conversation, model,
            temperature, seed, and who asks. Whatever a solver asks should carry its
            `context`, so that requests are joined with the sample.
        runtime: The way to models, Store and bus.
        sandbox: Where code is run; None unless a scorer or the solver says
            ``needs_sandbox``.
    """

    task: Task
    request: ChatRequest
    runtime: Runtime
    sandbox: Sandbox | None = None

    async def ask(self, messages: Sequence[Message] | None = None) -> ChatResponse:
        """Ask the run's model, in the name of this sample, as often as needed.

        Args:
            messages: The conversation; the task's own if None.

        Raises:
            ProviderError: As `LLMRouter.complete` does.
        """
        request = replace(
            self.request,
            messages=self.request.messages if messages is None else tuple(messages),
            request_id=uuid.uuid4().hex,  # each request is a row of its own
        )
        return await self.runtime.router.complete(request)


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """What a solver came to.

    Attributes:
        text: The answer in words; it is kept as the sample's output.
        files: What it left in its workspace, by relative name; only the scorer
            sees them.
        input_tokens, output_tokens: Over all its requests; None where unknown.
        tokens_estimated: Whether any of them is estimated.
        metadata: Whatever else is worth keeping, as JSON values.

    Raises:
        EvalError: A field could not be kept.
    """

    text: str
    files: Mapping[str, SandboxFile] = field(
        default_factory=lambda: MappingProxyType({})
    )
    input_tokens: int | None = None
    output_tokens: int | None = None
    tokens_estimated: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text: object = self.text  # a solver is not type-checked
        if not isinstance(text, str) or not isinstance(self.metadata, Mapping):
            raise EvalError(
                f"A solution has text={text!r:.200}, metadata={self.metadata!r:.200}.",
                remedy="Give it a text and a mapping.",
            )


class Solver(Protocol):
    """Works on one task, e.g. with agents; any async function of this shape is one.

    A ProviderError that it raises counts as the model's server failing, as it does
    where a model is asked once. Any other exception becomes the sample's error and
    stops nothing. Its wall time is the sample's latency. A solver may have
    ``needs_sandbox = True``. A dataclass's fields are kept in the run's `config`.
    """

    async def __call__(self, context: SolveContext, /) -> Solution:
        """Work on `context.task` by asking `context.request.model`."""
        ...
