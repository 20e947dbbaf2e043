class Calculator:
    def __init__(self):
        self.entries = []

    def add(self, a, b):
        self.entries.append(("add", a, b, a + b))
        return a + b

    def subtract(self, a, b):
        self.entries.append(("subtract", a, b, a - b))
        return a - b

    def multiply(self, a, b):
        self.entries.append(("multiply", a, b, a * b))
        return a * b

    def divide(self, a, b):
        try:
            result = a / b
        except ZeroDivisionError:
            result = None
        # A failed division is recorded too, and the list itself is handed out.
        self.entries.append(("divide", a, b, result))
        if result is None:
            raise ZeroDivisionError("Cannot divide by zero")
        return result

    def history(self):
        return self.entries

    def clear(self):
        self.entries = []
