"""What the clients' scripts share: each feature is one coroutine; what became of it is one line of JSON.

Runs inside of a client's own environment, so it knows the standard library only.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASE_URL = os.environ.get("OMNI_BASE_URL", "")
MODEL = os.environ.get("OMNI_MODEL", "")
TOOLS_URL = os.environ.get("OMNI_TOOLS_URL", "")  # of a server whose model, of random weights, can call tools
TOOLS_MODEL = os.environ.get("OMNI_TOOLS_MODEL", "")
CITIES = ("Oslo", "서울")
BOOK = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": list(CITIES)}, "guests": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "guests"],
    "additionalProperties": False,
}
MEDIA = Path(os.environ.get("OMNI_MEDIA", "."))
VOICE = "heart"
SECONDS = 120.0


class NotInThisClient(Exception):
    """What the client's own version makes impossible; the message says what is missing."""


def run(features: dict[str, Callable[[], Any]]) -> None:
    """Runs all, or those that are named on the command line."""
    wanted = set(sys.argv[1:]) or set(features)
    for name, feature in features.items():
        if name in wanted:
            print("RESULT " + json.dumps({"feature": name, **_outcome(feature)}), flush=True)


def _outcome(feature: Callable[[], Any]) -> dict[str, str]:
    async def timed() -> None:
        async with asyncio.timeout(SECONDS):
            await feature()

    try:
        if inspect.iscoroutinefunction(feature):
            asyncio.run(timed())
        else:
            feature()
    except NotInThisClient as missing:
        return {"outcome": "missing", "note": str(missing)}
    except Exception as fault:  # noqa: BLE001 - whatever a client raises is its outcome
        traceback.print_exc()
        return {"outcome": "fails", "note": f"{type(fault).__name__}: {fault}"[:300]}
    return {"outcome": "works", "note": ""}


def question(rate: int = 24_000) -> bytes:
    """A spoken question and a second of silence, as 16-bit samples at 24 or 16 kHz."""
    with wave.open(str(MEDIA / f"question-{rate}.wav")) as file:
        return file.readframes(file.getnframes())


def expect_booking(name: str, arguments: str) -> None:
    """What the grammar of a call that must be made promises, whatever the model would have written."""
    told = json.loads(arguments)
    expect(name == "book" and told["city"] in CITIES and 1 <= told["guests"] <= 9, f"{name} with {arguments}")


def expect(true: object, told: str) -> None:
    if not true:
        raise AssertionError(told)
