"""The tools of one run: their calls counted, repeated ones stopped, all reported."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from agentfarm.agents._agent import ToolUse
from agentfarm.events import EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentfarm.agents._agent import AgentEnd, Budget
    from agentfarm.llm import ToolCall
    from agentfarm.tools import ToolRegistry

EVENT_CHARS = 2000


class Toolbox:
    """Runs the calls of one run of an agent.

    Args:
        tools: What there is.
        budget: How many calls, and how often the same.
        emit: Publishes an event.

    Attributes:
        uses: Every call in order; one that runs now counts as interrupted.
    """

    def __init__(
        self,
        tools: ToolRegistry,
        budget: Budget,
        emit: Callable[[EventType, Mapping[str, Any]], None],
    ) -> None:
        self.uses: list[ToolUse] = []
        self._tools = tools
        self._budget = budget
        self._emit = emit
        self._asked: Counter[bytes] = Counter()
        self._refused: set[bytes] = set()
        self._ids: set[str] = set()

    def named(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """The calls with ids that are unique in the run; not every server's are."""
        found = []
        for call in calls:
            name, number = call.id, len(self._ids)
            while not name or name in self._ids:
                number += 1
                name = f"call_{number}"
            self._ids.add(name)
            found.append(call if name == call.id else replace(call, id=name))
        return tuple(found)

    def limit(self, calls: Sequence[ToolCall]) -> AgentEnd | None:
        """The limit that these calls would pass; None where they may be run."""
        if any(_key(call) in self._refused for call in calls):
            return "repeated"
        if len(self.uses) + len(calls) > self._budget.tool_calls:
            return "tool_calls"
        return None

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolUse]:
        """Run the calls at once; their uses are in the order of the calls.

        Raises:
            AgentFarmError: A tool could not be used at all; the others are
                cancelled then. A tool's own bug comes out just so.
        """
        first = len(self.uses)
        self.uses += [_interrupted(call) for call in calls]
        refused = [self._is_one_too_many(call) for call in calls]
        if len(calls) == 1:
            await self._use(first, calls[0], refused[0])
        else:
            await self._use_all(first, calls, refused)
        done = self.uses[first:]
        self._forgive(calls, done)
        return done

    async def _use_all(
        self, first: int, calls: Sequence[ToolCall], refused: Sequence[bool]
    ) -> None:
        failures: list[Exception] = []

        async def use(number: int, call: ToolCall, refuse: bool) -> None:
            try:
                await self._use(number, call, refuse)
            except Exception as error:  # noqa: BLE001 - raised below, not in a group
                failures.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for offset, call in enumerate(calls):
                tasks.start_soon(use, first + offset, call, refused[offset])
        if failures:
            raise failures[0]

    async def _use(self, number: int, call: ToolCall, refuse: bool) -> None:
        self._emit(
            EventType.AGENT_TOOL_CALL,
            {"id": call.id, "tool": call.name, "arguments": call.arguments},
        )
        use = self.uses[number]
        started = time.perf_counter()
        try:
            if refuse:
                use = self._refusal(use)
            else:
                result = await self._tools.call(call)
                use = replace(use, ok=result.ok, text=result.text, data=result.data)
        except Exception as error:
            use = replace(use, text=f"{type(error).__name__}: {error}")
            raise
        finally:
            use = replace(use, duration_s=time.perf_counter() - started)
            self.uses[number] = use
            self._report(use)

    def _report(self, use: ToolUse) -> None:
        self._emit(
            EventType.AGENT_TOOL_RESULT,
            {
                "id": use.id,
                "tool": use.tool,
                "ok": use.ok,
                "text": both_ends(use.text, EVENT_CHARS),
                "data": use.data,
            },
        )
        created = _names(use.data, "created")
        for path in created:
            self._emit(EventType.CODE_GENERATED, {"path": path})
        for path in _names(use.data, "written"):
            if path not in created:
                self._emit(EventType.CODE_MODIFIED, {"path": path})

    def _is_one_too_many(self, call: ToolCall) -> bool:
        key = _key(call)
        self._asked[key] += 1
        if self._asked[key] <= self._budget.identical_calls:
            return False
        self._refused.add(key)
        return True

    def _forgive(self, calls: Sequence[ToolCall], done: Sequence[ToolUse]) -> None:
        """Where the workspace changed, asking again is no repetition.

        A call does not so excuse itself: writing the same again and again is one.
        """
        changed = {
            _key(call)
            for call, use in zip(calls, done, strict=True)
            if _names(use.data, "written") or _names(use.data, "deleted")
        }
        if changed:
            self._asked = Counter({key: self._asked[key] for key in changed})
            self._refused &= changed

    def _refusal(self, use: ToolUse) -> ToolUse:
        return replace(
            use,
            text=f"{use.tool} was not run: you called it {self._budget.identical_calls}"
            " times with exactly these arguments, and nothing has changed since. "
            "Do something else, or give your final answer.",
            data={"error": "repeated"},
        )


def both_ends(text: str, limit: int) -> str:
    """A text of at most about `limit` characters, its middle left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters …]\n{text[-half:]}"


def _interrupted(call: ToolCall) -> ToolUse:
    return ToolUse(
        id=call.id,
        tool=call.name,
        arguments=call.arguments,
        ok=False,
        text="It was interrupted.",
        data={"error": "interrupted"},
    )


def _key(call: ToolCall) -> bytes:
    """The same for calls that do the same."""
    if call.arguments is None:
        return f"{call.name} {call.raw_arguments}".encode(errors="backslashreplace")
    # A null is as good as nothing, see `Tool.call`.
    given = {name: value for name, value in call.arguments.items() if value is not None}
    return call.name.encode() + msgspec.json.encode(given, order="deterministic")


def _names(data: Mapping[str, Any], key: str) -> Sequence[str]:
    return data.get(key) or ()
