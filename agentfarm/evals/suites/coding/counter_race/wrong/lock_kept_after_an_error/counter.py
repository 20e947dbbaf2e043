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
        self._lock.acquire()
        self._store(self.value() + amount)
        result = self._value
        # An exception above never comes here.
        self._lock.release()
        return result

    def reset(self):
        """Set the value to 0 and return what it was."""
        self._lock.acquire()
        before = self.value()
        self._store(0)
        self._lock.release()
        return before

    def _store(self, value):
        self._value = value
