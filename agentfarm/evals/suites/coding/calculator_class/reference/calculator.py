"""A calculator that remembers."""


class Calculator:
    """Four operations, and the list of those that succeeded."""

    def __init__(self):
        self._history = []

    def add(self, a, b):
        """The sum."""
        return self._record("add", a, b, a + b)

    def subtract(self, a, b):
        """The difference."""
        return self._record("subtract", a, b, a - b)

    def multiply(self, a, b):
        """The product."""
        return self._record("multiply", a, b, a * b)

    def divide(self, a, b):
        """The quotient; raises ZeroDivisionError where `b` is zero."""
        if b == 0:
            raise ZeroDivisionError("Cannot divide by zero")
        return self._record("divide", a, b, a / b)

    def history(self):
        """Successful operations, oldest first."""
        return list(self._history)

    def clear(self):
        """Forget them."""
        self._history.clear()

    def _record(self, operation, a, b, result):
        self._history.append((operation, a, b, result))
        return result
