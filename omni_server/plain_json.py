"""JSON text that a stranger or a model wrote: what cannot be read has one name, also where it is nested too deeply."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 200  # as pydantic has it for bodies; whoever writes it again, a chat template for one, goes down as far


def parsed(text: str | bytes) -> Any:
    """Raises ValueError. Python's own reader leaves by RecursionError where `[` stands a thousand times."""
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [document]
    for _ in range(DEEPEST):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _within(outer)]
        if not level:
            return document
    raise ValueError(f"it is nested too deeply; expected at most {DEEPEST} levels")


def _within(outer: dict[str, Any] | list[Any]) -> list[Any]:
    return outer if isinstance(outer, list) else list(outer.values())
