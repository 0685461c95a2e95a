"""Live speech, as ratios of one run on the same weights: what pipelining and listening ahead gain, what company costs.

    python -m bench.speech

Callers speak at their own speed into `omni_server.session`, so the figures hold for every live door.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from bench.doors import doors
from omni_server.app import open_pipeline
from omni_server.audio_format import wav_header
from omni_server.config import read_settings
from omni_server.door import Door
from omni_server.live_audio import PcmReader
from omni_server.pipeline import Pipeline
from omni_server.router import Router
from omni_server.session import Session
from omni_server.timeline import Timeline
from omni_server.turns import ResponseDone, ResponsePart, SessionSettings
from omni_server.types import (
    AudioDelta,
    AudioPart,
    Codes,
    Done,
    MediaSource,
    Message,
    Modality,
    Opened,
    Request,
    Sampling,
    TextPart,
)
from omni_server.vad import SileroEars

MEDIA = Path(__file__).parent.parent / "clients" / "examples" / "media"
RATE = 16_000
FRAME = 640  # samples, 40 ms
ALOUD = frozenset({Modality.TEXT, Modality.AUDIO})
TURNS = 6  # of a caller in each way
CALLERS = 8
HISTORY = 60  # exchanges' worth of words before the call: most of the context of the embedded checkpoint
UNITS = 100  # of an answer of four seconds, for which its end is ruled out
NEVER = -100.0


@dataclass(frozen=True, slots=True)
class Call:
    """One turn as the caller met it: seconds from its end to the first sound, and when each piece of sound came."""

    first_audio: float
    arrivals: tuple[tuple[float, float], ...]  # (moment, seconds of sound)

    def underran(self, buffered: float) -> bool:
        """Whether a player that waits `buffered` seconds before it begins would run dry."""
        until = self.arrivals[0][0] + buffered
        for moment, seconds in self.arrivals:
            if moment > until + 1e-3:
                return True
            until += seconds
        return False


def spoken(name: str) -> np.ndarray:
    samples, _ = soundfile.read(MEDIA / f"{name}.flac", dtype="int16")
    return np.concatenate([samples, np.zeros(RATE, np.int16)])


async def call(door: Door, ears: SileroEars, samples: np.ndarray, settings: SessionSettings, wait: float = 0.0) -> Call:
    """Speaks one turn at its own speed and listens to the whole answer."""
    await asyncio.sleep(wait)
    arrivals: list[tuple[float, float]] = []
    first = 0.0
    async with Session(door, ears, settings, PcmReader(RATE)) as session:

        async def speak() -> None:
            start = time.perf_counter()
            for place, at in enumerate(range(0, len(samples), FRAME)):
                await asyncio.sleep(max(0.0, start + place * FRAME / RATE - time.perf_counter()))
                await session.hear(samples[at : at + FRAME].astype("<i2").tobytes())
            session.finish()

        speaking = asyncio.create_task(speak())
        async for event in session.events():
            match event:
                case ResponsePart(event=AudioDelta() as delta):
                    arrivals.append((time.perf_counter(), len(delta.samples) / delta.sample_rate))
                case ResponseDone(first_audio=float() as seconds):
                    first = seconds
                case _:
                    pass
        await speaking
    return Call(first, tuple(arrivals))


def settings_of(number: int, *, ahead: bool) -> SessionSettings:
    """A conversation that nobody has held before, so that nothing of it is remembered."""
    words = f"call {number} {ahead}. " + "a fox is an animal. " * HISTORY
    return SessionSettings(instructions=words, sampling=Sampling(temperature=0.0), ahead=ahead)


async def listening_ahead(door: Door, ears: SileroEars) -> list[Call]:
    samples = spoken("en-question")
    plain, ahead = [], []
    for number in range(TURNS):
        plain.append(await call(door, ears, samples, settings_of(number, ahead=False)))
        ahead.append(await call(door, ears, samples, settings_of(number, ahead=True)))
    without, with_it = (median(each.first_audio for each in calls) for calls in (plain, ahead))
    told = f"({with_it * 1000:.0f} over {without * 1000:.0f} ms, after a silence of 500 ms)"
    print(f"end of turn to first audio, listening ahead over not: {with_it / without:.2f} {told}")
    return ahead


async def reading_ahead(pipeline: Pipeline) -> None:
    """The history alone, without the answer that is begun in the pause."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(TURNS):
        for ahead in (False, True):
            words = TextPart(settings_of(number + 1000, ahead=ahead).instructions)
            history, question = Message("system", (words,)), Message("user", (TextPart("say 'fox'"),))
            asked = Request(f"read-{number}-{ahead}", (history, question), ALOUD, Sampling(temperature=0.0))
            if ahead:
                await pipeline.warm(replace(asked, request_id=f"warm-{number}", messages=(history,)))
            async with pipeline.respond(asked) as events:
                async for event in events:
                    if isinstance(event, Done):
                        seconds[ahead].append(event.seconds["first_token"])
    print(f"first token, history read while listening over not: {median(seconds[True]) / median(seconds[False]):.2f}")


