from math import isqrt


def is_prime(number: int) -> bool:
    if type(number) is not int:
        raise TypeError("number must be an int")
    if number < 2:
        return False
    # The range ends one too early: squares of primes pass.
    return all(number % divisor for divisor in range(2, isqrt(number)))
