"""Evaluation step: the ten turns of a spoken conversation, drawn from the recordings, with what each asks for. Asks nobody."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recipes.domain import LANGUAGES, Concept, load_concepts
from recipes.phrasings import answer_text, category_in, training_phrasings
from recipes.pictures import load_pictures, on_white
from recipes.speech import read_manifest, read_recording
from recipes.utterances import FIXED_ANSWERS

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn of the person: `waveform` says `text`; a picture (a PNG) and words may come before it. `accepted` are the
    right answers, in `language`, among `choices`; `concept` is what a picture must show, in `style`."""

    kind: str
    text: str
    waveform: np.ndarray
    sample_rate: int
    language: str
    accepted: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    concept: int | None = None
    style: int = 0
    words: str = ""
    picture: bytes | None = None
    in_words: bool = False  # judged by the words of the answer, not by its voice
    spoken_over: bool = False  # the next turn is said while the answer is heard

    @property
    def accepted_shown(self) -> str:
        return self.accepted[0] if len(self.accepted) == 1 else f"{self.accepted[0]}, or one of {len(self.accepted) - 1} others"


class Script:
    """Seeded; every other seed asks in the other language first."""

    def __init__(self, cache: Path, split: str, seed: int) -> None:
        self._cache, self._random = cache, random.Random(f"converse|{split}|{seed}")
        self._concepts = load_concepts()
        self._pictures = on_white(load_pictures(cache))  # uint8 [concepts, styles, side, side, 3]
        self._recordings = read_manifest(cache, split=split, set="input")
        self._first, self._second = LANGUAGES if seed % 2 == 0 else LANGUAGES[::-1]

    def turns(self) -> list[Asked]:
        first, second = self._first, self._second
        return [
            self._name_one(first),
            self._translated(first),
            self._fixed("abilities", first),  # is spoken over: its answer is long enough
            self._yes_or_no(first),
            self._drawn(first),
            self._shown(first),
            self._translated(second),
            self._fixed("refusal", second),  # likewise
            self._drawn(second),
            self._written_down(second),
        ]

    def _row(self, template: str, language: str, fits: Callable[[Row], bool] = lambda row: True) -> Row:
        rows = [row for row in self._recordings if (row["template"], row["language"]) == (template, language) and fits(row)]
        if not rows:
            raise SystemExit(
                f"there is no recording of `{template}` in `{language}`; `python -m recipes.speech input` makes some"
            )
        return self._random.choice(rows)

    def _asked(self, kind: str, row: Row, language: str, **more: Any) -> Asked:
        return Asked(kind, row["text"], read_recording(self._cache, row), row["sample_rate"], language, **more)

    def _names(self, language: str) -> tuple[str, ...]:
        return tuple(answer_text(concept, language) for concept in self._concepts)

    def _name_one(self, language: str) -> Asked:
        row = self._row("name_one", language)
        wanted = category_in(row["text"], language)
        accepted = tuple(answer_text(each, language) for each in self._concepts if each.category_english == wanted)
        return self._asked("name one", row, language, accepted=accepted, choices=self._names(language))

    def _translated(self, language: str) -> Asked:
        row, other = self._row("translate", language), next(other for other in LANGUAGES if other != language)
        accepted = (answer_text(self._concept(row), other),)
        return self._asked(f"{language} to {other}", row, other, accepted=accepted, choices=self._names(other))

    def _fixed(self, answer: str, language: str) -> Asked:
        accepted = (FIXED_ANSWERS[language][answer],)
        return self._asked(answer, self._row(answer, language), language, accepted=accepted, spoken_over=True)

    def _yes_or_no(self, language: str) -> Asked:
        row, answers = self._row("is_category", language), FIXED_ANSWERS[language]
        right = self._concept(row).category_english == category_in(row["text"], language)
        choices = (answers["yes"], answers["no"])
        return self._asked("yes or no", row, language, accepted=(choices[0 if right else 1],), choices=choices)

    def _drawn(self, language: str) -> Asked:
        row = self._row("draw", language)
        wanted = (f"a picture of {self._concept(row).english}",)
        return self._asked("draw", row, language, accepted=wanted, concept=row["concept"])

    def _shown(self, language: str) -> Asked:
        concept = self._random.choice(self._concepts)
        file = io.BytesIO()
        Image.fromarray(self._pictures[concept.index, self._random.randrange(self._pictures.shape[1])]).save(file, "PNG")
        accepted, choices = (answer_text(concept, language),), self._names(language)
        row = self._row("what_is_this", language)
        return self._asked("a picture, asked aloud", row, language, accepted=accepted, choices=choices, picture=file.getvalue())

    def _written_down(self, language: str) -> Asked:
        row = self._row("name", language)
        words = self._random.choice(training_phrasings("speech_to_text", language))
        return self._asked("write down", row, language, accepted=(row["text"],), words=words, in_words=True)

    def _concept(self, row: Row) -> Concept:
        return self._concepts[row["concept"]]