async def pipelined_over_serial(pipeline: Pipeline) -> None:
    """From the end of a spoken turn, its encoding included. Serial: the whole reply, then the whole voice, as a server without
    streams between its models would."""
    close = pipeline.checkpoint.bands[Modality.AUDIO].close
    long = Sampling(temperature=1.0, max_tokens=UNITS + 10, logit_bias=((close, NEVER),))
    for name, sampling in (("as it answers", Sampling(temperature=0.0)), ("an answer of 4 s", long)):
        serial, pipelined = [], []
        for number in range(TURNS + 1):  # the first pair only warms up
            asked = spoken_turn(f"{name}-{number}", replace(sampling, seed=number))
            start = time.perf_counter()
            await whole_voice(pipeline, asked)
            serial.append(time.perf_counter() - start)
            asked = spoken_turn(f"{name}-{number}-pipelined", asked.sampling)  # not the same sound, which would be remembered
            start = time.perf_counter()
            async with pipeline.respond(asked) as events:
                async for event in events:
                    if isinstance(event, AudioDelta):
                        pipelined.append(time.perf_counter() - start)
                        break
        ratio = median(pipelined[1:]) / median(serial[1:])
        print(f"end of turn to first audio, pipelined over serial, {name}: {ratio:.2f}")


def spoken_turn(name: str, sampling: Sampling) -> Request:
    """A question that nobody has asked in these very samples."""
    samples = spoken("en-question") + np.random.default_rng([*name.encode()]).integers(-2, 3, len(spoken("en-question")))
    pcm = samples.clip(-32768, 32767).astype("<i2").tobytes()
    recording = AudioPart(MediaSource("audio", data=wav_header(RATE, len(pcm)) + pcm))
    return Request(name, (Message("user", (recording,)),), ALOUD, sampling)


async def whole_voice(pipeline: Pipeline, asked: Request) -> None:
    encodings, _ = await pipeline._encode(asked, Timeline())
    prompt = await pipeline._prompt(asked, encodings)
    router = Router(pipeline.checkpoint.bands, pipeline.checkpoint.image, pipeline._end_of_turn)
    codes: list[int] = []
    voices: set[int] = set()
    async with aclosing(pipeline.backbone.stream(asked.request_id, prompt, asked.sampling, ALOUD)) as chunks:
        async for chunk in chunks:
            for event in router.feed(chunk.token_ids):
                match event:
                    case Opened(index=opened, modality=Modality.AUDIO):
                        voices.add(opened)
                    case Codes(index=at, codes=more) if at in voices:
                        codes += more
                    case _:
                        pass
    maker = pipeline._makers[Modality.AUDIO]
    voice = await maker.open(asked.decode)
    await maker.breaker.run(lambda: [*voice.feed(codes), *voice.finish()])


async def in_company(door: Door, ears: SileroEars, alone: list[Call]) -> None:
    samples = spoken("en-question")
    chance = np.random.default_rng(1)
    together = [
        found
        for round_ in range(2)
        for found in await asyncio.gather(
            *(
                call(door, ears, samples, settings_of(100 + round_ * CALLERS + n, ahead=True), float(chance.uniform(0, 2)))
                for n in range(CALLERS)
            )
        )
    ]
    # An answer that was ready when the turn ended has next to no delay, so the silence that ends a turn is counted in.
    silence = 0.5
    one, many = (median(each.first_audio + silence for each in calls) for calls in (alone, together))
    print(f"end of voice to first audio, {CALLERS} conversations over 1: {many / one:.2f}")
    for name, calls in (("1", alone), (str(CALLERS), together)):
        shares = [sum(each.underran(buffered) for each in calls) / len(calls) for buffered in (0.0, 0.1)]
        print(f"streams that would run dry at 1x, {name} at a time: {shares[0]:.2f} (with 100 ms of buffer {shares[1]:.2f})")


async def cancel_to_free(pipeline: Pipeline) -> None:
    steps: list[float] = []
    for number in range(20):
        asked = Request(
            f"cancel-{number}",
            (Message("user", (TextPart(f"say {number}"),)),),
            sampling=Sampling(temperature=2.0, top_p=1.0, max_tokens=400, seed=number),
        )
        moments: list[float] = []
        async with pipeline.respond(asked) as events:
            async for event in events:
                if isinstance(event, Done):
                    break
                moments.append(time.perf_counter())
                if len(moments) == 4:
                    break
            under_way = pipeline.backbone.living.unfinished_requests()  # type: ignore[attr-defined]
            left = time.perf_counter()
        while pipeline.backbone.living.unfinished_requests():  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        if under_way:  # some replies are over before that
            steps.append((time.perf_counter() - left) / ((moments[-1] - moments[0]) / (len(moments) - 1)))
    print(f"cancel to free slot, in decode steps: {median(steps):.3f} ({len(steps)} replies)")


async def main() -> None:
    begun, load = time.perf_counter(), os.getloadavg()[0]
    await doors()
    settings = read_settings({"port": "0"}, os.environ)
    async with open_pipeline(settings) as pipeline:
        door, ears = Door(pipeline, settings), SileroEars()
        await call(door, ears, spoken("en-name"), settings_of(-1, ahead=True))  # whatever is slow only once
        await pipelined_over_serial(pipeline)
        await reading_ahead(pipeline)
        await cancel_to_free(pipeline)
        alone = await listening_ahead(door, ears)
        await in_company(door, ears, alone)
        ears.lane.close()
    print(f"(`python -m bench.speech`, {time.perf_counter() - begun:.0f} s, load {load:.1f} at the beginning)")


if __name__ == "__main__":
    asyncio.run(main())
