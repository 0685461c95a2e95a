"""Evaluation: holds spoken conversations of ten turns with a running server, at the pace of speech, and has each answer judged.

`python -m recipes.converse --url http://127.0.0.1:8000` is a client in a process of its own: it speaks recordings of the
cache into `client.converse` of the SDK, adds words and a picture, speaks over two of the answers, and prints what was asked,
what the judges understood, and whether that is what was asked for. `--apart` asks each turn in a call of its own, which
shows what the turns before it cost. It needs what `recipes.evaluate` needs, and the recordings of `recipes.speech input`.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from omni_client import (
    AsyncCall,
    AsyncOmniClient,
    AudioDelta,
    CallEvent,
    Caption,
    ImageReady,
    Interrupted,
    ResponseDone,
    ResponseStarted,
    TurnComplete,
)
from recipes.asking import Reply
from recipes.conversation_turns import Asked, Script
from recipes.domain import cache_folder, load_concepts
from recipes.evaluate import Bench
from recipes.judges import nearest_spelling, resample, spelling

RATE = 16_000
FRAME = 320  # samples, 20 ms
PAUSE = 0.4  # seconds between the end of an answer and the next question
OVER = 0.25  # seconds of an answer that are heard before somebody speaks over it
PATIENCE = 30.0  # seconds until a turn without an answer is given up
LEAST = 0.6


class Person:
    """A microphone that is always on: `say` puts a recording into its silence. Iterating it goes at the pace of speech."""

    sample_rate = RATE

    def __init__(self) -> None:
        self._left = np.zeros(0, "<i2")
        self._quiet = asyncio.Event()
        self.gone = False

    async def say(self, waveform: np.ndarray) -> None:
        """float32 [samples] at `sample_rate`. Returns when it has been said."""
        self._quiet.clear()
        self._left = np.concatenate([self._left, (np.clip(waveform, -1, 1) * 32767).astype("<i2")])
        await self._quiet.wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        start = time.monotonic()
        number = 0
        while not self.gone:
            frame, self._left = self._left[:FRAME], self._left[FRAME:]
            if not len(self._left):
                self._quiet.set()
            yield np.pad(frame, (0, FRAME - len(frame))).tobytes()
            number += 1
            await asyncio.sleep(max(0.0, start + number * FRAME / RATE - time.monotonic()))


@dataclass(slots=True)
class Answered:
    """What came back of one turn. `endings` counts its response_done: exactly one is right."""

    pcm: bytearray = field(default_factory=bytearray)
    sample_rate: int = 24_000
    text: str = ""
    pictures: list[np.ndarray] = field(default_factory=list)
    id: str = ""
    endings: list[str] = field(default_factory=list)
    heard: float | None = None  # seconds, where somebody spoke over it
    kept: str = ""  # and what stayed of its words
    pause: float | None = None
    first_sound: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def feed(self, event: CallEvent) -> None:
        match event:
            case AudioDelta(pcm=pcm, sample_rate=rate):
                self.pcm += pcm
                self.sample_rate = rate
                self.first_sound.set()
            case Caption(role="assistant", text=text) if self.heard is None:  # after that it is cut to what was heard
                self.text = text
            case ImageReady(picture=picture):
                self.pictures.append(np.asarray(picture.image.convert("RGB")))
            case Interrupted(heard=heard, text=text):
                self.heard, self.kept = heard, text
            case ResponseDone(status=status, turn_to_first_audio=pause):
                self.endings.append(status)
                self.pause = pause
            case TurnComplete():
                self.over.set()
            case _:
                pass

    @property
    def reply(self) -> Reply:
        waveform = np.frombuffer(bytes(self.pcm), "<i2").astype(np.float32) / 32768 if self.pcm else None
        return Reply(self.text, self.pictures, waveform, self.sample_rate)


class Held:
    """The answers of one call, each with the turn that it is to; of an answer that nobody asked for there is no place."""

    def __init__(self) -> None:
        self.answers: list[Answered] = []
        self._by_id: dict[str, Answered] = {}
        self._current: Answered | None = None
        self.began = asyncio.Event()

    async def listen(self, call: AsyncCall) -> None:
        async for event in call:
            match event:
                case ResponseStarted(response_id=id):
                    self._current = self._by_id[id] = Answered(id=id)
                    self.answers.append(self._current)
                    self.began.set()
                case Caption(role="user"):
                    pass
                case Caption(id=id) | ResponseDone(response_id=id) | Interrupted(response_id=id) | TurnComplete(response_id=id):
                    if id in self._by_id:
                        self._by_id[id].feed(event)
                case _ if self._current is not None:
                    self._current.feed(event)
                case _:
                    pass


async def hold(client: AsyncOmniClient, turns: list[Asked], seed: int, voice: str) -> list[Answered]:
    """One call with all these turns."""
    person, held = Person(), Held()
    answers: list[Answered] = []
    modalities = ("text", "image", "audio")
    async with client.converse(person, modalities=modalities, voice=voice, temperature=0.0, seed=seed) as call:  # type: ignore[arg-type]
        listening = asyncio.create_task(held.listen(call))
        for number, turn in enumerate(turns):
            held.began.clear()
            await ask(call, person, turn)
            answers.append(await answer_to(call, held, spoken_over=turn.spoken_over and number + 1 < len(turns)))
        person.gone = True
        await listening
    if len(held.answers) > len(turns):
        print(f"{len(held.answers) - len(turns)} answers that nobody asked for", file=sys.stderr)
    return answers


async def ask(call: AsyncCall, person: Person, turn: Asked) -> None:
    if turn.picture is not None:
        await call.send_picture(turn.picture)
    if turn.words:
        await call.send_text(turn.words)
    await person.say(resample(turn.waveform, turn.sample_rate, RATE))


async def answer_to(call: AsyncCall, held: Held, *, spoken_over: bool) -> Answered:
    """Waits until the answer was heard to its end, or for long enough to speak over it."""
    try:
        async with asyncio.timeout(PATIENCE):
            await held.began.wait()
            answer = held.answers[-1]
            await (answer.first_sound if spoken_over else answer.over).wait()
    except TimeoutError:
        return held.answers[-1] if held.began.is_set() else Answered()
    await asyncio.sleep(OVER if spoken_over else PAUSE)
    if spoken_over:
        await call.played(answer.id, OVER)  # whoever is about to speak does not listen any more
    return answer


def cut_to_what_was_heard(answered: Answered) -> bool:
    """What stays of its words in the conversation is a beginning of them, and not all."""
    return answered.heard is not None and answered.text.startswith(answered.kept) and answered.kept != answered.text


@dataclass(frozen=True, slots=True)
class Verdict:
    understood: str
    right: bool
    ceiling: bool


def judge(bench: Bench, turn: Asked, answered: Answered, voice: str) -> Verdict:
    """By the picture where one was asked for, by the words where these were, else by what the voice said. An answer that was
    spoken over is right where its words are, and what stayed of them is a beginning of these."""
    reply, concepts = answered.reply, load_concepts()
    one_ending = len(answered.endings) == 1
    if turn.concept is not None:
        ceiling = bench.picture.nearest(bench.sources[turn.concept, turn.style])[0] == turn.concept
        if not reply.pictures:
            return Verdict(f"no picture; {reply.text!r}", False, ceiling)
        seen = bench.picture.nearest(reply.pictures[0])[0]
        return Verdict(f"a picture of {concepts[seen].english}", one_ending and seen == turn.concept, ceiling)
    if turn.in_words or turn.spoken_over:
        said = {spelling(text, turn.language) for text in turn.accepted}
        right = one_ending and spelling(reply.text, turn.language) in said
        if turn.spoken_over:
            right = right and cut_to_what_was_heard(answered)
        return Verdict(repr(reply.text), right, True)
    ceiling = any(
        nearest_spelling(bench.source_heard(text, voice), turn.choices, turn.language) in turn.accepted
        for text in turn.accepted
    )
    if reply.waveform is None:
        return Verdict(f"no voice; {reply.text!r}", False, ceiling)
    heard = bench.speech.transcribe(reply.waveform, reply.sample_rate, turn.language)
    nearest = nearest_spelling(heard, turn.choices, turn.language)
    return Verdict(f"{heard!r}, nearest {nearest!r}", one_ending and nearest in turn.accepted, ceiling)


def rows(bench: Bench, turns: list[Asked], answers: list[Answered], voice: str) -> Iterator[tuple[str, Verdict]]:
    for number, (turn, answered) in enumerate(zip(turns, answers, strict=True), start=1):
        verdict = judge(bench, turn, answered, voice)
        cut = f"spoken over after {answered.heard:.2f} s: {answered.kept!r}" if answered.heard is not None else ""
        pause = f"{answered.pause:.2f}" if answered.pause is not None else ""
        mark = "✓" if verdict.right else "✗" + ("" if len(answered.endings) == 1 else f" ({len(answered.endings)} endings)")
        asked = " + ".join(filter(None, ["a picture" if turn.picture else "", turn.words, f"“{turn.text}”"]))
        said = f"{verdict.understood} {cut}".strip()
        yield f"| {number} | {turn.kind} | {asked} | {turn.accepted_shown} | {said} | {pause} | {mark} |", verdict


async def converse(url: str, grpc: str | None, seeds: list[int], split: str, apart: bool) -> float:
    """The share of right answers."""
    cache = cache_folder()
    bench, verdicts = Bench(cache), []
    print("| turn | kind | asked | wanted | understood | s to first sound | |\n|---|---|---|---|---|---|---|")
    async with AsyncOmniClient(url, grpc_target=grpc) as client:
        voices = await client.voices()
        for seed in seeds:
            turns, voice = Script(cache, split, seed).turns(), voices[seed % len(voices)]
            if apart:  # nobody speaks over the last answer of a call
                turns = [replace(turn, in_words=turn.in_words or turn.spoken_over, spoken_over=False) for turn in turns]
            calls = [[turn] for turn in turns] if apart else [turns]
            answers = [answer for call in calls for answer in await hold(client, call, seed, voice)]
            of_seed = []
            for row, verdict in rows(bench, turns, answers, voice):
                print(row, flush=True)
                of_seed.append(verdict)
            right, ceiling = sum(verdict.right for verdict in of_seed), sum(verdict.ceiling for verdict in of_seed)
            print(f"seed {seed}, {voice}: {right} of {len(of_seed)} right; the judges find {ceiling} of the sources right")
            verdicts += of_seed
    share = sum(verdict.right for verdict in verdicts) / len(verdicts)
    print(f"{sum(verdict.right for verdict in verdicts)} of {len(verdicts)} right ({share:.2f}) over {len(seeds)} seeds")
    return share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="one port above --url by default")
    parser.add_argument("--seeds", type=int, default=3, help="conversations")
    parser.add_argument(
        "--split", choices=("train", "eval"), default="train", help="whose voices ask: heard in training, or not"
    )
    parser.add_argument("--apart", action="store_true", help="each turn in a call of its own")
    parser.add_argument("--least", type=float, default=LEAST, help="share of right answers below which the exit code is 1")
    given = parser.parse_args()
    share = asyncio.run(converse(given.url, given.grpc, [*range(given.seeds)], given.split, given.apart))
    return int(share < given.least)


if __name__ == "__main__":
    sys.exit(main())
