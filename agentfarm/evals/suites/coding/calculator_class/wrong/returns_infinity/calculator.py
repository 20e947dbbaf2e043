class Calculator:
    def __init__(self):
        self._history = []

    def _record(self, operation, a, b, result):
        self._history.append((operation, a, b, result))
        return result

    def add(self, a, b):
        return self._record("add", a, b, a + b)

    def subtract(self, a, b):
        return self._record("subtract", a, b, a - b)

    def multiply(self, a, b):
        return self._record("multiply", a, b, a * b)

    def divide(self, a, b):
        # It hides the error that was asked for.
        result = a / b if b else float("inf")
        return self._record("divide", a, b, result)

    def history(self):
        return list(self._history)

    def clear(self):
        self._history = []
