"""Speech-in step: the synthesised recordings as 16 kHz waveforms with their texts. Knows nothing about networks."""

import json
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Self

import numpy as np
import soundfile
import soxr

from recipes.domain import cache_folder
from recipes.engines import Phonemizer

SAMPLE_RATE = 16_000
LONGEST_SECONDS = 4.9  # one chunk of the encoder; longer recordings are left out of training

# Letters would ask a small encoder for English spelling, of which it learned half as many names as of Korean ones.
ALPHABET = [*" AIOWTabdefhijklmnopstuvwzæðŋɐɑɔɕəɛɜɡɪɯɹɾʃʊʌʒʤʥʧʨʰθᵊᵻ"]  # misaki's phonemes, without stress
BLANK = 0  # symbols are numbered from 1, in the order of ALPHABET
_NUMBER = {symbol: number for number, symbol in enumerate(ALPHABET, 1)}


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of the manifest; `set` there is `collection` here."""

    path: str
    text: str
    language: str
    concept: int | None
    template: str
    engine: str
    voice: str
    split: str
    collection: str
    held_out: str
    sample_rate: int
    seconds: float

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        return cls(
            collection=row["set"],
            **{field.name: row[field.name] for field in fields(cls) if field.name != "collection"},
        )

    @property
    def is_output_voice(self) -> bool:
        return self.collection == "output"

    @property
    def kind(self) -> str:
        """Language and template: what is asked, whatever it is asked about."""
        return f"{self.language} {self.template}"

    @property
    def is_training(self) -> bool:
        return self.split == "train"


@cache
def symbols(text: str, language: str) -> tuple[int, ...]:
    """How a text sounds, as numbers; stress and punctuation are dropped."""
    return tuple(_NUMBER[symbol] for symbol in _phonemizer()(text, language).strip() if symbol in _NUMBER)


@cache
def _phonemizer() -> Phonemizer:
    return Phonemizer()


def read_clips() -> list[Clip]:
    """The recordings made so far; a last line that is still being written is left for the next reading."""
    manifest = cache_folder() / "speech" / "manifest.jsonl"
    finished = manifest.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    return [Clip.from_row(json.loads(line)) for line in finished]


def read_waveform(clip: Clip) -> np.ndarray:
    """int16 [samples] at 16 kHz."""
    waveform, rate = soundfile.read(cache_folder() / clip.path, dtype="float32")
    resampled = soxr.resample(waveform, rate, SAMPLE_RATE)
    return np.round(np.clip(resampled, -1, 1) * 32767).astype(np.int16)


class ClipStore:
    """The recordings in memory; `refresh` takes in those that have appeared since."""

    def __init__(self) -> None:
        self.clips: list[Clip] = []
        self._waveforms: dict[str, np.ndarray] = {}
        self.refresh()

    def refresh(self) -> int:
        """Returns how many recordings are new."""
        known = len(self.clips)
        for clip in read_clips():
            if clip.path in self._waveforms:
                continue
            waveform = read_waveform(clip)
            self._waveforms[clip.path] = waveform
            if len(waveform) <= LONGEST_SECONDS * SAMPLE_RATE and symbols(clip.text, clip.language):
                self.clips.append(clip)
        return len(self.clips) - known

    def waveform(self, clip: Clip) -> np.ndarray:
        """float32 [samples]."""
        return self._waveforms[clip.path].astype(np.float32) / 32767

    def seconds(self, clip: Clip) -> float:
        return len(self._waveforms[clip.path]) / SAMPLE_RATE
