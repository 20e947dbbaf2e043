"""Intervals and p-values: against enumeration, and on data of known kind."""

from itertools import product

import numpy as np
import pytest

from agentfarm.errors import RetrievalError
from agentfarm.rag import bootstrap_interval, permutation_test


def test_few_pairs_are_permuted_in_every_way():
    one, other = [0.9, 0.5, 0.7, 0.4, 0.3], [0.5, 0.4, 0.8, 0.1, 0.3]
    differences = [a - b for a, b in zip(one, other, strict=True)]
    observed = abs(sum(differences))
    signs = list(product((-1, 1), repeat=5))
    sums = [
        abs(sum(s * d for s, d in zip(sign, differences, strict=True)))
        for sign in signs
    ]
    expected = sum(each >= observed - 1e-9 for each in sums) / len(signs)
    assert permutation_test(one, other) == (pytest.approx(expected), True)
    assert permutation_test(other, one) == (pytest.approx(expected), True)


def test_equal_lists_do_not_differ():
    assert permutation_test([0.1, 0.2], [0.1, 0.2]) == (1.0, True)


def test_many_pairs_are_permuted_at_random_and_reproducibly():
    rng = np.random.default_rng(1)
    one = rng.random(40)
    p, exact = permutation_test(one + 0.2, one + rng.normal(0, 0.1, 40), draws=2000)
    assert not exact
    assert p < 0.01
    shuffled = rng.random(40)
    first = permutation_test(one, shuffled, draws=500, seed=3)
    assert first == permutation_test(one, shuffled, draws=500, seed=3)


def test_without_a_difference_one_in_twenty_is_called_significant():
    rng = np.random.default_rng(5)
    pairs = rng.random((300, 2, 12))
    called = sum(permutation_test(one, other)[0] <= 0.05 for one, other in pairs)
    # 300 draws of 0.05: mean 15, standard deviation 3.8.
    assert 4 <= called <= 27


def test_an_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(7)
    held = 0
    for seed in range(200):
        interval = bootstrap_interval(rng.normal(0, 1, 40), resamples=300, seed=seed)
        held += interval.low <= 0 <= interval.high
    assert 176 <= held <= 198


def test_an_interval_is_that_of_its_seed_and_reads_well():
    values = [0.0, 1.0, 1.0, 0.5]
    first = bootstrap_interval(values)
    assert first == bootstrap_interval(values)
    assert first.mean == 0.625
    assert str(first).startswith("0.625 [")


@pytest.mark.parametrize("values", [[], [0.1, float("nan")]])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(RetrievalError, match="finite numbers"):
        bootstrap_interval(values)


def test_lists_of_different_length_are_no_pairs():
    with pytest.raises(RetrievalError, match="2 and 1 values"):
        permutation_test([0.1, 0.2], [0.1])
