"""What the draft of the tokens to come brings: tokens a step and tokens per second with and without it, by kind of span.

    python -m bench.draft [--ahead 0 1 2 3] [--rounds 3] [--temperature 0]

Every number of tokens ahead (0: without the draft) has an engine of its own. All are asked the same in turns, reply by reply,
so that a busy moment hits each; then sixteen at a time. Replies are under the span grammar, greedy or, at a temperature, of one
seed, and must all be the same. Start and memory of each engine are printed first.
Tokens per second of the engine's own CPU time are what remains true on a machine that others work on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import replace

import psutil

from omni_server.backbone import VllmBackbone
from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.config import Settings, read_settings
from omni_server.placement import place
from omni_server.prompt import Prompter
from omni_server.text import TextCodec
from omni_server.types import Message, Modality, Sampling, TextPart

TEXT = frozenset({Modality.TEXT})
ASKED = {  # what is asked for, in which modalities
    TEXT: (
        "translate 'banana' into korean",
        "is a fox an animal?",
        "what can you do?",
        "hello",
        "'사과'를 영어로 번역해줘",
        "안녕",
    ),
    TEXT | {Modality.AUDIO}: ("say 'watermelon'", "say 'fox'", "read 'bus' aloud", "'바나나'라고 말해줘", "'여우'라고 말해줘"),
    TEXT | {Modality.IMAGE}: ("draw a fox", "draw a banana", "paint a tractor", "여우 그려줘", "버스 그려줘", "draw a cat"),
}
EVERY = [(text, modalities) for modalities, texts in ASKED.items() for text in texts]
TOGETHER = "all, 16 at a time"


class Engine:
    """One engine, and what was measured of it by kind of span."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings, sampling: Sampling) -> None:
        self.checkpoint = checkpoint
        self.sampling = sampling
        begun = time.perf_counter()
        self.prompter = Prompter(checkpoint, TextCodec(checkpoint.folders["backbone"] / "tokenizer.json"))
        others = set(psutil.Process().children(recursive=True))
        self.backbone = VllmBackbone(checkpoint, settings, place(0))
        self.processes = set(psutil.Process().children(recursive=True)) - others
        memory = sum(process.memory_info().rss for process in self.processes)
        print(f"{settings.draft_tokens} ahead: started in {time.perf_counter() - begun:.1f} s, {memory >> 20} MiB")
        self.steps: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.worked: Counter[str] = Counter()  # CPU seconds
        self.number = 0

    def cpu(self) -> float:
        """CPU seconds of the engine's processes so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes if process.is_running())

    def span_of(self, token: int) -> str:
        for modality, band in self.checkpoint.bands.items():
            if token in (band.open, band.close) or band.first <= token < band.first + band.size:
                return str(modality)
        grid = self.checkpoint.image
        marks = {grid.end_of_line, grid.end_of_frame, *grid.ratios.values()} if grid else set()
        return str(Modality.IMAGE if token in marks else Modality.TEXT)

    async def reply(self, text: str, modalities: frozenset[Modality], alone: bool) -> tuple[int, ...]:
        """The reply's ids; of one that is `alone`, each chunk counts as a step of the kind of its first token."""
        prompt = self.prompter.build([Message("user", (TextPart(text),))], [])
        self.number += 1
        ids: list[int] = []
        async with aclosing(self.backbone.stream(f"draft-{self.number}", prompt, self.sampling, modalities)) as chunks:
            before, worked = 0.0, 0.0
            async for chunk in chunks:
                now, work = time.perf_counter(), self.cpu()
                if alone and before and chunk.token_ids:  # the first token comes of reading the prompt
                    span = self.span_of(chunk.token_ids[0])
                    self.steps[span] += 1
                    self.tokens[span] += len(chunk.token_ids)
                    self.seconds[span] += now - before
                    self.worked[span] += work - worked
                before, worked = now, work
                ids += chunk.token_ids
        return tuple(ids)

    async def together(self) -> None:
        """The same replies, four times each, sixteen at a time."""
        gate = asyncio.Semaphore(16)

        async def one(text: str, modalities: frozenset[Modality]) -> int:
            async with gate:
                return len(await self.reply(text, modalities, alone=False))

        start, worked = time.perf_counter(), self.cpu()
        total = sum(await asyncio.gather(*(one(text, modalities) for text, modalities in EVERY * 4)))
        self.tokens[TOGETHER] += total
        self.seconds[TOGETHER] += time.perf_counter() - start
        self.worked[TOGETHER] += self.cpu() - worked


async def main(ahead: list[int], rounds: int, temperature: float) -> None:
    settings = read_settings({}, os.environ)
    checkpoint = read_checkpoint(settings.checkpoint)
    sampling = Sampling(temperature=temperature, top_p=1.0, seed=1, max_tokens=400)
    engines = {tokens: Engine(checkpoint, replace(settings, draft_tokens=tokens), sampling) for tokens in ahead}
    other: Counter[int] = Counter()
    try:
        for number in range(rounds + 1):  # the first warms
            for text, modalities in EVERY:
                replies = {tokens: await engine.reply(text, modalities, number > 0) for tokens, engine in engines.items()}
                for tokens, ids in replies.items():
                    other[tokens] += ids != replies[ahead[0]]
            if number:
                for engine in engines.values():
                    await engine.together()
    finally:
        for engine in engines.values():
            await engine.backbone.close()
    plain = engines[ahead[0]]
    print("| ahead | span | tokens a step | tokens/s | per CPU second | tokens/s over without | per CPU second over without |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for tokens, engine in engines.items():
        for span in (*map(str, (Modality.TEXT, Modality.AUDIO, Modality.IMAGE)), TOGETHER):
            rate, before = (each.tokens[span] / each.seconds[span] for each in (engine, plain))
            work, work_before = (each.tokens[span] / max(each.worked[span], 0.01) for each in (engine, plain))
            a_step = f"{engine.tokens[span] / engine.steps[span]:.2f}" if engine.steps[span] else ""
            ratios = f"{rate / before:.2f} | {work / work_before:.2f}"
            print(f"| {tokens} | {span} | {a_step} | {rate:.0f} | {work:.0f} | {ratios} |")
    print(f"replies of other tokens than without, of {len(EVERY) * (rounds + 1)}: {dict(other)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ahead", type=int, nargs="+", default=[0, 1, 2, 3], help="the first is what the others are compared to"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.0, help="of all replies; 0 takes the likeliest token")
    options = parser.parse_args()
    asyncio.run(main(options.ahead, options.rounds, options.temperature))
