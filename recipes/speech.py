"""Data step: synthesised recordings with a manifest in the cache, resumable and seeded. Knows nothing about training.

`python -m recipes.speech [stage ...]` writes FLAC files and appends to manifest.jsonl; what is there is not made again.
"""

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipes.domain import LANGUAGES, OUTPUT_VOICES, cache_folder, load_concepts
from recipes.engines import Engine, Espeak, Festival, Flite, Hibari, Kokoro, Manner, Phonemizer, Piper
from recipes.utterances import (
    CONCEPT_PHRASINGS,
    Utterance,
    answers,
    concept_requests,
    dictations,
    general_requests,
    more_requests,
)

SEED = "omni-1"
SAMPLE_RATES = {"output": 24_000, "input": 16_000}
LOUDNESS = 10 ** (-23 / 20)
EDGE_SECONDS = 0.06

VOICES: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("voices.json").read_text(encoding="utf-8"))
_EVALUATED_TEMPLATES = (
    ("name", False),
    ("name", False),
    ("draw", False),
    ("translate", False),
    ("is_category", False),
    ("draw", True),
)
BARE_NAME_CLIPS, TEMPLATE_CLIPS, GENERAL_CLIPS, DICTATION_CLIPS = 25, 10, 30, 2000


@dataclass(frozen=True, slots=True)
class Recording:
    """One file to make: who says what, how, and what it is for."""

    utterance: Utterance
    engine: str
    manner: Manner
    set: str
    split: str
    held_out: str = ""

    @property
    def path(self) -> str:
        """Relative to the cache; says the content, so a changed plan never reuses a wrong file."""
        content = json.dumps([asdict(self.utterance), self.engine, asdict(self.manner), self.set], ensure_ascii=False)
        return f"speech/{self.set}/{self.engine}/{hashlib.sha1(content.encode()).hexdigest()[:16]}.flac"

    def row(self, seconds: float) -> dict[str, Any]:
        return {
            "path": self.path,
            "sample_rate": SAMPLE_RATES[self.set],
            "seconds": round(seconds, 3),
            **asdict(self.utterance),
            "engine": self.engine,
            "voice": self.manner.voice,
            "speed": self.manner.speed,
            "pitch": self.manner.pitch,
            "split": self.split,
            "set": self.set,
            "held_out": self.held_out,
        }


def read_manifest(cache: Path, split: str | None = None, set: str | None = None) -> list[dict[str, Any]]:
    """Rows of every finished recording; `path` is relative to the cache."""
    manifest = cache / "speech" / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line] if manifest.exists() else []
    return [row for row in rows if split in (None, row["split"]) and set in (None, row["set"])]


def read_recording(cache: Path, row: dict[str, Any]) -> np.ndarray:
    """float32 [samples] at the row's sample rate."""
    import soundfile

    waveform, _ = soundfile.read(cache / row["path"], dtype="float32")
    return np.asarray(waveform)


