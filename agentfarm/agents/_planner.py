"""The planner: a task becomes steps that executors can carry out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from agentfarm.agents._agent import Agent, Budget
from agentfarm.agents._handover import bounded_list, shortened
from agentfarm.agents._loop import run_agent
from agentfarm.agents._plan import PLAN_SCHEMA, Plan
from agentfarm.agents._prompts import instructions, sections
from agentfarm.tools import ToolRegistry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.agents._agent import AgentResult, Caller, ToolMode

LISTED_FILES = 100
MAX_TOKENS = 1536  # of a reply; a model that repeats itself ends there
SHOWN_PLAN_TOKENS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanResult:
    """A plan that can be carried out, whatever the planner said.

    Attributes:
        plan: The planner's, or the fallback, which is flagged.
        result: What the planner's requests came to, both questions together.
        problem: Why the planner's own plan was not taken; `""` if it was.
    """

    plan: Plan
    result: AgentResult
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class PlannerAgent:
    """Splits a task into steps with dependencies.

    Attributes:
        tools: What it may look with; none by default.
        budget: What one question may spend.
        tool_mode: How tools are offered; see `Agent`.
    """

    name: ClassVar[str] = "planner"
    tools: ToolRegistry = field(default_factory=ToolRegistry)
    budget: Budget = field(default_factory=lambda: Budget(steps=8, tool_calls=12))
    tool_mode: ToolMode = "auto"

    async def plan(
        self,
        task: str,
        *,
        caller: Caller,
        files: Sequence[str] = (),
        context: str = "",
    ) -> PlanResult:
        """Ask for a plan, once more if its steps make no sense.

        A weak model never ends the work here: what is no plan after the repair
        becomes a plan of one step, flagged as a fallback.

        Args:
            task: In the user's words.
            caller: Who asks.
            files: Names of what is in the workspace.
            context: A block as `context_block` makes it.

        Raises:
            ProviderError: The model's server could not be asked.
        """
        agent = Agent(
            name=self.name,
            instructions=instructions("planner", context),
            tools=self.tools,
            output_schema=PLAN_SCHEMA,
            task_type="planning",
            budget=self.budget,
            max_tokens=MAX_TOKENS,
            tool_mode=self.tool_mode,
        )
        question = sections(
            ("Task", task),
            ("Files in the workspace", bounded_list(files, LISTED_FILES) or "None."),
        )
        first = await run_agent(agent, question, caller=caller)
        plan = _read(first)
        if isinstance(plan, Plan):
            return PlanResult(plan=plan, result=first)
        if not first.ok:  # the loop has asked for a repair already
            return PlanResult(plan=Plan.fallback(task), result=first, problem=plan)
        written = shortened(json.dumps(first.output), SHOWN_PLAN_TOKENS)
        question += "\n\n" + sections(
            ("Your plan", written),
            ("What is wrong with it", f"{plan} Write the whole plan anew."),
        )
        second = await run_agent(agent, question, caller=caller)
        result = _joined(first, second)
        plan = _read(second)
        if isinstance(plan, Plan):
            return PlanResult(plan=plan, result=result)
        return PlanResult(plan=Plan.fallback(task), result=result, problem=plan)


def _read(result: AgentResult) -> Plan | str:
    if not result.ok:
        return f"The planner gave no valid plan; its run ended as {result.end}."
    return Plan.parse(result.output)


def _joined(first: AgentResult, second: AgentResult) -> AgentResult:
    """The second result with the cost of both."""
    return replace(
        second,
        tool_calls=(*first.tool_calls, *second.tool_calls),
        tokens=first.tokens + second.tokens,
        duration_s=first.duration_s + second.duration_s,
        warnings=(*first.warnings, *second.warnings),
    )
