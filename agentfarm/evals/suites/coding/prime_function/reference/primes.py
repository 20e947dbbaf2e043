"""Prime numbers."""

from math import isqrt


def is_prime(number: int) -> bool:
    """Tell whether an integer is prime, by trial division."""
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"an int is needed, not {type(number).__name__}")
    if number < 4:
        return number in (2, 3)
    if number % 2 == 0 or number % 3 == 0:
        return False
    return all(
        number % divisor and number % (divisor + 2)
        for divisor in range(5, isqrt(number) + 1, 6)
    )
