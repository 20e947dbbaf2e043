"""Ask one task once, score the answer, and make the row that is kept."""

from __future__ import annotations

import inspect
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentfarm.errors import EvalError, ProviderError
from agentfarm.evals._scoring import Score, ScoreContext, scorer_name
from agentfarm.llm import CallContext, ChatRequest
from agentfarm.store import SampleRecord

if TYPE_CHECKING:
    from agentfarm.evals._plan import Job, Plan
    from agentfarm.evals._suite import Task
    from agentfarm.llm import ChatResponse


@dataclass(slots=True)
class Attempt:
    """One asking of one task, as far as it got."""

    job: Job
    request: ChatRequest
    started_at: float
    response: ChatResponse | None = None
    score: Score | None = None
    error: Exception | None = None

    async def judge(self) -> None:
        """Score the response; what the scorer raises is kept as the error."""
        assert self.response is not None  # noqa: S101 - the caller has asked first
        task = self.job.task
        context = ScoreContext(
            task=task, text=self.response.text.strip(), response=self.response
        )
        try:
            result: Any = task.scorer(context)
            if inspect.isawaitable(result):
                result = await result
            self.score = _checked(result, task)
        except Exception as error:  # noqa: BLE001 - a scorer's failure is data
            self.error = error

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
            metadata=_metadata(job.task, score, self.response),
            **_measured(self.response),
        )

    def _output(self) -> str:
        if self.response is not None:
            return self.response.text
        return self.error.partial_text if isinstance(self.error, ProviderError) else ""


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


def _metadata(
    task: Task, score: Score | None, response: ChatResponse | None
) -> dict[str, Any]:
    """The task's metadata, the scorer's, its ``answer``, and any ``warnings``."""
    data: dict[str, Any] = dict(task.metadata)
    if score is not None:
        data |= score.metadata
        data["answer"] = score.answer
    if response is not None and response.warnings:
        data["warnings"] = list(response.warnings)
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
