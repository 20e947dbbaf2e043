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
        self._store(self.value() + amount)
        return self._value

    def reset(self):
        """Set the value to 0 and return what it was."""
        before = self.value()
        self._store(0)
        return before

    def _store(self, value):
        # What is written was read before the lock was taken.
        with self._lock:
            self._value = value
