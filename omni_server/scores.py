"""Steps 5 and 8. How likely a token was: by ids as the engine tells it, in letters as a client reads it. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenScore:
    """The logarithm of a token's likelihood, and the likeliest tokens in its place with theirs."""

    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """A TokenScore in letters."""

    token: str
    logprob: float
    likeliest: tuple[tuple[str, float], ...] = ()
