class Calculator:
    # A class attribute: all calculators write into one list.
    _history = []

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
        if b == 0:
            raise ZeroDivisionError("Cannot divide by zero")
        return self._record("divide", a, b, a / b)

    def history(self):
        return list(self._history)

    def clear(self):
        self._history.clear()
