"""Evaluation step: the cases of every task, with phrasings, views and voices that training never met. Asks nobody."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recipes.asking import Part, picture_part, speech_part, text_part
from recipes.domain import CATEGORIES, LANGUAGES, STYLE_NAMES, STYLES, Concept, load_concepts
from recipes.phrasings import answer_text, category_in, fill, held_out_phrasings, other_names
from recipes.pictures import load_pictures
from recipes.speech import read_manifest, read_recording
from recipes.utterances import FIXED_ANSWERS, with_article


@dataclass(frozen=True, slots=True)
class Case:
    """A question and what of the answer is checked: whatever is not None."""

    task: str
    language: str  # of the answer
    parts: tuple[Part, ...]
    modalities: tuple[str, ...]
    text: str | None = None
    concept: int | None = None  # what the picture must show
    style: int | None = None  # in which style, where that is judged
    spoken: str | None = None  # what the voice must be nearest to
    spoken_choices: tuple[str, ...] = ()
    drawn_as: int = 0  # the style of the source picture that gives the ceiling
    sentences: tuple[str, ...] = ()  # `text` with each name there is in it: which is the answer nearest to?


class CaseMaker:
    """Draws seeded cases; one method for each task."""

    def __init__(self, cache: Path, seed: int = 2026) -> None:
        self._cache = cache
        self._concepts = load_concepts()
        self._pictures = load_pictures(cache)  # uint8 [concepts, styles, 160, 160, 4]
        self._held_out_style = load_pictures(cache, "openmoji")
        self._clips = read_manifest(cache, split="eval", set="input")
        self._others = other_names(held_out=True)
        self._seed = seed
        self._random = random.Random(seed)
        self.tasks: dict[str, Callable[[], Case | None]] = {
            "text to picture, en": lambda: self._drawn("text_to_picture", "en"),
            "text to picture, ko": lambda: self._drawn("text_to_picture", "ko"),
            "picture to name, trained styles": lambda: self._named(self._pictures),
            "picture to name, held-out style": lambda: self._named(self._held_out_style),
            "speech to text, new speakers": lambda: self._transcribed("speaker"),
            "speech to text, new engines": lambda: self._transcribed("engine"),
            "text to speech, en": lambda: self._said("en"),
            "text to speech, ko": lambda: self._said("ko"),
            "speech to speech, translation": self._interpreted,
            "speech to speech, yes or no": self._answered,
            "picture and speech to speech": self._shown_and_asked,
            "speech to picture": self._drawn_on_spoken_request,
            "picture to picture, other style": self._redrawn,
            "interleaved, all three right": self._interleaved,
            "refuses what it cannot do": self._refused,
            "text to text, translation": self._translated,
            "text to text, yes or no": self._judged,
        }

    def cases(self, task: str, count: int) -> Iterator[Case]:
        """The same cases for the same seed, whichever other tasks are run."""
        self._random = random.Random(f"{self._seed}|{task}")
        for _ in range(count):
            case = self.tasks[task]()
            if case is not None:
                yield case

    def _concept(self) -> Concept:
        return self._random.choice(self._concepts)

    def _language(self) -> str:
        return self._random.choice(LANGUAGES)

    def _phrase(self, task: str, language: str, concept: Concept | None = None, **slots: str) -> tuple[str, int]:
        phrasing = self._random.choice(held_out_phrasings(task, language))
        style = self._random.randrange(len(STYLES)) if "{style}" in phrasing else 0
        return fill(phrasing, language, concept, style=STYLE_NAMES[STYLES[style]][language], **slots), style

    def _drawn(self, task: str, language: str) -> Case:
        concept = self._concept()
        phrase, style = self._phrase(task, language, concept)
        return Case(task, language, (text_part(phrase),), ("text", "image"), concept=concept.index, drawn_as=style)

    def _view(self, pictures: np.ndarray, concept: int) -> Part:
        """A picture of the concept as a user might send it."""
        chosen = pictures[concept, self._random.randrange(pictures.shape[1])]
        return picture_part(disturb(chosen, self._random), "JPEG", self._random.randint(40, 95))

    def _named(self, pictures: np.ndarray) -> Case:
        concept, language = self._concept(), self._language()
        question = text_part(self._phrase("picture_to_name", language)[0])
        parts = (self._view(pictures, concept.index), question)
        return Case("picture_to_name", language, parts, ("text",), text=answer_text(concept, language))

    def _clip(self, wanted: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], Part] | None:
        usable = [row for row in self._clips if wanted(row)]
        if not usable:
            return None
        row = self._random.choice(usable)
        return row, speech_part(read_recording(self._cache, row), row["sample_rate"])

    def _transcribed(self, held_out: str) -> Case | None:
        found = self._clip(lambda row: row["held_out"] == held_out and row["concept"] is not None)
        if found is None:
            return None
        row, heard = found
        asked = text_part(self._phrase("speech_to_text", self._language())[0])
        name = self._concepts[row["concept"]].name(row["language"])
        sentences = tuple(row["text"].replace(name, other.name(row["language"])) for other in self._concepts)
        return Case("speech_to_text", row["language"], (heard, asked), ("text",), text=row["text"], sentences=sentences)

    def _said(self, language: str) -> Case:
        concept = self._concept()
        phrase, _ = self._phrase("text_to_speech", language, text=concept.name(language))
        return self._spoken("text_to_speech", language, concept, text_part(phrase))

    def _spoken(self, task: str, language: str, concept: Concept, *parts: Part) -> Case:
        choices = tuple(answer_text(other, language) for other in self._concepts)
        return Case(task, language, parts, ("text", "audio"), spoken=answer_text(concept, language), spoken_choices=choices)

    def _interpreted(self) -> Case | None:
        found = self._clip(lambda row: row["template"] == "translate")
        if found is None:
            return None
        row, heard = found
        other = "en" if row["language"] == "ko" else "ko"
        return self._spoken("speech_to_speech", other, self._concepts[row["concept"]], heard)

    def _answered(self) -> Case | None:
        found = self._clip(lambda row: row["template"] == "is_category")
        if found is None:
            return None
        row, heard = found
        answers = FIXED_ANSWERS[row["language"]]
        right = self._concepts[row["concept"]].category_english == category_in(row["text"], row["language"])
        choices = (answers["yes"], answers["no"])
        spoken = choices[0] if right else choices[1]
        return Case("speech_to_speech", row["language"], (heard,), ("text", "audio"), spoken=spoken, spoken_choices=choices)

    def _shown_and_asked(self) -> Case | None:
        found = self._clip(lambda row: row["template"] == "what_is_this")
        if found is None:
            return None
        row, heard = found
        concept = self._concept()
        return self._spoken("picture_and_speech", row["language"], concept, self._view(self._pictures, concept.index), heard)

    def _drawn_on_spoken_request(self) -> Case | None:
        found = self._clip(lambda row: row["template"] == "draw")
        if found is None:
            return None
        row, heard = found
        return Case("speech_to_picture", row["language"], (heard,), ("text", "image"), concept=row["concept"])

    def _redrawn(self) -> Case:
        concept, language = self._concept(), self._language()
        phrasings = [phrasing for phrasing in held_out_phrasings("picture_to_picture", language) if "{style}" in phrasing]
        style = self._random.randrange(len(STYLES))
        asked = fill(self._random.choice(phrasings), language, concept, style=STYLE_NAMES[STYLES[style]][language])
        parts = (self._view(self._pictures, concept.index), text_part(asked))
        return Case(
            "picture_to_picture", language, parts, ("text", "image"), concept=concept.index, style=style, drawn_as=style
        )

    def _interleaved(self) -> Case:
        concept, language = self._concept(), self._language()
        phrase, style = self._phrase("interleaved", language, concept)
        spoken = self._spoken("interleaved", language, concept, text_part(phrase))
        return Case(
            "interleaved",
            language,
            spoken.parts,
            ("text", "image", "audio"),
            text=spoken.spoken,
            concept=concept.index,
            spoken=spoken.spoken,
            spoken_choices=spoken.spoken_choices,
            drawn_as=style,
        )

    def _refused(self) -> Case:
        language = self._language()
        other = self._random.choice(self._others[language])
        if language == "en":
            other = with_article(other)
        category = self._random.choice(list(CATEGORIES))
        phrase, _ = self._phrase("refuse", language, self._concept(), other=other, category=category)
        return Case("refuse", language, (text_part(phrase),), ("text",), text=FIXED_ANSWERS[language]["refusal"])

    def _translated(self) -> Case:
        concept, language = self._concept(), self._language()
        phrase, _ = self._phrase("translate", language, concept)
        other = "en" if language == "ko" else "ko"
        return Case("translate", other, (text_part(phrase),), ("text",), text=answer_text(concept, other))

    def _judged(self) -> Case:
        concept, language = self._concept(), self._language()
        right = self._random.random() < 0.5
        wrong = [category for category in CATEGORIES if category != concept.category_english]
        category = concept.category_english if right else self._random.choice(wrong)
        phrase, _ = self._phrase("category", language, concept, category=category)
        text = FIXED_ANSWERS[language]["yes" if right else "no"]
        return Case("category", language, (text_part(phrase),), ("text",), text=text)


def disturb(picture: np.ndarray, chooser: random.Random) -> np.ndarray:
    """uint8 [160, 160, 4] -> [height, width, 3]: another size and place, on another background."""
    side = chooser.randint(96, 320)
    small = round(side * chooser.uniform(0.65, 1.0))
    colour = "white" if chooser.random() < 0.5 else tuple(chooser.randint(150, 255) for _ in range(3))
    canvas = Image.new("RGB", (side, side), colour)
    figure = Image.fromarray(picture, "RGBA").resize((small, small), Image.Resampling.LANCZOS)
    figure = figure.rotate(chooser.uniform(-6, 6), Image.Resampling.BICUBIC)
    canvas.paste(figure, (chooser.randint(0, side - small), chooser.randint(0, side - small)), figure)
    return np.asarray(canvas)
