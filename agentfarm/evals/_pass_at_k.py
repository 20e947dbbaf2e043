"""pass@k: how likely one of k answers to a task is right."""

from __future__ import annotations

import math
from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING

from agentfarm.errors import EvalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.store import SampleRecord


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate, without bias, how likely one of `k` answers is right.

    It is 1 - C(n - c, k) / C(n, k): the share of all ways to draw `k` of the `n`
    answers that hold a right one. Source: Chen et al. 2021, "Evaluating Large
    Language Models Trained on Code", arXiv:2107.03374, equation 1. The quotient is
    taken as a product of c factors below 1, so nothing overflows.

    Args:
        n: Answers that were given.
        c: How many of them are right.
        k: How many are drawn.

    Raises:
        EvalError: Not 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise EvalError(
            f"pass_at_k() got n={n}, c={c}, k={k}.",
            remedy="Draw 1 to n answers, of which 0 to n are right.",
        )
    return 1.0 - math.prod(max(0, i - k) / i for i in range(n - c + 1, n + 1))


def samples_pass_at(samples: Sequence[SampleRecord], k: int) -> float:
    """Mean over the tasks of `pass_at_k`; right is a score of 1, wrong an error too.

    Raises:
        EvalError: There are no samples, or a task has fewer than `k`.
    """
    asked = Counter(sample.task for sample in samples)
    right = Counter(
        sample.task
        for sample in samples
        if sample.score is not None and sample.score >= 1.0
    )
    fewest = min(asked.values(), default=0)
    if not 1 <= k <= fewest:
        raise EvalError(
            f"pass@{k} cannot be told: the run has {fewest} finished samples of "
            "some task.",
            remedy=f"Use a k from 1 to {fewest}, or run with epochs={k} or more."
            if fewest
            else f"Run the suite with epochs={max(k, 1)}.",
        )
    return fmean(pass_at_k(n, right[task], k) for task, n in asked.items())
