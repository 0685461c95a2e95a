"""A thousand sampled replies at temperature 1.0: how many hold a malformed span. Prints the count and the rate.

python -m bench.spans [--replies 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter

from omni_server.app import open_pipeline
from omni_server.config import read_settings
from omni_server.pipeline import Pipeline
from omni_server.types import REPLIES, Done, Event, Message, Modality, Request, Sampling, SpanClosed, SpanOpened, TextPart

PROMPTS = ("draw a fox", "여우 그려줘", "say 'banana'", "바나나라고 말해줘", "describe a bus, draw it and say it", "hello")
CHOICES = (
    frozenset({Modality.TEXT}),
    frozenset({Modality.TEXT, Modality.IMAGE}),
    frozenset({Modality.TEXT, Modality.AUDIO}),
    REPLIES,
)


async def reply(pipeline: Pipeline, number: int, gate: asyncio.Semaphore) -> list[Event]:
    asked = Request(
        f"spans-{number}",
        (Message("user", (TextPart(PROMPTS[number % len(PROMPTS)]),)),),
        modalities=CHOICES[(number // len(PROMPTS)) % len(CHOICES)],
        sampling=Sampling(temperature=1.0, top_p=1.0, seed=number, max_tokens=900),
    )
    async with gate, pipeline.respond(asked) as events:
        return [event async for event in events]


def verdict(events: list[Event], modalities: frozenset[Modality]) -> str:
    """`well formed`, `cut` (by the token limit, which the reply says), or what is wrong."""
    last = events[-1]
    if not isinstance(last, Done):
        return f"failed: {last}"
    opened = [event.modality for event in events if isinstance(event, SpanOpened)]
    errors = [event.error for event in events if isinstance(event, SpanClosed) and event.error]
    if not set(opened) <= modalities:
        return "a modality that was not asked for"
    if last.finish_reason == "length":
        return "cut"
    if errors:
        return f"malformed: {errors[0]}"
    return "well formed" if Modality.AUDIO not in modalities or Modality.AUDIO in opened else "no speech"


async def measure(replies: int) -> None:
    async with open_pipeline(read_settings({}, os.environ)) as pipeline:
        gate, start = asyncio.Semaphore(16), time.perf_counter()
        every = await asyncio.gather(*(reply(pipeline, number, gate) for number in range(replies)))
        seconds = time.perf_counter() - start
        verdicts = Counter(
            verdict(events, CHOICES[(number // len(PROMPTS)) % len(CHOICES)]) for number, events in enumerate(every)
        )
    spans = Counter(str(event.modality) for events in every for event in events if isinstance(event, SpanOpened))
    print(f"{replies} replies at temperature 1.0 in {seconds:.0f} s: {dict(verdicts)}")
    print(f"spans: {dict(spans)}")
    print(f"malformed: {replies - verdicts['well formed'] - verdicts['cut']} of {replies}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=1000)
    asyncio.run(measure(parser.parse_args().replies))
