import pytest
from primes import is_prime

SMALL = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47}


def test_small_primes():
    for number in sorted(SMALL):
        assert is_prime(number) is True, number


def test_small_composites():
    for number in sorted(set(range(4, 49)) - SMALL):
        assert is_prime(number) is False, number


def test_zero_and_one_are_no_primes():
    assert is_prime(0) is False
    assert is_prime(1) is False


def test_negative_numbers_are_no_primes():
    for number in (-1, -2, -3, -7, -97):
        assert is_prime(number) is False, number


def test_squares_of_primes_are_no_primes():
    for root in (2, 3, 5, 7, 11, 101, 7919):
        assert is_prime(root * root) is False, root * root


def test_pseudoprimes_are_no_primes():
    for number in (341, 561, 1105, 1729, 2047, 2465, 6601, 8911, 29341):
        assert is_prime(number) is False, number


def test_large_numbers():
    assert is_prime(999_999_999_989) is True
    assert is_prime(999_979 * 999_983) is False


def test_what_is_no_int_is_refused():
    for value in (7.0, "7", None, True):
        with pytest.raises(TypeError):
            is_prime(value)
