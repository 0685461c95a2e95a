"""Steps 3, 5 and 7. How long to wait before what failed is tried again: longer each time. Has no clock of its own."""

from __future__ import annotations


class Backoff:
    """Nothing before the first try, `first` seconds before the second, twice as long before each one after, at most `most`."""

    def __init__(self, first: float = 1.0, most: float = 60.0, calm: float = 60.0) -> None:
        """`calm`: seconds of good work after which earlier failures are forgotten."""
        self._first, self._most, self._calm = first, most, calm
        self._failures = 0

    def failed(self, worked: float = 0.0) -> float:
        """Seconds until the next try. `worked`: how long it had gone well before it failed."""
        if worked >= self._calm:
            self._failures = 0
        wait = min(self._most, self._first * 2 ** (self._failures - 1)) if self._failures else 0.0
        self._failures = min(self._failures + 1, 32)
        return wait
