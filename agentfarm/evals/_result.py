"""What a run came to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from agentfarm.evals._pass_at_k import samples_pass_at
from agentfarm.evals._sample_frame import samples_with_energy
from agentfarm.evals._workflow_solver import WORKFLOW
from agentfarm.events import RequestRecord
from agentfarm.store._columns import records_frame

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from agentfarm.store import RunRecord, SampleRecord, Store


# For which pass@k people report figures.
_KS = (1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """One task over its epochs.

    Attributes:
        task: Its id.
        samples, errors: How many there are, and how many of them have no score.
        score: Mean, an error counting 0.
        latency_s, ttft_s, output_tokens_per_s: Medians of those known, else None.
        input_tokens, output_tokens: Sums; None where none is known.
    """

    task: str
    samples: int
    errors: int
    score: float
    latency_s: float | None
    ttft_s: float | None
    output_tokens_per_s: float | None
    input_tokens: int | None
    output_tokens: int | None

    @property
    def status(self) -> str:
        """``ok``, ``error``, or how many of the samples are errors."""
        if not self.errors:
            return "ok"
        return "error" if self.samples == 1 else f"{self.errors} errors"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalRun:
    """A run with its samples and requests.

    Attributes:
        run: What was asked, of what, and how it ended.
        samples: The finished ones, by start.
        requests: What the model was asked, by start; retries of a resumed run too,
            but of a sample that a workflow worked on only the last attempt's.
    """

    run: RunRecord
    samples: tuple[SampleRecord, ...]
    requests: tuple[RequestRecord, ...] = ()

    @property
    def score(self) -> float | None:
        """Mean over all finished samples, an error counting 0; None without any."""
        return _mean(sample.score or 0.0 for sample in self.samples)

    @property
    def score_stderr(self) -> float | None:
        """Standard error of `score`; None for fewer than two tasks.

        Epochs of one task are not independent, so it is taken over the tasks'
        means: s / sqrt(number of tasks), with the sample standard deviation s.
        """
        means = [task.score for task in self.tasks]
        return stdev(means) / math.sqrt(len(means)) if len(means) > 1 else None

    @property
    def errors(self) -> int:
        """Samples without a score."""
        return sum(sample.status == "error" for sample in self.samples)

    @property
    def tasks(self) -> tuple[TaskResult, ...]:
        """One result per task, in the order in which they were begun."""
        groups: dict[str, list[SampleRecord]] = {}
        for sample in self.samples:
            groups.setdefault(sample.task, []).append(sample)
        return tuple(_task_result(task, rows) for task, rows in groups.items())

    def pass_at(self, k: int) -> float:
        """How likely one of `k` answers to a task has a score of 1, mean over tasks.

        It is `agentfarm.evals.pass_at_k` over each task's epochs; an error is wrong.

        Raises:
            EvalError: Some task has fewer than `k` finished samples.
        """
        return samples_pass_at(self.samples, k)

    @property
    def epochs_done(self) -> int:
        """Finished samples of the task that has fewest: the largest k of `pass_at`."""
        return min((task.samples for task in self.tasks), default=0)

    def samples_frame(self) -> pd.DataFrame:
        """The samples, see `agentfarm.evals.samples_frame`."""
        return samples_with_energy(self.samples)

    def requests_frame(self) -> pd.DataFrame:
        """The requests, see `agentfarm.evals.requests_frame`."""
        return records_frame(self.requests, RequestRecord)

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON values: its fields, scores, and all `samples`."""
        return {
            **_plain(self.run),
            "score": self.score,
            "score_stderr": self.score_stderr,
            "errors": self.errors,
            **self._passes(),
            "samples": [_plain(sample) for sample in self.samples],
        }

    def _passes(self) -> dict[str, Any]:
        """pass@k where it says more than the score: from two epochs on."""
        most = self.epochs_done
        ks = sorted({k for k in _KS if k < most} | {most}) if most > 1 else ()
        return {"pass_at": {str(k): self.pass_at(k) for k in ks}} if ks else {}

    def __rich__(self) -> RenderableType:
        from agentfarm.evals._report import rich_report

        return rich_report(self)

    def _repr_html_(self) -> str:
        from agentfarm.evals._report import html_report

        return html_report(self)

    def __repr__(self) -> str:
        score = "-" if self.score is None else f"{self.score:.3f}"
        return (
            f"<EvalRun {self.run.run_id} {self.run.suite} on {self.run.model}: "
            f"{self.run.status}, {len(self.samples)} samples, score {score}>"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """One run in a list of runs.

    Attributes:
        run: What was asked, of what, and how it ended.
        score: Mean over the finished samples, an error counting 0; None without any.
        samples, errors: Finished samples, and those of them without a score.
    """

    run: RunRecord
    score: float | None
    samples: int
    errors: int

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON values, the run's fields among them."""
        return {
            **_plain(self.run),
            "score": self.score,
            "samples": self.samples,
            "errors": self.errors,
        }


def load_run(store: Store, run_id: str = "latest") -> EvalRun:
    """Read a run back from the Store, finished or not.

    Args:
        store: Where it is kept.
        run_id: Id, unique beginning of one, or ``latest``.

    Raises:
        StoreError: There is no such run; the message names near ones.
    """
    run = store.run(run_id)
    samples = store.samples(run.run_id)
    return EvalRun(
        run=run,
        samples=tuple(samples),
        requests=requests_of(store, run.run_id, samples),
    )


def requests_of(
    store: Store, run_id: str, samples: Sequence[SampleRecord]
) -> tuple[RequestRecord, ...]:
    """What a run asked, by start: its own requests, and those of its workflows."""
    found = store.requests(run_id=run_id)
    for sample in samples:
        if isinstance(workflow := sample.metadata.get(WORKFLOW), str):
            found += store.requests(run_id=workflow)
    return tuple(sorted(found, key=lambda request: request.started_at))


def run_summaries(
    store: Store,
    *,
    suite: str | None = None,
    model: str | None = None,
    limit: int | None = None,
) -> list[RunSummary]:
    """Runs with their scores, newest first."""
    runs = store.runs(suite=suite, model=model, limit=limit)
    tallies = store.tallies([run.run_id for run in runs])
    return [
        RunSummary(
            run=run,
            score=tallies[run.run_id].score,
            samples=tallies[run.run_id].samples,
            errors=tallies[run.run_id].errors,
        )
        for run in runs
    ]


def _task_result(task: str, rows: Sequence[SampleRecord]) -> TaskResult:
    return TaskResult(
        task=task,
        samples=len(rows),
        errors=sum(row.status == "error" for row in rows),
        score=fmean(row.score or 0.0 for row in rows),
        latency_s=_median(row.latency_s for row in rows),
        ttft_s=_median(row.ttft_s for row in rows),
        output_tokens_per_s=_median(row.output_tokens_per_s for row in rows),
        input_tokens=_sum(row.input_tokens for row in rows),
        output_tokens=_sum(row.output_tokens for row in rows),
    )


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _plain(record: RunRecord | SampleRecord) -> dict[str, Any]:
    values = {
        field.name: getattr(record, field.name) for field in dataclasses.fields(record)
    }
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }
