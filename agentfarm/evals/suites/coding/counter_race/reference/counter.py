"""A counter that many threads share."""

import threading


class Counter:
    """Counts up.

    Threads may call every method at once.
    """

    def __init__(self):
        self._value = 0
        self._lock = threading.Lock()

    def value(self):
        """What has been counted since the beginning or the last reset."""
        return self._value

    def increment(self, amount=1):
        """Add an amount and return the new value."""
        with self._lock:
            self._value += amount
            return self._value

    def reset(self):
        """Set the value to 0 and return what it was."""
        with self._lock:
            before, self._value = self._value, 0
            return before
