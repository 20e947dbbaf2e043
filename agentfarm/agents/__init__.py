"""Agents: models that work in a loop with tools, in roles, in a workflow."""

from __future__ import annotations

from agentfarm.agents._agent import (
    Agent,
    AgentResult,
    Budget,
    Caller,
    TokenCount,
    ToolUse,
)
from agentfarm.agents._checks import Check
from agentfarm.agents._collaboration import ask_peer_tool
from agentfarm.agents._context import ContextInjector, ContextPassage, context_block
from agentfarm.agents._executor import ExecutorAgent, StepResult
from agentfarm.agents._loop import run_agent
from agentfarm.agents._memory import Memory
from agentfarm.agents._plan import Plan, Step
from agentfarm.agents._planner import PlannerAgent, PlanResult
from agentfarm.agents._reviewer import Finding, Review, ReviewerAgent
from agentfarm.agents._ux_designer import UXDecision, UXDesignerAgent, needs_ux
from agentfarm.agents._verifier import Verification, VerifierAgent
from agentfarm.agents._workflow import Workflow
from agentfarm.agents._workflow_result import WorkflowResult
from agentfarm.agents._workflow_stream import WorkflowStream

__all__ = [
    "Agent",
    "AgentResult",
    "Budget",
    "Caller",
    "Check",
    "ContextInjector",
    "ContextPassage",
    "ExecutorAgent",
    "Finding",
    "Memory",
    "Plan",
    "PlanResult",
    "PlannerAgent",
    "Review",
    "ReviewerAgent",
    "Step",
    "StepResult",
    "TokenCount",
    "ToolUse",
    "UXDecision",
    "UXDesignerAgent",
    "Verification",
    "VerifierAgent",
    "Workflow",
    "WorkflowResult",
    "WorkflowStream",
    "ask_peer_tool",
    "context_block",
    "needs_ux",
    "run_agent",
]
