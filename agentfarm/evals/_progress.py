"""Show how a run gets on: live in a terminal, as a bar in a notebook, as lines."""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from agentfarm.store import RunRecord, SampleRecord


class Progress(Protocol):
    """Whatever shows a run's progress. All is called in the run's own loop."""

    def start(self, run: RunRecord, finished: Sequence[SampleRecord]) -> None:
        """The run begins; a resumed one has `finished` samples already."""
        ...

    def sample_started(self, task: str, epoch: int) -> None:
        """A task is about to be asked."""
        ...

    def sample_finished(self, sample: SampleRecord) -> None:
        """A sample is in the Store."""
        ...

    def stop(self, run: RunRecord) -> None:
        """The run is over, for better or worse: see its status."""
        ...


def make_progress(
    progress: Progress | bool | Literal["auto"] | None,
) -> Progress | None:
    """The display that suits where we are, or the one that was given."""
    if progress is None or progress is False:
        return None
    if progress is not True and progress != "auto":
        return progress
    if _in_kernel():
        return NotebookProgress()
    if sys.stderr is not None and sys.stderr.isatty():
        return TerminalProgress()
    return PlainProgress()


def _in_kernel() -> bool:
    # A kernel has imported IPython already; importing it to ask costs much.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class GuardedProgress:
    """Keeps a display's failure away from the run: warns once and goes dark."""

    def __init__(self, inner: Progress | None) -> None:
        self._inner = inner

    def start(self, run: RunRecord, finished: Sequence[SampleRecord]) -> None:
        self._call("start", run, finished)

    def sample_started(self, task: str, epoch: int) -> None:
        self._call("sample_started", task, epoch)

    def sample_finished(self, sample: SampleRecord) -> None:
        self._call("sample_finished", sample)

    def stop(self, run: RunRecord) -> None:
        self._call("stop", run)

    def _call(self, name: str, *arguments: Any) -> None:
        if self._inner is None:
            return
        try:
            getattr(self._inner, name)(*arguments)
        except Exception as error:  # noqa: BLE001 - showing a run must not end it
            self._inner = None
            warnings.warn(
                f"Progress is not shown any more, its {name} raised {error!r}.",
                RuntimeWarning,
                stacklevel=2,
            )


@dataclass(slots=True)
class Tally:
    """The running totals that every display shows."""

    planned: int = 0
    done: int = 0
    kept: int = 0
    errors: int = 0
    active: int = 0
    score_sum: float = 0.0
    output_tokens: int = 0
    task: str = ""
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, run: RunRecord, finished: Sequence[SampleRecord]) -> Tally:
        """Totals at the start of a run."""
        return cls(
            planned=run.planned_samples,
            done=len(finished),
            kept=len(finished),
            score_sum=sum(sample.score or 0.0 for sample in finished),
        )

    def begin(self, task: str) -> None:
        """A sample is asked."""
        self.active += 1
        self.task = task

    def add(self, sample: SampleRecord) -> None:
        """A sample is finished."""
        self.active -= 1
        self.done += 1
        self.errors += sample.status == "error"
        self.score_sum += sample.score or 0.0
        self.output_tokens += sample.output_tokens or 0

    @property
    def score(self) -> float | None:
        """Mean so far, an error counting 0."""
        return self.score_sum / self.done if self.done else None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, or since it was resumed."""
        return time.perf_counter() - self.started

    @property
    def tokens_per_s(self) -> float:
        """Output tokens of finished samples per second of wall time."""
        return self.output_tokens / max(self.elapsed_s, 1e-9)

    @property
    def remaining_s(self) -> float | None:
        """Seconds to go at the pace so far."""
        fresh = self.done - self.kept
        left = self.planned - self.done
        return self.elapsed_s / fresh * left if fresh else None

    def line(self) -> str:
        """All of it on one line."""
        score = "-" if self.score is None else f"{self.score:.2f}"
        parts = [
            f"{self.done}/{self.planned}",
            f"score {score}",
            f"{self.tokens_per_s:.1f} tok/s",
            f"errors {self.errors}",
        ]
        return "  ".join(parts)


class _Counting:
    """A display with totals; what it shows of them is for its children."""

    tally = Tally()

    def start(self, run: RunRecord, finished: Sequence[SampleRecord]) -> None:
        self.tally = Tally.of(run, finished)

    def sample_started(self, task: str, epoch: int) -> None:
        del epoch
        self.tally.begin(task)

    def sample_finished(self, sample: SampleRecord) -> None:
        self.tally.add(sample)

    def stop(self, run: RunRecord) -> None:
        del run


class PlainProgress(_Counting):
    """A line at the start, at each tenth of the samples, and at the end.

    Args:
        stream: Where to; `sys.stderr` if None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._shown = 0

    def start(self, run: RunRecord, finished: Sequence[SampleRecord]) -> None:
        super().start(run, finished)
        kept = f", {len(finished)} kept" if finished else ""
        planned = f"{run.planned_samples} samples{kept}"
        self._write(f"{run.suite} on {run.model}: {planned}, run {run.run_id}")
        self._shown = len(finished)

    def sample_finished(self, sample: SampleRecord) -> None:
        super().sample_finished(sample)
        if (self.tally.done - self._shown) * 10 >= self.tally.planned:
            self._shown = self.tally.done
            self._write(f"{self.tally.line()}  last {sample.task}")

    def stop(self, run: RunRecord) -> None:
        self._write(
            f"{run.status} in {self.tally.elapsed_s:.1f} s: {self.tally.line()}"
        )

    def _write(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)


