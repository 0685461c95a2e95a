"""The law of everything incremental: the outputs, joined, do not depend on where the cuts were."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any


def assert_split_invariant(
    build: Callable[[], Any], items: Sequence[Any], join: Callable[[list[Any]], Any], cuts: int = 50, seed: int = 0
) -> None:
    """Feeds `items` whole, one by one and in `cuts` random ways; every way must give what the whole gave."""
    chooser = random.Random(seed)

    def run(pieces: list[Sequence[Any]]) -> Any:
        machine = build()
        out: list[Any] = []
        for piece in pieces:
            out += machine.feed(piece)
        return join(out + list(machine.finish()))

    whole = run([items])
    ways = [[items[at : at + 1] for at in range(len(items))]]
    for _ in range(cuts):
        places = sorted(chooser.sample(range(1, len(items)), min(chooser.randint(1, 8), len(items) - 1)))
        ways.append([items[a:b] for a, b in zip([0, *places], [*places, len(items)], strict=True)])
    for pieces in ways:
        assert run(pieces) == whole, f"cuts at lengths {[len(piece) for piece in pieces]}"
