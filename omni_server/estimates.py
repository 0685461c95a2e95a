"""How fast things go, learnt from what has gone: numbers in, estimates out. Pure state; no clock."""

from __future__ import annotations

MEMORY = 64.0  # of so many observations the older ones weigh next to nothing


class Line:
    """`y` as a straight line over `x` that never falls, by least squares, and how far off it is on average."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._off = 0.0

    def feed(self, x: float, y: float) -> None:
        if self._weight:
            share = max(1 / MEMORY, 1 / (self._weight + 1))
            self._off += (abs(y - self.at(x)) - self._off) * share
        keep = 1 - 1 / MEMORY
        self._weight = self._weight * keep + 1
        self._x = self._x * keep + x
        self._y = self._y * keep + y
        self._xx = self._xx * keep + x * x
        self._xy = self._xy * keep + x * y

    @property
    def known(self) -> bool:
        return self._weight > 0

    @property
    def off(self) -> float:
        return self._off

    def at(self, x: float) -> float:
        slope = self._slope()
        return (self._y + slope * (x * self._weight - self._x)) / self._weight

    def reach(self, y: float) -> float:
        """The largest `x` at which the line is not above `y`; it may be infinite, or below 0."""
        slope = self._slope()
        if not slope:
            return float("inf") if self.at(0.0) <= y else float("-inf")
        return (y - self.at(0.0)) / slope

    def _slope(self) -> float:
        spread = self._xx * self._weight - self._x * self._x
        if self._weight < 4 or spread <= 1e-6 * self._xx * self._weight:
            return 0.0
        return max(0.0, (self._xy * self._weight - self._x * self._y) / spread)


class Drain:
    """How many units of one scarce thing come free in a second while all of it is in use.

    By Little's law: units freed, over units held times seconds. What was measured while more than half was in use counts
    alone as soon as there is any of it, because company makes every reply slower.
    """

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self._freed = {False: 0.0, True: 0.0}  # by whether it was busy
        self._held = {False: 0.0, True: 0.0}  # units times seconds

    def pass_time(self, seconds: float, held: float) -> None:
        self._held[held > self.capacity / 2] += held * seconds

    def free(self, units: float, held: float) -> None:
        """`held`: how many were in use before these came free."""
        busy = held > self.capacity / 2
        keep = 1 - 1 / MEMORY
        self._freed[busy] = self._freed[busy] * keep + units
        self._held[busy] *= keep

    @property
    def rate(self) -> float | None:
        """None while nothing has come free yet."""
        for busy in (True, False):
            if self._freed[busy] and self._held[busy]:
                return self._freed[busy] / self._held[busy] * self.capacity
        return None
