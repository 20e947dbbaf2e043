"""What a workflow has finished, so that a resumed one need not do it again."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, to_thread

from agentfarm.agents._agent import TokenCount
from agentfarm.errors import StoreError
from agentfarm.store import (
    WorkflowRecord,
    WorkflowStepRecord,
    new_run_id,
    stamped,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from agentfarm.store import Store


class Journal:
    """One workflow's finished steps, in memory and in the Store.

    Args:
        record: The workflow as it stands.
        store: Where it is kept; nowhere if None.
        steps: What an earlier attempt has finished.
    """

    def __init__(
        self,
        record: WorkflowRecord,
        store: Store | None,
        steps: Iterable[WorkflowStepRecord] = (),
    ) -> None:
        self.record = record
        self._store = store
        self._steps = {step.key: step for step in steps}

    @classmethod
    async def begin(
        cls,
        task: str,
        workspace: Path,
        store: Store | None,
        *,
        model: str | None,
        config: Mapping[str, Any],
        run_id: str | None = None,
    ) -> Journal:
        """Start one for a new workflow, kept before this returns."""
        record = WorkflowRecord(
            run_id=run_id or new_run_id(),
            task=task,
            workspace=str(workspace),
            model=model,
            status="running",
            started_at=time.time(),
            config=config,
        )
        journal = cls(stamped(record), store)
        await journal._put()
        return journal

    @classmethod
    async def resume(cls, run_id: str, store: Store | None, workspace: Path) -> Journal:
        """Take up one that did not finish.

        Raises:
            StoreError: It is not there, runs still, is complete, or works in
                another folder.
        """
        if store is None:
            raise StoreError(
                f"Workflow {run_id} cannot be resumed without a Store.",
                remedy="Open a runtime; its Store keeps what is finished.",
            )
        previous = await to_thread.run_sync(store.workflow, run_id)
        if previous.status == "running":
            raise StoreError(
                f"Workflow {previous.run_id} still runs in process {previous.pid}.",
                remedy="Wait for it, or interrupt it first.",
            )
        if previous.status == "completed":
            raise StoreError(
                f"Workflow {previous.run_id} is complete: nothing is left to do.",
                remedy="Start a new one.",
            )
        if previous.workspace != str(workspace):
            raise StoreError(
                f"Workflow {previous.run_id} works in {previous.workspace}, not in "
                f"{workspace}.",
                remedy="Resume it in its own folder.",
            )
        steps = await to_thread.run_sync(store.workflow_steps, previous.run_id)
        record = replace(previous, status="running", finished_at=None, error=None)
        journal = cls(stamped(record), store, steps)
        await journal._put()
        return journal

    @property
    def tokens(self) -> dict[str, TokenCount]:
        """What each agent's finished steps cost."""
        found: dict[str, TokenCount] = {}
        for step in self._steps.values():
            if step.input_tokens is None and step.output_tokens is None:
                continue
            count = TokenCount(
                input_tokens=step.input_tokens or 0,
                output_tokens=step.output_tokens or 0,
                requests=int(step.output.get("requests") or 0),
                estimated=bool(step.output.get("tokens_estimated")),
            )
            found[step.agent] = found.get(step.agent, TokenCount()) + count
        return found

    def output_of(self, key: str) -> Mapping[str, Any] | None:
        """What a finished step handed on; None where it is not finished."""
        step = self._steps.get(key)
        return step.output if step else None

    async def keep(
        self,
        key: str,
        *,
        agent: str,
        output: Mapping[str, Any],
        started_at: float,
        ok: bool = True,
        tokens: TokenCount | None = None,
    ) -> None:
        """Note a finished step; it is kept when this returns, come what may."""
        if tokens is not None:
            output = {
                **output,
                "requests": tokens.requests,
                "tokens_estimated": tokens.estimated,
            }
        step = WorkflowStepRecord(
            run_id=self.record.run_id,
            key=key,
            seq=len(self._steps),
            agent=agent,
            status="ok" if ok else "failed",
            output=output,
            input_tokens=tokens.input_tokens if tokens else None,
            output_tokens=tokens.output_tokens if tokens else None,
            started_at=started_at,
            finished_at=time.time(),
        )
        self._steps[key] = step
        if self._store is not None:
            with CancelScope(shield=True):
                await self._store.put_workflow_step_async(step)

    async def end(self, **changes: Any) -> None:
        """Note how the workflow ended: `status`, and `summary` or `error`."""
        self.record = replace(self.record, finished_at=time.time(), **changes)
        with CancelScope(shield=True):
            await self._put()

    async def _put(self) -> None:
        if self._store is not None:
            await self._store.put_workflow_async(self.record)
