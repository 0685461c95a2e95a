"""Step 7, voice. Measures what less look-ahead costs, and chooses the least that keeps within a bound.

    python -m decoders.audio.look_ahead FOLDER [--bound 40] [--units FILE]

Sound made with `look_ahead_units` is compared with exact sound, both streamed in chunks of the first chunk's size, where
seams are most frequent. The bound is on the worst unit: its error, in decibels under the loudness of the whole.
FILE holds one utterance a line, units separated by spaces; without it units are drawn at random, which is harder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from decoders.audio.audio import AudioDecoder, DecodeOptions, Streaming

UTTERANCES, LONGEST, SEED = 6, 80, 1  # of random units
BOUND = 40.0  # decibels


@dataclass(frozen=True, slots=True)
class Cost:
    """Decibels: the error of everything and of the worst unit over the sound; the largest jump at a seam over full scale."""

    look_ahead: int
    error: float
    worst: float
    jump: float


def random_utterances(units: int) -> list[list[int]]:
    draw = np.random.default_rng(SEED)
    return [draw.integers(0, units, LONGEST).tolist() for _ in range(UTTERANCES)]


def streamed(decoder: AudioDecoder, streaming: Streaming, options: DecodeOptions, units: Sequence[int]) -> np.ndarray:
    stream = decoder.open(options, streaming)
    return np.concatenate([*stream.feed(units), *stream.finish()])


def cost(decoder: AudioDecoder, utterances: Sequence[Sequence[int]], look_ahead: int, voice: str | None = None) -> Cost:
    """What streaming with this look-ahead costs, and, where it adds a jump to a seam, how large."""
    shared = decoder.streaming
    rate, chunk = decoder.network.samples_per_unit, shared.first_chunk_units
    fade = min(shared.cross_fade_samples, rate * min(1, look_ahead))
    streaming = replace(shared, look_ahead_units=look_ahead, largest_chunk_units=chunk, cross_fade_samples=fade)
    errors, sounds, jumps = [], [], [0.0]
    for units in utterances:
        exact = streamed(decoder, streaming, DecodeOptions(voice, look_ahead="exact"), units)
        error = streamed(decoder, streaming, DecodeOptions(voice, look_ahead="low_latency"), units) - exact
        seams = np.arange(chunk * rate, len(error), chunk * rate)
        jumps += np.abs(error[seams] - error[seams - 1]).tolist()
        errors.append(np.square(error).reshape(-1, rate).mean(axis=1))
        sounds.append(np.square(exact).reshape(-1, rate).mean(axis=1))
    every, loudness = np.concatenate(errors), np.concatenate(sounds).mean()
    return Cost(
        look_ahead,
        error=decibels(every.mean() / loudness),
        worst=decibels(every.max() / loudness),
        jump=decibels(max(jumps) ** 2),
    )


def decibels(power: float) -> float:
    return float(10 * np.log10(max(power, 1e-20)))


def costs(decoder: AudioDecoder, utterances: Sequence[Sequence[int]], bound: float) -> list[Cost]:
    """Of 0, 1, 2 ... units of look-ahead, up to the first within the bound, which all of the right context always is."""
    every: list[Cost] = []
    for look_ahead in range(decoder.network.context()[1] + 1):
        every.append(cost(decoder, utterances, look_ahead))
        if every[-1].worst <= -bound:
            break
    return every


def recommended(decoder: AudioDecoder, utterances: Sequence[Sequence[int]], bound: float = BOUND) -> int:
    """The `look_ahead_units` that a config.json should hold."""
    return costs(decoder, utterances, bound)[-1].look_ahead


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bound", type=float, default=BOUND, help="decibels that the worst unit's error lies under the sound")
    parser.add_argument("--units", type=Path, help="utterances, one a line; random ones without")
    arguments = parser.parse_args()
    decoder = AudioDecoder.from_pretrained(arguments.folder)
    utterances = random_utterances(decoder.network.config.num_units)
    if arguments.units:
        lines = arguments.units.read_text(encoding="utf-8").splitlines()
        utterances = [[int(unit) for unit in line.split()] for line in lines if line.strip()]
    first, per_second = decoder.streaming.first_chunk_units, decoder.sample_rate // decoder.network.samples_per_unit
    print("look-ahead | first sound waits for | error dB | worst unit dB | largest jump at a seam, dBFS")
    for each in costs(decoder, utterances, arguments.bound):
        waits = first + each.look_ahead
        print(
            f"{each.look_ahead:10} | {waits:3} units, {waits / per_second:.2f} s     | {each.error:8.1f} | "
            f"{each.worst:13.1f} | {each.jump:.1f}"
        )
    print(f"look_ahead_units: {each.look_ahead} (the bound of {arguments.bound:g} dB); config.json has "
          f"{decoder.streaming.look_ahead_units}; exact needs {decoder.network.context()[1]}")  # fmt: skip


if __name__ == "__main__":
    main()
