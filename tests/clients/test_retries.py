"""Which answers are repeated, and when."""

import pytest

from omni_client.retries import pause_before_retry

NOW = 1_700_000_000.0


def pause(attempt: int = 0, status: int | None = 503, chance: float = 0.0, **headers: str) -> float | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return pause_before_retry(attempt, 2, status, named, now=NOW, chance=chance)


@pytest.mark.parametrize("status", [None, 408, 409, 429, 500, 502, 503, 504])
def test_what_may_pass_is_repeated(status: int | None) -> None:
    """Catches a client that gives up where waiting helps."""
    assert pause(status=status) == 0.5


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 422])
def test_what_cannot_pass_is_not_repeated(status: int) -> None:
    """Catches a wrong request that is sent three times."""
    assert pause(status=status) is None


def test_pauses_grow_are_spread_and_end() -> None:
    """Catches clients that all return in the same moment, and one that never gives up."""
    assert [pause(attempt) for attempt in range(3)] == [0.5, 1.0, None]
    assert pause(chance=1.0) == 0.375
    assert pause_before_retry(9, 99, 500, now=NOW, chance=0.0) == 8.0
    assert pause_before_retry(0, 0, 500, now=NOW, chance=0.0) is None


def test_the_server_has_the_last_word() -> None:
    """Catches a repetition of what the server says must fail again, and of what only it knows to be safe."""
    assert pause(status=500, x_should_retry="false") is None
    assert pause(status=400, x_should_retry="true") == 0.5
    assert pause(attempt=2, status=400, x_should_retry="true") is None


def test_the_pause_that_the_server_asks_for() -> None:
    """Catches a client that hammers, one that waits a thousand times too long, and one that waits for hours."""
    assert pause(retry_after="7") == 7.0
    assert pause(retry_after_ms="1500", retry_after="7") == 1.5
    assert pause(retry_after="Tue, 14 Nov 2023 22:13:50 GMT") == 30.0
    assert pause(retry_after="120") == 120.0
    assert pause(retry_after="121") is None
    for nonsense in ("", "soon", "0", "-3", "nan", "Tue, 14 Nov 2023 22:00:00 GMT"):
        assert pause(retry_after=nonsense) == 0.5
