"""Agents work on a task, in a folder of its own."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from anyio import to_thread

from agentfarm.errors import (
    ContextOverflow,
    ProviderError,
    SandboxUnavailable,
    StoreError,
)
from agentfarm.evals._solver import Solution

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agentfarm.agents import WorkflowResult
    from agentfarm.errors import AgentFarmError
    from agentfarm.evals._solver import SolveContext
    from agentfarm.tools.sandbox import SandboxFile

# Where a sample's metadata name the workflow, whose requests are the sample's.
WORKFLOW = "workflow_run_id"
_DIFF_CHARS = 20_000
_NAME_CHARS = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowSolver:
    """Runs the Workflow on a task: plan, execute, verify, review.

    The workspace is a fresh folder below ``workspaces`` in AgentFarm's home, with
    the task's files in it. It is removed when its files have been read, and kept
    where the workflow failed or was interrupted. What a failed one wrote is scored
    like any other answer, unless its model's server was gone. Events and finished
    steps are kept as of any workflow.

    Attributes:
        max_rounds: How often failed checks or a review lead back to the executor.
    """

    name: ClassVar[str] = "workflow"
    needs_sandbox: ClassVar[bool] = True
    max_rounds: int = 2

    async def __call__(self, context: SolveContext) -> Solution:
        """Work on the task.

        Raises:
            ProviderError: The model's server is gone or refuses.
            SandboxError: There is no sandbox, or the files cannot be laid in or read.
            StoreError: The workflow's steps cannot be kept.
        """
        request = context.request
        folder = context.runtime.settings.home / "workspaces" / _folder_name(context)
        await to_thread.run_sync(_lay_in, folder, context.task.files)
        workflow = await context.runtime.workflow(
            folder,
            model=request.model,
            memory=None,  # no sample learns from another
            sample_id=request.context.sample_id,
            max_rounds=self.max_rounds,
            seed=request.seed,
            temperature=request.temperature,
        )
        task = "\n\n".join(turn.content for turn in request.messages)
        result = await workflow.run(task)
        if result.error is not None and _is_outage(result.error):
            raise result.error
        files = await to_thread.run_sync(_read, folder)
        if result.status == "completed":
            await to_thread.run_sync(shutil.rmtree, folder)
            return _solution(result, files)
        return _solution(result, files, workspace=str(folder))


def _is_outage(error: AgentFarmError) -> bool:
    """Whether it says nothing about the model or what it wrote."""
    if isinstance(error, ContextOverflow):
        return False
    return isinstance(error, ProviderError | SandboxUnavailable | StoreError)


def _solution(
    result: WorkflowResult, files: Mapping[str, SandboxFile], **more: str
) -> Solution:
    total = result.total_tokens
    return Solution(
        text=f"{result.summary}\n\n{_bounded(result.diff)}".strip(),
        files=files,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        tokens_estimated=total.estimated,
        metadata={**_facts(result), **more},
    )


def _facts(result: WorkflowResult) -> dict[str, Any]:
    return {
        WORKFLOW: result.run_id,
        "workflow_status": result.status,
        "workflow_error": str(result.error) if result.error else None,
        "rounds": result.rounds,
        "plan_steps": len(result.plan.steps) if result.plan else 0,
        "tokens": {
            agent: {
                "input_tokens": count.input_tokens,
                "output_tokens": count.output_tokens,
                "requests": count.requests,
            }
            for agent, count in result.tokens.items()
        },
        "verification": {
            check.name: check.status
            for check in (result.verification.checks if result.verification else ())
        },
        "written": list(result.written),
        "deleted": list(result.deleted),
    }


def _bounded(diff: str) -> str:
    if len(diff) <= _DIFF_CHARS:
        return diff
    return f"{diff[:_DIFF_CHARS]}\n… {len(diff) - _DIFF_CHARS} characters left out"


def _folder_name(context: SolveContext) -> str:
    """The sample's id, made fit for a file system without ever meeting another's."""
    sample_id = context.request.context.sample_id or context.request.request_id
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", sample_id)
    if plain == sample_id and len(plain) <= _NAME_CHARS:
        return plain
    digest = hashlib.sha256(sample_id.encode()).hexdigest()[:12]
    return f"{plain[:_NAME_CHARS]}-{digest}"


def _lay_in(folder: Path, files: Mapping[str, str]) -> None:
    """Make the folder anew with these files, whatever an earlier attempt left."""
    from agentfarm.tools.sandbox import SandboxFile, save

    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)
    save(
        {name: SandboxFile(content=text.encode()) for name, text in files.items()},
        folder,
    )


def _read(folder: Path) -> Mapping[str, SandboxFile]:
    from agentfarm.tools._workspace import take_snapshot

    return take_snapshot(folder).files
