"""Data step: one request with its answer, and what is answered to a recording. Knows no phrasings.

A turn names its media (which picture, which recording) instead of holding them, so that dialogues stay pure text.
"""

import random
from dataclasses import dataclass

from recipes.domain import Concept
from recipes.phrasings import answer_text, category_in
from recipes.utterances import FIXED_ANSWERS


@dataclass(frozen=True, slots=True)
class SeenPicture:
    concept: int
    style: int


@dataclass(frozen=True, slots=True)
class HeardClip:
    """A recording of the manifest, by its path, and what it says."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording says and is for."""

    path: str
    text: str
    language: str
    concept: int | None
    template: str

    @property
    def clip(self) -> HeardClip:
        return HeardClip(self.path, self.text)


UserPart = str | SeenPicture | HeardClip


@dataclass(frozen=True, slots=True)
class Turn:
    """A request and its answer: text first, then the picture, then the text aloud; `text` may be left unwritten. Before its
    answer to a recording the model writes down what it heard, for it knows much more about words than about sounds."""

    task: str
    language: str
    user: tuple[UserPart, ...]
    text: str
    picture: SeenPicture | None = None
    spoken: bool = False
    written: bool = True
    concept: int | None = None

    @property
    def heard(self) -> str:
        """What is written down before the answer, if anything."""
        if self.task == "speech_to_text" or not self.written:
            return ""
        return " ".join(part.text for part in self.user if isinstance(part, HeardClip))


def spoken_answer(
    recording: Recorded, template: str, concepts: list[Concept], chooser: random.Random
) -> tuple[str, int | None]:
    """What is answered to a recording, and the concept the answer names."""
    language, other = recording.language, "en" if recording.language == "ko" else "ko"
    if template == "name_one":
        category = category_in(recording.text, language)
        concept = chooser.choice([concept for concept in concepts if concept.category_english == category])
        return answer_text(concept, language), concept.index
    concept = concepts[recording.concept or 0]
    if template == "is_category":
        return yes_or_no(concept, category_in(recording.text, language), language), None
    translated = template in ("translate", "name")
    return answer_text(concept, other if translated else language), concept.index


def yes_or_no(concept: Concept, category: str, language: str) -> str:
    return FIXED_ANSWERS[language]["yes" if concept.category_english == category else "no"]
