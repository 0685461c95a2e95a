"""Every door under malformed requests and hostile media, for a short while; `make fuzz` does it at length."""

from __future__ import annotations

from tests.fuzz.run import attack, scripted_server


async def test_malformed_requests_harm_nobody() -> None:
    """Catches a 5xx for a fault of the client, a request that hangs, a good request that suffers, and a server that dies."""
    async with scripted_server() as target:
        figures = await attack(target, 200)
    assert not figures.faults and not figures.harmed, figures.told()
    assert all(figures.good.values()) and all(sum(answers.values()) > 15 for answers in figures.answers.values()), (
        figures.told()
    )
