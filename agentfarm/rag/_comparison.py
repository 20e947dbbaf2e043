"""Is one configuration better than another, or was it luck?"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from agentfarm.errors import RetrievalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from rich.console import RenderableType

__all__ = ["Comparison", "Interval", "bootstrap_interval", "permutation_test"]

# Up to so many differences all 2^n signs are tried: 65,536.
_EXACT = 16
_DRAWS = 10_000
_RESAMPLES = 2_000
# Sums that differ by rounding alone are alike.
_TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with what it may well be.

    Attributes:
        mean: Over the questions.
        low, high: Ends of the confidence interval.
        count: How many questions.
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean and percentile bootstrap interval over questions.

    Args:
        values: One per question.
        confidence: Share of such intervals that hold the true mean.
        resamples: How often questions are drawn anew.
        seed: Of the draws; the same values give the same interval.

    Raises:
        RetrievalError: There are no values, or one is no finite number.
    """
    data = _numbers(values, "values")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for index in range(resamples):  # one at a time: memory stays small
        means[index] = data[rng.integers(0, len(data), len(data))].mean()
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(
        mean=float(data.mean()), low=float(low), high=float(high), count=len(data)
    )


def permutation_test(
    one: Sequence[float] | NDArray[np.float64],
    other: Sequence[float] | NDArray[np.float64],
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> tuple[float, bool]:
    """Two-sided p-value that two paired lists have the same mean.

    Under that hypothesis it does not matter which of a pair is whose, so signs of
    the differences are flipped. All ways are tried where at most 16 pairs differ,
    else `draws` random ones, the observed one counted among them.

    Returns:
        The p-value, and whether it is exact.

    Raises:
        RetrievalError: The lists are empty or differ in length.
    """
    first, second = _numbers(one, "one"), _numbers(other, "other")
    if len(first) != len(second):
        raise RetrievalError(
            f"permutation_test() got {len(first)} and {len(second)} values.",
            remedy="Give values of the same questions in the same order.",
        )
    # A pair without difference adds nothing, whatever its sign.
    differences = (first - second)[np.abs(first - second) > _TOLERANCE]
    if not len(differences):
        return 1.0, True
    observed = abs(differences.sum()) - _TOLERANCE * len(differences)
    if len(differences) <= _EXACT:
        bits = np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences))
        sums = (1 - 2 * (bits & 1)) @ differences
        return float((np.abs(sums) >= observed).mean()), True
    rng = np.random.default_rng(seed)
    hits = sum(
        int(abs(rng.choice((-1.0, 1.0), len(differences)) @ differences) >= observed)
        for _ in range(draws)
    )
    return (hits + 1) / (draws + 1), False


def _numbers(
    values: Sequence[float] | NDArray[np.float64], name: str
) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data) or not np.isfinite(data).all():
        raise RetrievalError(
            f"{name} holds {data.size} values, of which "
            f"{int(np.isfinite(data).sum())} are finite numbers.",
            remedy="Give one finite number per question, and at least one.",
        )
    return data


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two configurations on the same questions.

    Attributes:
        metric: What was compared.
        one, other: Their names.
        questions: Ids of those that both answered.
        texts: The questions in words.
        one_values, other_values: The metric per question.
        one_mean, other_mean: Over the questions.
        difference: `one` less `other`, with a bootstrap interval over questions.
        p_value: Two-sided, of the paired permutation test.
        is_exact: Whether all permutations were tried.
        notes: What makes the two differ beside what was meant.
    """

    metric: str
    one: str
    other: str
    questions: tuple[str, ...]
    texts: tuple[str, ...] = field(repr=False)
    one_values: tuple[float, ...] = field(repr=False)
    other_values: tuple[float, ...] = field(repr=False)
    difference: Interval
    p_value: float
    is_exact: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        metric: str,
        names: tuple[str, str],
        questions: Sequence[tuple[str, str]],
        values: tuple[Sequence[float], Sequence[float]],
        notes: Sequence[str] = (),
        seed: int = 0,
    ) -> Comparison:
        """Compare values of the same questions, given as id and text.

        Raises:
            RetrievalError: There are none, or a value is no finite number.
        """
        first, second = _numbers(values[0], names[0]), _numbers(values[1], names[1])
        p_value, is_exact = permutation_test(first, second, seed=seed)
        return cls(
            metric=metric,
            one=names[0],
            other=names[1],
            questions=tuple(name for name, _ in questions),
            texts=tuple(text for _, text in questions),
            one_values=tuple(first.tolist()),
            other_values=tuple(second.tolist()),
            difference=bootstrap_interval(first - second, seed=seed),
            p_value=p_value,
            is_exact=is_exact,
            notes=tuple(notes),
        )

    @property
    def one_mean(self) -> float:
        return float(np.mean(self.one_values))

    @property
    def other_mean(self) -> float:
        return float(np.mean(self.other_values))

    @property
    def wins(self) -> int:
        """Questions on which `one` is better."""
        return sum(
            a > b for a, b in zip(self.one_values, self.other_values, strict=True)
        )

    @property
    def losses(self) -> int:
        """Questions on which `one` is worse."""
        return sum(
            a < b for a, b in zip(self.one_values, self.other_values, strict=True)
        )

    def frame(self) -> pd.DataFrame:
        """One row per question, the greatest gain of `one` first."""
        import pandas as pd

        frame = pd.DataFrame(
            {
                "question_id": list(self.questions),
                "question": list(self.texts),
                "metric": self.metric,
                "one": self.one,
                "other": self.other,
                "one_value": list(self.one_values),
                "other_value": list(self.other_values),
            }
        )
        frame["difference"] = frame["one_value"] - frame["other_value"]
        order = ["difference", "question_id"]
        frame = frame.sort_values(order, ascending=[False, True], kind="stable")
        return frame.reset_index(drop=True)

    def __str__(self) -> str:
        kind = "exact" if self.is_exact else "Monte Carlo"
        return (
            f"{self.metric}: {self.one} {self.one_mean:.3f}, {self.other} "
            f"{self.other_mean:.3f}, difference {self.difference}, p = "
            f"{self.p_value:.4g} (paired permutation, {kind}), better on {self.wins}, "
            f"worse on {self.losses} of {len(self.questions)} questions"
        )

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        return Text("\n".join((str(self), *self.notes)))

    def _repr_html_(self) -> str:
        lines = (str(self), *self.notes)
        return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
