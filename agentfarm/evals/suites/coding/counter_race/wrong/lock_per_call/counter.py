"""A counter that many threads share."""

import threading


class Counter:
    """Counts up.

    Threads may call every method at once.
    """

    def __init__(self):
        self._value = 0

    def value(self):
        """What has been counted since the beginning or the last reset."""
        return self._value

    def increment(self, amount=1):
        """Add an amount and return the new value."""
        # A new lock each time keeps nobody out.
        with threading.Lock():
            self._store(self.value() + amount)
            return self._value

    def reset(self):
        """Set the value to 0 and return what it was."""
        with threading.Lock():
            before = self.value()
            self._store(0)
            return before

    def _store(self, value):
        self._value = value
