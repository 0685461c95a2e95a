"""Evaluation: what the judges say of the source pictures and recordings themselves, which no answer can exceed.

`python -m recipes.ceilings --recordings 40`
"""

import argparse
import random

import numpy as np

from recipes.domain import LANGUAGES, OUTPUT_VOICES, STYLES, cache_folder, load_concepts
from recipes.evaluate import Bench
from recipes.judges import VoiceJudge, nearest_spelling, shrink
from recipes.phrasings import answer_text
from recipes.speech import read_manifest, read_recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=40, help="per voice and language")
    count = parser.parse_args().recordings
    bench = Bench(cache_folder())
    print_pictures(bench)
    for voice in (*OUTPUT_VOICES.values(), "am_michael"):
        for language in LANGUAGES:
            print_voice(bench, voice, language, count)


def print_pictures(bench: Bench) -> None:
    for style, name in enumerate(STYLES):
        shown = [bench.picture.nearest(shrink(bench.sources[concept, style], 128), 5) for concept in range(len(bench.sources))]
        first = np.mean([nearest[0] == concept for concept, nearest in enumerate(shown)])
        fifth = np.mean([concept in nearest for concept, nearest in enumerate(shown)])
        print(f"pictures, {name}: top-1 {first:.3f}, top-5 {fifth:.3f} of {len(shown)}", flush=True)


def print_voice(bench: Bench, voice: str, language: str, count: int) -> None:
    rows = [
        row
        for row in read_manifest(bench.cache, set="output")
        if row["voice"] == voice and row["language"] == language and row["concept"] is not None
    ]
    if not rows:
        return
    names = [answer_text(concept, language) for concept in load_concepts()]
    chosen = random.Random(0).sample(rows, min(count, len(rows)))
    right = np.mean([nearest_spelling(bench.heard(row), names, language) == row["text"] for row in chosen])
    waveforms = [read_recording(bench.cache, row) for row in chosen]
    judge = VoiceJudge()
    natural = np.mean([judge.naturalness(waveform, 24_000) for waveform in waveforms[:20]])
    half = len(waveforms) // 2
    same = judge.same_speaker(waveforms[:8], waveforms[half:], 24_000)
    print(
        f"{voice}, {language}: heard right {right:.3f} of {len(chosen)}, DNSMOS {natural:.2f}, same speaker {same:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
