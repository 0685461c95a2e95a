"""When each stage of one reply worked, and when its first things came out. Plain state; the clock is handed in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Stage:
    """`start` of its first piece of work and `end` of its last, in seconds since the request was accepted; `worked` is the
    time in between for which somebody waited for it, the wait for its lane included."""

    start: float
    end: float
    worked: float


class Timeline:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accepted = clock()
        self.accepted_at = time.time()  # for spans that other programs show beside their own
        self.stages: dict[str, Stage] = {}
        self.moments: dict[str, float] = {}

    def elapsed(self) -> float:
        return self._clock() - self._accepted

    def mark(self, moment: str) -> None:
        """Of moments with one name the first counts."""
        if moment not in self.moments:
            self.moments[moment] = self.elapsed()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A piece of work of a stage; what runs side by side adds up."""
        start = self.elapsed()
        try:
            yield
        finally:
            end = self.elapsed()
            stage = self.stages.setdefault(name, Stage(start, end, 0.0))
            stage.start, stage.end = min(stage.start, start), max(stage.end, end)
            stage.worked += end - start
