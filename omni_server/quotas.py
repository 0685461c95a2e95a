"""Step 1. What one caller may use, and has used: the ledger that every door counts in. Knows no wire; has a clock.

What is counted is refilled evenly, up to a minute's worth. A reply's use is known when it is over, so a caller may come to
owe; who owes waits until it is paid back, and is told how long that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

from omni_server.errors import Forbidden, QuotaExceeded
from omni_server.keys import Limits
from omni_server.types import Modality

MINUTE = 60.0
LEAST_WAIT = 1.0  # seconds; told where nothing better is known
GAIN = 0.2  # of the newest call in the mean time that a call takes
ROUNDING = 1e-6  # who comes back at the very moment that was told is let in
NEEDED = {Modality.AUDIO: "audio_seconds_per_minute", Modality.IMAGE: "images_per_minute"}


class Allowance:
    """So much a minute."""

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._left = per_minute
        self._at = clock()

    def wait(self) -> float:
        """Seconds until one may be taken; 0 where it may be taken now."""
        short = min(1.0, self.per_minute) - self._refilled()
        return short * MINUTE / self.per_minute if short > ROUNDING else 0.0

    def take(self, amount: float) -> None:
        self._left = self._refilled() - amount

    def _refilled(self) -> float:
        now = self._clock()
        self._left = min(self.per_minute, self._left + (now - self._at) * self.per_minute / MINUTE)
        self._at = now
        return self._left


class Account:
    """One caller's, over all keys of that name and all doors."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.limits = Limits()
        self.open = 0  # calls under way
        self._clock = clock
        self._mean: float | None = None  # seconds that a call takes
        self._allowances: dict[str, Allowance] = {}

    def limit(self, limits: Limits) -> None:
        """What holds from now on; an allowance that stays the same keeps its state."""
        if limits == self.limits:
            return
        self.limits = limits
        for name in [field.name for field in fields(limits) if field.name.endswith("_per_minute")]:
            per_minute = getattr(limits, name)
            kept = self._allowances.pop(name, None)
            if per_minute:
                same = kept is not None and kept.per_minute == per_minute
                self._allowances[name] = kept if kept is not None and same else Allowance(per_minute, self._clock)

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call, while it lasts. Raises Forbidden, QuotaExceeded."""
        self._check("requests_per_minute")
        most = self.limits.concurrency
        if most == 0:
            raise Forbidden(f"`{self.name}` may not call; its `concurrency` is `0`")
        if most is not None and self.open >= most:
            raise QuotaExceeded(
                f"`{self.name}` has `{self.open}` calls under way; expected at most {most} at the same time",
                retry_after=max(LEAST_WAIT, (self._mean or 0.0) / most),
            )
        self.use("requests_per_minute", 1)
        self.open += 1
        began = self._clock()
        try:
            yield
        finally:
            self.open -= 1
            seconds = self._clock() - began
            self._mean = seconds if self._mean is None else self._mean + GAIN * (seconds - self._mean)

    def admit(self, modalities: frozenset[Modality]) -> None:
        """A reply that may be made of these. Raises Forbidden, QuotaExceeded."""
        self._check("tokens_per_minute")
        for modality in sorted(modalities & NEEDED.keys()):
            self._check(NEEDED[modality])

    def use(self, limit: str, amount: float) -> None:
        if limit in self._allowances:
            self._allowances[limit].take(amount)

    def _check(self, limit: str) -> None:
        most = getattr(self.limits, limit)
        if most == 0:
            raise Forbidden(f"`{self.name}` may not do this; its `{limit}` is `0`")
        if limit in self._allowances and (wait := self._allowances[limit].wait()):
            what = limit.removesuffix("_per_minute").replace("_", " ")
            told = f"`{self.name}` has used its {what}; expected at most {most:g} a minute; there is more in {wait:.1f} seconds"
            raise QuotaExceeded(told, retry_after=wait)
