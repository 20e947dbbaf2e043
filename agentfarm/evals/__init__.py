"""Run suites of tasks against models and keep what came of it.

A suite is tasks, each with a scorer. `run` asks a model every task, keeps each
sample in the Store the moment it is finished, and returns an `EvalRun` with
scores, timings and tokens, as a table, as JSON values and as pandas frames.
"""

from __future__ import annotations

from agentfarm.evals._code_benchmarks import human_eval, mbpp
from agentfarm.evals._energy import RunEnergy, energy_of_run
from agentfarm.evals._frames import requests_frame, runs_frame, samples_frame
from agentfarm.evals._loading import load_suite, suite_names
from agentfarm.evals._pass_at_k import pass_at_k
from agentfarm.evals._progress import Progress
from agentfarm.evals._result import (
    EvalRun,
    RunSummary,
    TaskResult,
    load_run,
    run_summaries,
)
from agentfarm.evals._run import run, run_sync
from agentfarm.evals._scorers import (
    choice,
    exact,
    includes,
    json_schema,
    numeric,
    regex,
)
from agentfarm.evals._scoring import Score, ScoreContext, Scorer, TaskCheck
from agentfarm.evals._solver import Solution, SolveContext, Solver
from agentfarm.evals._suite import Suite, Task
from agentfarm.evals._workflow_solver import WorkflowSolver

__all__ = [
    "EvalRun",
    "Progress",
    "RunEnergy",
    "RunSummary",
    "Score",
    "ScoreContext",
    "Scorer",
    "Solution",
    "SolveContext",
    "Solver",
    "Suite",
    "Task",
    "TaskCheck",
    "TaskResult",
    "WorkflowSolver",
    "choice",
    "energy_of_run",
    "exact",
    "human_eval",
    "includes",
    "json_schema",
    "load_run",
    "load_suite",
    "mbpp",
    "numeric",
    "pass_at_k",
    "regex",
    "requests_frame",
    "run",
    "run_summaries",
    "run_sync",
    "runs_frame",
    "samples_frame",
    "suite_names",
]
