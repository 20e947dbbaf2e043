"""Ask one task once, score the answer, and make the row that is kept."""

from __future__ import annotations

import inspect
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentfarm.errors import (
    AgentFarmError,
    EvalError,
    ProviderError,
    SandboxUnavailable,
)
from agentfarm.evals._scoring import Score, ScoreContext, needs_sandbox, scorer_name
from agentfarm.evals._solver import Solution, SolveContext
from agentfarm.llm import CallContext, ChatRequest
from agentfarm.store import SampleRecord

if TYPE_CHECKING:
    from agentfarm.evals._plan import Job, Plan
    from agentfarm.evals._suite import Task
    from agentfarm.llm import ChatResponse
    from agentfarm.tools.sandbox import Sandbox


@dataclass(slots=True)
class Attempt:
    """One asking of one task, as far as it got."""

    job: Job
    request: ChatRequest
    started_at: float
    response: ChatResponse | None = None
    solution: Solution | None = None
    latency_s: float | None = None
    score: Score | None = None
    error: Exception | None = None

    async def solve(self, plan: Plan) -> None:
        """Have the suite's solver work on the task, and take its time.

        What it raises is kept as the error, as with a scorer.

        Raises:
            AgentFarmError: As the solver raised it: a server may be gone.
        """
        solver = plan.suite.solver
        assert solver is not None  # noqa: S101 - the caller has looked
        context = SolveContext(
            task=self.job.task,
            request=self.request,
            runtime=plan.runtime,
            sandbox=plan.sandbox,
        )
        start = time.perf_counter()
        try:
            self.solution = _solution(await solver(context), solver)
        except AgentFarmError:
            raise
        except Exception as error:  # noqa: BLE001 - a solver's failure is data
            self.error = error
        finally:
            self.latency_s = time.perf_counter() - start

    async def judge(self, sandbox: Sandbox | None = None) -> None:
        """Score the answer; what the scorer raises is kept as the error.

        Raises:
            SandboxUnavailable: No code can be run any more; no answer's fault.
        """
        task = self.job.task
        try:
            result: Any = task.scorer(self._context(sandbox))
            if inspect.isawaitable(result):
                result = await result
            self.score = _checked(result, task)
        except SandboxUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a scorer's failure is data
            self.error = error

    def _context(self, sandbox: Sandbox | None) -> ScoreContext:
        task = self.job.task
        sandbox = sandbox if needs_sandbox(task.scorer) else None
        if self.solution is not None:
            return ScoreContext(
                task=task,
                text=self.solution.text.strip(),
                files=self.solution.files,
                sandbox=sandbox,
            )
        assert self.response is not None  # noqa: S101 - the caller has asked first
        return ScoreContext(
            task=task,
            text=self.response.text.strip(),
            response=self.response,
            sandbox=sandbox,
        )

    def record(self) -> SampleRecord:
        """The attempt as a row."""
        job, score, error = self.job, self.score, self.error
        return SampleRecord(
            sample_id=job.sample_id,
            run_id=self.request.context.run_id or "",
            task=job.task.id,
            epoch=job.epoch,
            status="error" if score is None else "ok",
            score=None if score is None else float(score.value),
            input=_input(self.request),
            target=" | ".join(job.task.targets),
            output=self._output(),
            scorer=scorer_name(job.task.scorer),
            started_at=self.started_at,
            finished_at=time.time(),
            explanation="" if score is None else score.explanation,
            error_type=None if error is None else type(error).__name__,
            error=None if error is None else str(error) or repr(error),
            metadata=self._metadata(),
            **self._measured(),
        )

    def _output(self) -> str:
        if self.solution is not None:
            return self.solution.text
        if self.response is not None:
            return self.response.text
        return self.error.partial_text if isinstance(self.error, ProviderError) else ""

    def _measured(self) -> dict[str, Any]:
        if self.latency_s is None:
            return _measured(self.response)
        # A solver's time; its requests' own are in their records.
        data: dict[str, Any] = {"latency_s": self.latency_s}
        if self.solution is not None:
            data["input_tokens"] = self.solution.input_tokens
            data["output_tokens"] = self.solution.output_tokens
            data["tokens_estimated"] = self.solution.tokens_estimated
        return data

    def _metadata(self) -> dict[str, Any]:
        """The task's, the solver's and the scorer's, its ``answer``, ``warnings``."""
        data: dict[str, Any] = dict(self.job.task.metadata)
        if self.solution is not None:
            data |= self.solution.metadata
        if self.score is not None:
            data |= self.score.metadata
            data["answer"] = self.score.answer
        if self.response is not None and self.response.warnings:
            data["warnings"] = list(self.response.warnings)
        return _json_values(data)


def make_request(job: Job, plan: Plan) -> ChatRequest:
    """What is sent for a job; epoch n uses ``seed + n - 1``."""
    task, record = job.task, plan.record
    seed = record.config["seed"]
    return ChatRequest(
        messages=task.conversation(plan.suite.system),
        model=record.model,
        response_schema=task.response_schema,
        temperature=record.config["temperature"],
        seed=None if seed is None else seed + job.epoch - 1,
        max_tokens=task.max_tokens or plan.suite.max_tokens,
        context=CallContext(run_id=record.run_id, sample_id=job.sample_id),
    )


def _checked(result: object, task: Task) -> Score:
    if isinstance(result, Score):
        return result
    raise EvalError(
        f"The scorer {scorer_name(task.scorer)} returned a {type(result).__name__}.",
        remedy="Return agentfarm.evals.Score(value=...).",
    )


def _solution(result: object, solver: object) -> Solution:
    if isinstance(result, Solution):
        return result
    raise EvalError(
        f"The solver {scorer_name(solver)} returned a {type(result).__name__}.",
        remedy="Return agentfarm.evals.Solution(text=...).",
    )


def _input(request: ChatRequest) -> str:
    turns = request.messages
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)


def _measured(response: ChatResponse | None) -> dict[str, Any]:
    if response is None:
        return {}
    timing, usage = response.timing, response.usage
    return {
        "latency_s": timing.latency_s,
        "ttft_s": timing.ttft_s,
        "queue_s": timing.queue_s,
        "load_s": timing.load_s,
        "output_tokens_per_s": response.output_tokens_per_s,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "tokens_estimated": usage.estimated,
        "finish_reason": response.finish_reason,
        "context_truncated": response.context_truncated,
        "attempts": response.attempts,
    }


def _json_values(data: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(data, allow_nan=False)
    except (TypeError, ValueError):
        # A scorer put in something that is not JSON, such as a NumPy number.
        data = {str(key): _json_value(value) for key, value in data.items()}
    return data


def _json_value(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
