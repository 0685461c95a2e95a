"""Evaluation: drives a running server over held-out cases, lets the judges judge, prints the table of bars.

`python -m recipes.evaluate --url http://127.0.0.1:8000`. A score is the share of cases that are right; its ceiling is
what the same judges say of the source pictures and recordings; the bar is on score over ceiling. It needs
requirements/recipes.txt, and once: `python -m recipes.pictures` and `python -m recipes.speech output evaluation
evaluation_piper`.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recipes.asking import Reply, Server
from recipes.domain import OUTPUT_VOICES, cache_folder
from recipes.evaluation_cases import Case, CaseMaker
from recipes.judges import PictureJudge, SpeechJudge, VoiceJudge, nearest_spelling, sharpness, shrink, spelling
from recipes.pictures import load_pictures, on_white
from recipes.speech import read_manifest, read_recording

BARS = {
    "text to picture, en": 0.85,
    "text to picture, ko": 0.85,
    "picture to name, trained styles": 0.95,
    "picture to name, held-out style": 0.5,
    "speech to text, new speakers": 0.95,
    "speech to text, new engines": 0.80,
    "text to speech, en": 0.90,
    "text to speech, ko": 0.90,
    "speech to speech, translation": 0.85,
    "speech to speech, yes or no": 0.85,
    "picture and speech to speech": 0.85,
    "interleaved, all three right": 0.75,
    "refuses what it cannot do": 0.90,
}
VOICE_SAMPLES = 20  # replies per voice that DNSMOS hears


@dataclass(slots=True)
class Row:
    """One line of the table."""

    task: str
    cases: int
    score: float
    ceiling: float
    bar: str
    passed: bool | None
    failures: list[str] = field(default_factory=list)
    right: str = ""  # of each case in turn, 1 or 0; the voices take turns too

    @property
    def ratio(self) -> float:
        return self.score / self.ceiling if self.ceiling else 0.0

    def markdown(self) -> str:
        mark = {None: "", True: " ✓", False: " ✗"}[self.passed]
        figures = f"{self.score:.3f} | {self.ceiling:.3f} | {self.ratio:.3f}"
        return f"| {self.task} | {self.cases} | {figures} | {self.bar}{mark} |"


class Bench:
    """The judges, and what they say of our answers and of the sources."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.speech = SpeechJudge(cache)
        self.picture = PictureJudge(cache)
        self.sources = on_white(load_pictures(cache))
        self.recordings = {
            (row["text"], row["voice"]): row for row in read_manifest(cache, set="output") if row["engine"] == "kokoro"
        }
        self._heard_path = cache / "judges" / "heard.json"
        self._heard: dict[str, str] = json.loads(self._heard_path.read_text()) if self._heard_path.exists() else {}
        self.pictures_drawn: list[tuple[np.ndarray, np.ndarray]] = []
        self.voices_heard: dict[str, list[tuple[Reply, np.ndarray]]] = {}
        self.names_read: dict[str, list[bool]] = {}

    def judge(self, case: Case, reply: Reply, voice: str) -> tuple[bool, bool]:
        """Whether the answer is right, and whether the judges find the source right."""
        right, ceiling = True, True
        if case.text is not None:
            right &= spelling(reply.text, case.language) == spelling(case.text, case.language)
        if case.concept is not None:
            ceiling &= self._shows(self.sources[case.concept, case.drawn_as], case)
            right &= bool(reply.pictures) and self._shows(reply.pictures[0], case)
            if reply.pictures:
                self.pictures_drawn.append((reply.pictures[0], self.sources[case.concept, case.drawn_as]))
        if case.spoken is not None:
            ceiling &= self._source_says(case, voice)
            right &= reply.waveform is not None and self._says(case, reply)
            self._keep_voice(case, reply, voice)
        return right, ceiling

    def _shows(self, picture: np.ndarray, case: Case) -> bool:
        if self.picture.nearest(picture)[0] != case.concept:
            return False
        return case.style is None or self.picture.nearest_style(picture, case.concept) == case.style

    def _says(self, case: Case, reply: Reply) -> bool:
        assert reply.waveform is not None
        heard = self.speech.transcribe(reply.waveform, reply.sample_rate, case.language)
        return nearest_spelling(heard, case.spoken_choices, case.language) == case.spoken

    def _source_says(self, case: Case, voice: str) -> bool:
        heard = self.source_heard(str(case.spoken), voice)
        return nearest_spelling(heard, case.spoken_choices, case.language) == case.spoken

    def source_heard(self, text: str, voice: str) -> str:
        """What the judge hears when the source of one of the server's voices says it."""
        return self.heard(self.recordings[text, OUTPUT_VOICES[voice]])

    def heard(self, row: dict[str, Any]) -> str:
        """What the judge hears in a source recording; asked once, for it is slow."""
        if row["path"] not in self._heard:
            waveform = read_recording(self.cache, row)
            self._heard[row["path"]] = self.speech.transcribe(waveform, row["sample_rate"], row["language"])
            self._heard_path.write_text(json.dumps(self._heard, ensure_ascii=False))
        return self._heard[row["path"]]

    def _keep_voice(self, case: Case, reply: Reply, voice: str) -> None:
        kept = self.voices_heard.setdefault(voice, [])
        if case.task == "text_to_speech" and reply.waveform is not None and len(kept) < VOICE_SAMPLES:
            row = self.recordings[str(case.spoken), OUTPUT_VOICES[voice]]
            kept.append((reply, read_recording(self.cache, row)))

    def extra_rows(self) -> Iterable[Row]:
        """Names written down, sharpness of the pictures, naturalness and speaker of the voices, over the replies kept."""
        for task, named in self.names_read.items():
            row = Row(f"{task}: the name in it", len(named), float(np.mean(named)), 1.0, f"ratio ≥ {BARS[task]:.2f}", None)
            row.passed = row.score >= BARS[task]
            yield row
        if self.pictures_drawn:
            ours = [sharpness(drawn) for drawn, _ in self.pictures_drawn]
            source = [sharpness(shrink(original, drawn.shape[0])) for drawn, original in self.pictures_drawn]
            row = Row("sharpness of pictures", len(ours), float(np.mean(ours)), float(np.mean(source)), "ratio ≥ 0.60", None)
            row.passed = row.ratio >= 0.6
            yield row
        judge = VoiceJudge() if any(self.voices_heard.values()) else None
        for voice, kept in self.voices_heard.items():
            if not kept or judge is None:
                continue
            ours = [judge.naturalness(reply.waveform, reply.sample_rate) for reply, _ in kept if reply.waveform is not None]
            source = [judge.naturalness(original, 24_000) for _, original in kept]
            row = Row(f"DNSMOS, {voice}", len(ours), float(np.mean(ours)), float(np.mean(source)), "within 0.3", None)
            row.passed = row.score >= row.ceiling - 0.3
            yield row
            yield self._same_speaker(judge, voice, kept)

    def _same_speaker(self, judge: VoiceJudge, voice: str, kept: list[tuple[Reply, np.ndarray]]) -> Row:
        """Cosine of eights of replies to the other half of the recordings: one word is too short to tell a speaker."""
        half = max(1, len(kept) // 2)
        reference = [original for _, original in kept[half:]] or [kept[0][1]]
        rate = kept[0][0].sample_rate
        ours = [reply.waveform for reply, _ in kept[:half] if reply.waveform is not None]
        source = [original for _, original in kept[:half]]
        anchor = judge.speaker(reference, 24_000)
        scores = [float(judge.speaker(ours[at : at + 8], rate) @ anchor) for at in range(0, len(ours), 8)]
        ceilings = [float(judge.speaker(source[at : at + 8], 24_000) @ anchor) for at in range(0, len(source), 8)]
        score, ceiling = float(np.mean(scores)), float(np.mean(ceilings))
        return Row(f"same speaker, {voice}", len(scores), score, ceiling, "score ≥ 0.75", score >= 0.75)


def run_task(task: str, cases: Iterable[Case], server: Server, bench: Bench) -> Row:
    """A case that fails in any way is a wrong answer, and its error is kept."""
    voices = [voice for voice in OUTPUT_VOICES if not server.voices or voice in server.voices] or list(OUTPUT_VOICES)
    results: list[tuple[bool, bool]] = []
    failures: list[str] = []
    for number, case in enumerate(cases):
        voice = voices[number % len(voices)]
        reply = Reply()
        try:
            reply = server.ask(case.parts, case.modalities, voice, seed=number)
        except Exception as error:  # noqa: BLE001 - one failed request must not end an hour of evaluation
            failures.append(f"{type(error).__name__}: {error}")
        results.append(bench.judge(case, reply, voice))
        if case.sentences:
            read = nearest_spelling(reply.text, case.sentences, case.language)
            bench.names_read.setdefault(task, []).append(bool(reply.text) and read == case.text)
        if number % 20 == 19:
            print(f"{task}: {sum(right for right, _ in results)} of {number + 1} right", file=sys.stderr, flush=True)
    score, ceiling = (float(np.mean(column)) for column in zip(*results, strict=True)) if results else (0.0, 0.0)
    marks = "".join(str(int(right)) for right, _ in results)
    row = Row(task, len(results), score, ceiling, "reported", None, failures, marks)
    if task in BARS:
        row.bar = f"ratio ≥ {BARS[task]:.2f}"
        row.passed = row.ratio >= BARS[task]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--cases", type=int, default=200, help="per task")
    parser.add_argument("--tasks", default="", help="only tasks whose name contains one of these, separated by semicolons")
    parser.add_argument("--json", type=Path, default=cache_folder() / "evaluation.json")
    options = parser.parse_args()
    cache = cache_folder()
    server, bench, maker = Server(options.url), Bench(cache), CaseMaker(cache)
    chosen = [task for task in maker.tasks if any(word in task for word in options.tasks.split(";"))]
    rows: list[Row] = []
    for task in chosen:
        began = time.monotonic()
        rows.append(run_task(task, maker.cases(task, options.cases), server, bench))
        print(f"{rows[-1].markdown()} {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        write_json(options.json, server.model, options.cases, rows)
    rows += bench.extra_rows()
    write_json(options.json, server.model, options.cases, rows)
    print(table(rows))


def table(rows: Iterable[Row]) -> str:
    head = "| task | cases | score | ceiling | ratio | bar |\n|---|---:|---:|---:|---:|---|"
    return "\n".join([head, *(row.markdown() for row in rows)])


def write_json(path: Path, model: str, cases: int, rows: Iterable[Row]) -> None:
    lines: list[dict[str, Any]] = [
        asdict(row) | {"ratio": row.ratio, "failures": len(row.failures), "first_failure": row.failures[:1]} for row in rows
    ]
    path.write_text(json.dumps({"model": model, "cases": cases, "rows": lines}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