def tidy(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Trims silence at both ends to 60 ms, brings speech to -23 dBFS RMS, fades the edges."""
    window = sample_rate // 100
    frames = waveform[: len(waveform) // window * window].reshape(-1, window)
    power = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(power > max(power.max() * 0.02, 1e-4))
    edge = int(EDGE_SECONDS * sample_rate)
    start = max(0, loud[0] * window - edge)
    stop = min(len(waveform), (loud[-1] + 1) * window + edge)
    speech = power[loud]
    kept = waveform[start:stop] * (LOUDNESS / float(np.sqrt((speech**2).mean())))
    fade = np.linspace(0, 1, min(edge // 4, len(kept) // 2), dtype=np.float32)
    kept[: len(fade)] *= fade
    kept[len(kept) - len(fade) :] *= fade[::-1]
    peak = np.abs(kept).max()
    return (kept * min(1.0, 0.97 / peak)).astype(np.float32)


def plan_output() -> Iterator[Recording]:
    """The server's own voices, each first in the language it speaks best."""
    concepts = load_concepts()
    heart, kumo = OUTPUT_VOICES["heart"], OUTPUT_VOICES["kumo"]
    for language, voice in (("en", heart), ("ko", kumo), ("ko", heart), ("en", kumo)):
        for utterance in answers(concepts, language):
            yield Recording(utterance, "kokoro", Manner(voice), "output", "train")


def plan_output_extra() -> Iterator[Recording]:
    """A native English male voice, should jm_kumo's accent not do."""
    for utterance in answers(load_concepts(), "en"):
        yield Recording(utterance, "kokoro", Manner("am_michael"), "output", "train")


def plan_input() -> Iterator[Recording]:
    """The bulk of what the server hears: every text by many cheap voices."""
    chooser = random.Random(SEED)
    for utterance in _training_requests():
        yield Recording(utterance, *_cheap_voice(utterance.language, chooser), "input", "train")


def plan_input_more() -> Iterator[Recording]:
    """More sentences around the same names, by the same voices."""
    chooser = random.Random(SEED + "more")
    for concept in load_concepts():
        for language in LANGUAGES:
            for utterance in more_requests(concept, language, SEED):
                yield Recording(utterance, *_cheap_voice(language, chooser), "input", "train")


def plan_input_kokoro() -> Iterator[Recording]:
    """Neural speakers and averages of them; fewer, for they are slow."""
    chooser = random.Random(SEED + "kokoro")
    for concept in load_concepts():
        for language in LANGUAGES:
            for template in ("name", "name", "name", *sorted(CONCEPT_PHRASINGS[language])):
                utterances = list(concept_requests(concept, language, template, 4, False, SEED))
                voice = "+".join(chooser.sample(VOICES["kokoro"]["training"], chooser.choice((1, 2, 2))))
                manner = Manner(voice, round(chooser.uniform(0.85, 1.2), 2), round(chooser.uniform(0.93, 1.07), 3))
                yield Recording(chooser.choice(utterances), "kokoro", manner, "input", "train")


def plan_input_festival() -> Iterator[Recording]:
    """One engine more, English only: who knows few engines hears no other."""
    chooser = random.Random(SEED + "festival")
    for concept in load_concepts():
        for template in ("name", *sorted(CONCEPT_PHRASINGS["en"])):
            for utterance in concept_requests(concept, "en", template, 4, False, SEED):
                speed, pitch = round(chooser.uniform(0.8, 1.3), 2), round(chooser.uniform(0.84, 1.2), 3)
                manner = Manner(chooser.choice(VOICES["festival"]["training"]), speed, pitch)
                yield Recording(utterance, "festival", manner, "input", "train")


def plan_input_dictation() -> Iterator[Recording]:
    """Words in no sensible order, so that they are heard and not guessed."""
    chooser = random.Random(SEED + "dictation")
    for language in LANGUAGES:
        for utterance in dictations(load_concepts(), language, DICTATION_CLIPS, SEED):
            yield Recording(utterance, *_cheap_voice(language, chooser), "input", "train")


def plan_evaluation() -> Iterator[Recording]:
    """Voices never trained on: new speakers of known engines, and engines never heard."""
    chooser = random.Random(SEED + "evaluation")
    concepts = load_concepts()
    for concept in concepts:
        for language in LANGUAGES:
            for template, held_out_phrasing in _EVALUATED_TEMPLATES:
                utterance = next(concept_requests(concept, language, template, 1, held_out_phrasing, SEED))
                manner = Manner(_espeak_voice("held_out", chooser))
                yield Recording(utterance, "espeak", manner, "input", "eval", "speaker")
                if language == "en":
                    yield Recording(
                        utterance,
                        "flite",
                        Manner(chooser.choice(VOICES["flite"]["held_out"])),
                        "input",
                        "eval",
                        "engine",
                    )
    for language in LANGUAGES:
        for utterance in general_requests(language, 4, False):
            voice = Manner(_espeak_voice("held_out", chooser))
            yield Recording(utterance, "espeak", voice, "input", "eval", "speaker")


def plan_evaluation_piper() -> Iterator[Recording]:
    for concept in load_concepts():
        for template in ("name", "draw"):
            utterance = next(concept_requests(concept, "en", template, 1, False, SEED))
            yield Recording(utterance, "piper", Manner("joe"), "input", "eval", "engine")


def plan_evaluation_kokoro() -> Iterator[Recording]:
    chooser = random.Random(SEED + "evaluation kokoro")
    for concept in load_concepts():
        for language in LANGUAGES:
            template = chooser.choice(("name", "name", *sorted(CONCEPT_PHRASINGS[language])))
            utterance = next(concept_requests(concept, language, template, 1, False, SEED))
            yield Recording(
                utterance, "kokoro", Manner(chooser.choice(VOICES["kokoro"]["held_out"])), "input", "eval", "speaker"
            )


STAGES: dict[str, Callable[[], Iterator[Recording]]] = {
    "output": plan_output,
    "input": plan_input,
    "input_more": plan_input_more,
    "output_extra": plan_output_extra,
    "evaluation": plan_evaluation,
    "input_kokoro": plan_input_kokoro,
    "input_festival": plan_input_festival,
    "input_dictation": plan_input_dictation,
    "evaluation_kokoro": plan_evaluation_kokoro,
    "evaluation_piper": plan_evaluation_piper,
}


class Studio:
    """Makes recordings, building each engine when it is first needed."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._engines: dict[str, Engine] = {}
        self._phonemizer: Phonemizer | None = None

    def record(self, recording: Recording) -> dict[str, Any]:
        import soundfile
        import soxr

        utterance = recording.utterance
        pause = "?" if utterance.template in ("translate", "is_category", "what_is_this") else "."
        waveform, rate = self._engine(recording.engine).speak(utterance.text + pause, utterance.language, recording.manner)
        target = SAMPLE_RATES[recording.set]
        waveform = tidy(np.asarray(soxr.resample(waveform, rate, target), np.float32), target)
        path = self._cache / recording.path
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")
        soundfile.write(unfinished, waveform, target, subtype="PCM_16")
        unfinished.rename(path)
        return recording.row(len(waveform) / target)

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            self._phonemizer = self._phonemizer or Phonemizer()
            builders: dict[str, Callable[[], Engine]] = {
                "kokoro": lambda: Kokoro(self._cache, self._phonemizer),  # type: ignore[arg-type]
                "hibari": lambda: Hibari(self._phonemizer),  # type: ignore[arg-type]
                "espeak": Espeak,
                "flite": Flite,
                "festival": Festival,
                "piper": Piper,
            }
            self._engines[name] = builders[name]()
        return self._engines[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=list(STAGES), help=f"of {', '.join(STAGES)}")
    parser.add_argument("--reverse", action="store_true", help="from the end, so that two runs of a stage meet in the middle")
    options = parser.parse_args()
    cache = cache_folder()
    for stage in options.stages:
        recordings = list(STAGES[stage]())
        if not stage.startswith("output"):  # so that a trainer who starts early sees every concept
            random.Random(SEED).shuffle(recordings)
        _record_all(cache, stage, recordings[::-1] if options.reverse else recordings)


def _record_all(cache: Path, stage: str, recordings: list[Recording]) -> None:
    finished = {row["path"] for row in read_manifest(cache)}
    studio = Studio(cache)
    began = time.monotonic()
    manifest_path = cache / "speech" / "manifest.jsonl"
    manifest_path.parent.mkdir(parents=True, exist_ok=True)
    with manifest_path.open("a", encoding="utf-8") as manifest:
        for number, recording in enumerate(recordings):
            if recording.path in finished or (cache / recording.path).exists():
                continue
            finished.add(recording.path)
            manifest.write(json.dumps(studio.record(recording), ensure_ascii=False) + "\n")
            manifest.flush()
            if number % 200 == 0:
                print(f"{stage}: {number} of {len(recordings)}, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{stage}: done, {len(recordings)} recordings, {time.monotonic() - began:.0f} s", flush=True)


def _training_requests() -> Iterator[Utterance]:
    concepts = load_concepts()
    for language in LANGUAGES:
        for concept in concepts:
            yield from concept_requests(concept, language, "name", BARE_NAME_CLIPS, False, SEED)
            for template in CONCEPT_PHRASINGS[language]:
                yield from concept_requests(concept, language, template, TEMPLATE_CLIPS, False, SEED)
        yield from general_requests(language, GENERAL_CLIPS, False)


def _espeak_voice(kind: str, chooser: random.Random) -> str:
    return f"{chooser.choice(VOICES['espeak']['accents'])}+{chooser.choice(VOICES['espeak'][kind])}"


def _cheap_voice(language: str, chooser: random.Random) -> tuple[str, Manner]:
    engines = {"en": (("espeak", 45), ("flite", 30), ("hibari", 25)), "ko": (("espeak", 60), ("hibari", 40))}[language]
    engine = chooser.choices([name for name, _ in engines], [weight for _, weight in engines])[0]
    speed, seed = round(chooser.uniform(0.8, 1.3), 2), chooser.randrange(1000)
    if engine == "espeak":
        voice = _espeak_voice("training", chooser)
        return engine, Manner(voice, speed, round(chooser.uniform(0.5, 1.6), 2), seed)
    voice = "heart" if engine == "hibari" else chooser.choice(VOICES["flite"]["training"])
    return engine, Manner(voice, speed, round(chooser.uniform(0.84, 1.2), 3), seed)


if __name__ == "__main__":
    main()