class NotebookProgress(_Counting):
    """A tqdm bar, a widget in a notebook."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, run: RunRecord, finished: Sequence[SampleRecord]) -> None:
        from tqdm.auto import tqdm

        super().start(run, finished)
        self._bar = tqdm(
            total=run.planned_samples,
            initial=len(finished),
            desc=f"{run.suite} on {run.model}",
            unit="sample",
            mininterval=0.25,
        )

    def sample_finished(self, sample: SampleRecord) -> None:
        super().sample_finished(sample)
        self._postfix(last=sample.task)
        self._bar.update(1)

    def stop(self, run: RunRecord) -> None:
        if self._bar is not None:
            self._postfix(status=run.status)
            self._bar.refresh()
            self._bar.close()
        if run.status in {"interrupted", "failed"}:
            # Above the traceback, which says nothing of what is kept.
            sys.stderr.write(
                f"Run {run.run_id} is {run.status}; every finished sample is kept. "
                f"Continue: evals.run(…, resume={run.run_id!r})\n"
            )

    def _postfix(self, **more: str) -> None:
        tally = self.tally
        score = "-" if tally.score is None else f"{tally.score:.2f}"
        rate = f"{tally.tokens_per_s:.1f}"
        values = {"score": score, "tok/s": rate, "errors": tally.errors, **more}
        self._bar.set_postfix(values, refresh=False)


class TerminalProgress(_Counting):
    """A table that updates itself four times a second, and a line at the end.

    Args:
        console: Where to; a new one on stderr if None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._live: Any = None
        self._title = ""
        self._last: list[SampleRecord] = []

    def start(self, run: RunRecord, finished: Sequence[SampleRecord]) -> None:
        from rich.console import Console
        from rich.live import Live

        super().start(run, finished)
        self._title = f"{run.suite} on {run.model}"
        self._console = self._console or Console(stderr=True)
        self._live = Live(
            get_renderable=self.render,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            # What is piped elsewhere must not end up on the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start()

    def sample_finished(self, sample: SampleRecord) -> None:
        super().sample_finished(sample)
        self._last = [*self._last[-4:], sample]

    def stop(self, run: RunRecord) -> None:
        if self._live is None or self._console is None:
            return
        self._live.stop()
        took = f"{run.status} in {_clock(self.tally.elapsed_s)}"
        self._console.print(
            f"{self._title}: {took}, {self.tally.line()}", markup=False, highlight=False
        )

    def render(self) -> RenderableType:
        """What is shown now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self.tally
        score = "-" if tally.score is None else f"{tally.score:.2f}"
        left = "-" if tally.remaining_s is None else _clock(tally.remaining_s)
        totals = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        cells: dict[str, str | Text] = {
            "done": f"{tally.done}/{tally.planned}",
            "score": score,
            "output tok/s": f"{tally.tokens_per_s:.1f}",
            "active": str(tally.active),
            "errors": Text(str(tally.errors), style="red" if tally.errors else ""),
            "elapsed": _clock(tally.elapsed_s),
            "left": left,
        }
        for name in cells:
            totals.add_column(name, no_wrap=True)
        totals.add_row(*cells.values())
        bar = Table.grid()
        bar.add_row(
            ProgressBar(total=max(tally.planned, 1), completed=tally.done, width=60)
        )
        head = Text.assemble((self._title, "bold"), f"  asking {tally.task}")
        rows = [_sample_line(sample) for sample in self._last]
        return Group(head, bar, totals, *rows)


def _sample_line(sample: SampleRecord) -> RenderableType:
    from rich.text import Text

    if sample.status == "error":
        return Text(f"  error {sample.task}: {sample.error_type}", style="red")
    latency = "" if sample.latency_s is None else f"{sample.latency_s:.2f} s"
    style = "green" if (sample.score or 0) >= 1 else "yellow"
    return Text(f"  {sample.score:5.2f} {sample.task}  {latency}", style=style)


def _clock(seconds: float) -> str:
    """Seconds as people read a clock: ``3:05``, ``1:02:07``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
