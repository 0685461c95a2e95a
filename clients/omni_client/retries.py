"""When a request is repeated, and after how long. Pure: the clock and the dice are arguments."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

FIRST_SECONDS, MOST_SECONDS = 0.5, 8.0
# A server that wants a longer pause than this is better asked again by whoever knows why.
LONGEST_WISH_SECONDS = 120.0
REPEATED_STATUSES = (408, 409, 429)


def pause_before_retry(
    attempt: int,
    max_retries: int,
    status_code: int | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    now: float,
    chance: float,
) -> float | None:
    """Seconds to wait after attempt `attempt` (0 is the first) went wrong, or `None` where it must not be repeated.

    `status_code` is `None` where no answer came at all. `headers` have lower-case names. `now` is Unix time; `chance`, in
    0..1, spreads the repetitions of many clients: the pause shrinks by up to a quarter.
    """
    headers = headers or {}
    if attempt >= max_retries or not _worth_it(status_code, headers):
        return None
    wish = _wish(headers, now)
    if wish is not None and wish > LONGEST_WISH_SECONDS:
        return None
    if wish is not None and wish > 0:
        return wish
    return min(FIRST_SECONDS * 2.0**attempt, MOST_SECONDS) * (1 - 0.25 * chance)


def _worth_it(status_code: int | None, headers: Mapping[str, str]) -> bool:
    if status_code is None:
        return True
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    return status_code in REPEATED_STATUSES or status_code >= 500


def _wish(headers: Mapping[str, str], now: float) -> float | None:
    """How long the server wants us to wait: `retry-after-ms`, else `retry-after` in seconds or as a date."""
    try:
        return float(headers["retry-after-ms"]) / 1000
    except (KeyError, ValueError):
        pass
    told = headers.get("retry-after", "")
    try:
        return float(told)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(told).timestamp() - now
    except (TypeError, ValueError):
        return None
