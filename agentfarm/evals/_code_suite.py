"""Suites of coding tasks: agents work in a folder, hidden tests judge what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from agentfarm.errors import EvalError
from agentfarm.evals._code import LANGUAGES, load_code_tasks, score_files
from agentfarm.evals._scoring import Score
from agentfarm.evals._suite import Suite, Task
from agentfarm.evals._workflow_solver import WorkflowSolver

if TYPE_CHECKING:
    from pathlib import Path

    from agentfarm.evals._code import CodeTask
    from agentfarm.evals._scoring import ScoreContext
    from agentfarm.evals._solver import Solver


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenTests:
    """Scores the share of a coding task's hidden checks that pass in the sandbox."""

    name: ClassVar[str] = "hidden_tests"
    needs_sandbox: ClassVar[bool] = True
    task: CodeTask

    def spec(self) -> dict[str, Any]:
        """What decides the score; the solutions do not."""
        return {
            "tests": dict(self.task.tests),
            "weights": dict(self.task.weights),
            "check_timeout_s": self.task.check_timeout_s,
        }

    async def __call__(self, context: ScoreContext) -> Score:
        assert context.sandbox is not None  # noqa: S101 - the run has opened it
        result = await score_files(self.task, context.files, context.sandbox)
        return Score(
            value=result.value,
            answer=f"{result.passed}/{result.total} checks",
            explanation=result.explanation,
            metadata={
                "checks_passed": result.passed,
                "checks_total": result.total,
                "checks": {name: status for name, status, _ in result.checks},
                "messages": {name: text for name, _, text in result.checks if text},
            },
        )


def code_suite(
    folder: Path,
    *,
    name: str,
    description: str = "",
    language: str = "en",
    solver: Solver | None = None,
) -> Suite:
    """Make a suite of the coding tasks in a folder.

    Args:
        folder: As `load_code_tasks` wants it.
        name: What people call the suite.
        description: One sentence for people.
        language: Of the prompts, ``en`` or ``sv``; all else is the same.
        solver: Works on the tasks; `WorkflowSolver` if None.

    Raises:
        EvalError: A task is malformed or the language unknown.
    """
    if language not in LANGUAGES:
        raise EvalError(
            f"There are no prompts in {language!r}.",
            remedy=f"Use one of {', '.join(LANGUAGES)}.",
        )
    return Suite(
        name=name,
        description=description,
        tasks=tuple(_task(task, language) for task in load_code_tasks(folder)),
        solver=solver or WorkflowSolver(),
        max_tokens=2048,
    )


def _task(code: CodeTask, language: str) -> Task:
    return Task(
        id=code.id,
        prompt=code.prompts[language],
        scorer=HiddenTests(task=code),
        files=code.files,
        reference=code.reference,
        metadata={
            "category": code.category,
            "title": code.title,
            "language": language,
        },
    )
