"""Steps 1 and 8. Several answers to one request: as many requests as choices, each with its own seed, played side by side.

The engine reads their common prompt once, for its prefix cache knows it from the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import fields, replace

from omni_server.door import Door
from omni_server.errors import OmniError
from omni_server.rest.playing import played
from omni_server.types import Done, Event, Failed, Request, Usage

SEEDS = 2**63
_WAITING = 16  # events that may wait for a slow client before the choices are held back


def choices_of(request: Request, number: int) -> list[Request]:
    """The first is the request itself, so that one choice of many is the answer that would have been the only one."""
    return [request, *(_choice(request, place) for place in range(1, number))]


def _choice(request: Request, place: int) -> Request:
    def seed(first: int | None) -> int | None:
        return None if first is None else (first + place) % SEEDS

    sampling = replace(request.sampling, seed=seed(request.sampling.seed))
    decode = replace(request.decode, seed=seed(request.decode.seed))
    return replace(request, request_id=f"{request.request_id}-{place}", sampling=sampling, decode=decode)


async def played_choices(
    door: Door, requests: Sequence[Request], names: Mapping[str, str]
) -> AsyncGenerator[tuple[int, Event], None]:
    """Events of all choices as they come, each with its choice's place. The first that fails ends all, as an exception."""
    queue: asyncio.Queue[tuple[int, Event] | Exception | None] = asyncio.Queue(_WAITING)

    async def play(place: int, request: Request) -> None:
        try:
            async with played(door, request, names) as events:
                async for event in events:
                    if isinstance(event, Failed):
                        raise event.error
                    await queue.put((place, event))
        except Exception as error:  # noqa: BLE001 - raised again, by whoever reads the queue
            await queue.put(error)
        else:
            await queue.put(None)

    tasks = [asyncio.create_task(play(place, request)) for place, request in enumerate(requests)]
    ended = 0
    try:
        while ended < len(tasks):
            match await queue.get():
                case Exception() as error:
                    raise error
                case None:
                    ended += 1
                case event:
                    yield event
    finally:
        for task in tasks:
            task.cancel()  # without effect where it is done
        await asyncio.gather(*tasks, return_exceptions=True)


def usage_of(endings: Sequence[Done], each: int) -> Usage:
    """Of all choices, in their order, `each` to a prompt: a prompt is counted once, what is said is added up."""
    if not endings:
        raise OmniError("The reply ended without an ending.")
    usages = [ending.usage for ending in endings]

    def total(name: str) -> int:
        counted = usages[::each] if name.startswith(("prompt", "cached")) else usages
        return sum(getattr(usage, name) for usage in counted)

    return Usage(**{field.name: total(field.name) for field in fields(Usage)})
