"""Evaluation: what the judges say of the source pictures and recordings themselves, which no answer can exceed, and of the
recordings' own codes spoken again by the vocoder, which no answer of the backbone's can.

`python -m recipes.ceilings --recordings 40`
"""

import argparse
import random
from typing import Any

import numpy as np

from decoders.audio.audio import AudioDecoder, DecodeOptions
from recipes.audio_exports import read_ragged
from recipes.backbone_model import EMBEDDED
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
    decoder, codes = AudioDecoder.from_pretrained(EMBEDDED / "audio_decoder"), read_ragged(bench.cache / "audio_codes.npz")
    for voice in OUTPUT_VOICES:
        for language in LANGUAGES:
            for source in OUTPUT_VOICES:
                print_spoken_again(bench, decoder, codes, voice, source, language, count)


def print_pictures(bench: Bench) -> None:
    for style, name in enumerate(STYLES):
        shown = [bench.picture.nearest(shrink(bench.sources[concept, style], 128), 5) for concept in range(len(bench.sources))]
        first = np.mean([nearest[0] == concept for concept, nearest in enumerate(shown)])
        fifth = np.mean([concept in nearest for concept, nearest in enumerate(shown)])
        print(f"pictures, {name}: top-1 {first:.3f}, top-5 {fifth:.3f} of {len(shown)}", flush=True)


def recordings_of(bench: Bench, voice: str, language: str) -> list[dict[str, Any]]:
    rows = read_manifest(bench.cache, set="output")
    return [row for row in rows if (row["voice"], row["language"]) == (voice, language) and row["concept"] is not None]


def print_voice(bench: Bench, voice: str, language: str, count: int) -> None:
    rows = recordings_of(bench, voice, language)
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


def print_spoken_again(
    bench: Bench,
    decoder: AudioDecoder,
    codes: dict[str, np.ndarray],
    voice: str,
    source: str,
    language: str,
    count: int,
) -> None:
    """Codes of one voice's recordings in a voice that need not be its own: of a language the backbone writes one voice's."""
    rows = recordings_of(bench, OUTPUT_VOICES[source], language)
    chosen = random.Random(0).sample(rows, min(count, len(rows)))
    names = [answer_text(concept, language) for concept in load_concepts()]
    judge, right, natural = VoiceJudge(), [], []
    for row in chosen:
        stream = decoder.open(DecodeOptions(voice))
        waveform = np.concatenate([*stream.feed(codes[row["path"]].tolist()), *stream.finish()])
        heard = bench.speech.transcribe(waveform, decoder.sample_rate, language)
        right.append(nearest_spelling(heard, names, language) == row["text"])
        natural.append(judge.naturalness(waveform, decoder.sample_rate))
    print(
        f"{voice} of the codes of {source}, {language}: heard right {np.mean(right):.3f} of {len(chosen)}, "
        f"DNSMOS {np.mean(natural):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
