"""pass@k against its definition, and over the samples of a run."""

from fractions import Fraction
from itertools import combinations
from math import comb

import pytest

from agentfarm.errors import EvalError, ProviderError
from agentfarm.evals import Score, Suite, Task, exact, pass_at_k, run
from agentfarm.llm.testing import FakeProvider


def by_counting(n: int, c: int, k: int) -> Fraction:
    """The share of all draws of k answers, the first c of n being right, with one."""
    draws = list(combinations(range(n), k))
    return Fraction(sum(min(draw) < c for draw in draws), len(draws))


@pytest.mark.parametrize("n", range(1, 8))
def test_it_is_the_share_of_draws_that_hold_a_right_answer(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            assert pass_at_k(n, c, k) == pytest.approx(float(by_counting(n, c, k)))


def test_it_is_exact_at_the_ends_and_stable_for_large_numbers():
    assert pass_at_k(1000, 0, 100) == 0
    assert pass_at_k(1000, 1000, 1) == 1
    assert pass_at_k(1000, 901, 100) == 1
    assert pass_at_k(100_000, 1, 1) == pytest.approx(1e-5)
    wrong = Fraction(comb(900, 100), comb(1000, 100))
    assert 1 - pass_at_k(1000, 100, 100) == pytest.approx(float(wrong), abs=1e-14)


@pytest.mark.parametrize(
    ("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4), (0, 0, 1)]
)
def test_what_cannot_be_drawn_is_an_error(n, c, k):
    with pytest.raises(EvalError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)


async def test_a_run_tells_pass_at_k_over_its_epochs(farm, make_suite):
    # Of four epochs t1 is right in one, t2 in all: the seed is the epoch.
    def answer(request):
        number = request.messages[-1].content.split()[-1]
        return number if number == "2" or request.seed == 0 else "wrong"

    async with farm(FakeProvider(answer)) as runtime:
        result = await run(make_suite(2), runtime=runtime, epochs=4, progress=False)
    assert result.pass_at(1) == pytest.approx((0.25 + 1) / 2)
    assert result.pass_at(2) == pytest.approx((0.5 + 1) / 2)
    assert result.pass_at(4) == 1
    assert result.to_dict()["pass_at"] == pytest.approx(
        {"1": 0.625, "2": 0.75, "4": 1.0}
    )
    assert "pass@4 1.000" in result._repr_html_()
    with pytest.raises(EvalError, match=r"pass@5.*4 finished samples.*epochs=5"):
        result.pass_at(5)
    with pytest.raises(EvalError, match="pass@0"):
        result.pass_at(0)


async def test_an_error_and_a_part_of_the_score_are_no_pass(farm):
    def nearly(context):
        return Score(value=0.99)

    def answer(request):
        broken = ProviderError("boom", status_code=500)
        return broken if request.seed and request.messages[0].content == "b" else "1"

    tasks = (
        Task(id="a", prompt="a", scorer=nearly),
        Task(id="b", prompt="b", scorer=exact(), target="1"),
    )
    suite = Suite(name="s", tasks=tasks)
    async with farm(FakeProvider(answer)) as runtime:
        result = await run(suite, runtime=runtime, epochs=2, progress=False)
    assert result.errors == 1
    assert result.pass_at(1) == pytest.approx((0 + 0.5) / 2)
    assert result.pass_at(2) == pytest.approx((0 + 1) / 2)


async def test_one_epoch_says_nothing_of_pass_at_k(farm, make_suite, echo):
    async with farm(echo) as runtime:
        result = await run(make_suite(2), runtime=runtime, progress=False)
    assert "pass_at" not in result.to_dict()
    assert "pass@" not in result._repr_html_()
    assert result.pass_at(1) == 1
