"""Data step: what users ask of the embedded checkpoint and what it answers. Knows no tokens or codes."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from recipes.domain import CATEGORIES, LANGUAGES, STYLE_NAMES, STYLES, Concept, load_concepts
from recipes.phrasings import (
    DEFAULT_STYLE,
    answer_text,
    fill,
    other_names,
    style_in,
    training_phrasings,
)
from recipes.turns import Recorded, SeenPicture, Turn, UserPart, spoken_answer, yes_or_no
from recipes.utterances import FIXED_ANSWERS, with_article

SPOKEN_SHARE = {"text_to_speech": 0.75, "speech_to_text": 0.2, "interleaved": 0.8, "refuse": 0.3, "follow_up_name": 0.6}
WEIGHTS = {
    "text_to_picture": 6.0,
    "picture_to_name": 3.0,
    "speech_to_text": 2.0,
    "text_to_speech": 4.0,
    "speech_to_speech": 2.0,
    "speech_to_picture": 2.0,
    "picture_to_picture": 1.5,
    "picture_and_speech": 1.0,
    "translate": 1.0,
    "translate_back": 0.7,
    "category": 1.5,
    "name_one": 0.4,
    "refuse": 2.5,
    "interleaved": 1.2,
    "greet": 0.15,
    "ability": 0.2,
}
POLITE = {
    "en": (
        ("please ", ""),
        ("can you ", ""),
        ("could you ", ""),
        ("", " please"),
        ("", ", please"),
        ("", " for me"),
        ("now ", ""),
    ),
    "ko": (("저기, ", ""), ("그럼 ", ""), ("자, ", ""), ("이제 ", "")),
}
TERSEST = 3
IMPERATIVE = re.compile(
    "(draw|paint|sketch|show|make|create|generate|give|name|tell|say|translate|read|write|describe|identify|transcribe|"
    "redraw|convert|turn|pronounce|repeat|copy|illustrate)\\b"
)


class Dialogues:
    """An endless, seeded stream of turns and conversations over the recordings there are."""

    def __init__(
        self,
        recordings: Iterable[Recorded],
        chooser: random.Random,
        weights: dict[str, float] | None = None,
        terse: float = 0.0,
    ) -> None:
        self.random = chooser
        self.concepts = load_concepts()
        self.others = other_names(held_out=False)
        self.weights = weights or WEIGHTS
        self.terse = terse
        self.recordings: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
        for recording in recordings:
            self.recordings[recording.template, recording.language].append(recording)

    def conversation(self, longest: int = 5) -> list[Turn]:
        """Independent turns, now and then one that refers to the turn before."""
        turns: list[Turn] = []
        count = self.random.choices(range(1, longest + 1), [6, 2, 1, 1, 1][:longest])[0]
        while len(turns) < count:
            turn = self.turn()
            turns.append(turn)
            if longest > 1 and turn.concept is not None and self.random.random() < 0.12:
                turns.append(self.follow_up(turn))
        return turns

    def turn(self) -> Turn:
        task = self.random.choices(list(self.weights), list(self.weights.values()))[0]
        return self.turn_of(task, self.random.choice(LANGUAGES))

    def turn_of(self, task: str, language: str) -> Turn:
        """One turn; a task that needs recordings falls back to its written sibling while there are none."""
        spoken = self.random.random() < SPOKEN_SHARE.get(task, 0.5)
        needs_recordings = task.startswith("speech_to") or task == "picture_and_speech"
        if needs_recordings and not self.recordings["name", language]:
            task = {"speech_to_picture": "text_to_picture", "picture_and_speech": "picture_to_name"}.get(task, "text_to_speech")
        turn: Turn = getattr(self, f"_{task}", self._plain)(task, language)
        if turn.picture is None:
            return replace(turn, spoken=spoken)
        return self._pictured(turn)

    def follow_up(self, before: Turn) -> Turn:
        concept = self.concepts[before.concept or 0]
        task = self.random.choice(("follow_up", "follow_up_name"))
        phrase, style = self._phrase(task, before.language, concept)
        answer = Turn(task, before.language, (phrase,), answer_text(concept, before.language), concept=concept.index)
        if task == "follow_up":
            return self._pictured(replace(answer, picture=SeenPicture(concept.index, style)))
        # What was said is said again, whichever language it was in.
        text = before.text if before.task != "speech_to_text" else answer.text
        return replace(answer, text=text, spoken=self.random.random() < 0.6)

    def _pictured(self, turn: Turn) -> Turn:
        """Text, picture and voice are each left out now and then: the grammar, not the habit, shall decide."""
        chance = self.random.random()
        if chance < 0.12:
            return replace(turn, written=False)
        if chance < 0.18:
            return replace(turn, picture=None, spoken=self.random.random() < 0.5)
        return replace(turn, spoken=self.random.random() < SPOKEN_SHARE.get(turn.task, 0.3))

    def _phrase(self, task: str, language: str, concept: Concept | None = None, **slots: str) -> tuple[str, int]:
        """A training phrasing, filled and varied, and the style it asks for."""
        phrasing = self._phrasing(task, language)
        style = self.random.randrange(len(STYLES)) if "{style}" in phrasing else DEFAULT_STYLE
        slots["style"] = STYLE_NAMES[STYLES[style]][language]
        return self._vary(fill(phrasing, language, concept, **slots), language), style

    def _phrasing(self, task: str, language: str) -> str:
        """Any training phrasing, or one of the tersest, in which there is little beside the name to be misled by."""
        phrasings = training_phrasings(task, language)
        if self.terse and self.random.random() < self.terse:
            phrasings = sorted(phrasings, key=len)[:TERSEST]
        return self.random.choice(phrasings)

    def _vary(self, text: str, language: str) -> str:
        if self.random.random() < 0.25 and (language == "ko" or IMPERATIVE.match(text)):
            before, after = self.random.choice(POLITE[language])
            text = before + text.rstrip("?") + after
        if self.random.random() < 0.3:
            text = text[0].upper() + text[1:]
        chance = self.random.random()
        if chance < 0.2:
            return text.rstrip("?.!")
        if chance < 0.4 and text[-1].isalnum():
            return text + self.random.choice(".!.?")
        return text

    def _concept(self) -> Concept:
        return self.random.choice(self.concepts)

    def _recording(self, template: str, language: str) -> Recorded:
        return self.random.choice(self.recordings[template, language])

    def _shuffled(self, *parts: UserPart) -> tuple[UserPart, ...]:
        return parts if self.random.random() < 0.6 else parts[::-1]

    def _plain(self, task: str, language: str) -> Turn:
        """Greetings and what it can do."""
        text = FIXED_ANSWERS[language]["hello" if task == "greet" else "abilities"]
        if self.random.random() < 0.3 and self.recordings["hello", language]:
            recording = self._recording("hello" if task == "greet" else "abilities", language)
            return Turn(task, language, (recording.clip,), text)
        return Turn(task, language, (self._phrase(task, language)[0],), text)

    def _text_to_picture(self, task: str, language: str) -> Turn:
        concept = self._concept()
        phrase, style = self._phrase(task, language, concept)
        picture = SeenPicture(concept.index, style)
        return Turn(task, language, (phrase,), answer_text(concept, language), picture, concept=concept.index)

    _interleaved = _text_to_picture

    def _picture_to_name(self, task: str, language: str) -> Turn:
        concept = self._concept()
        seen = SeenPicture(concept.index, self.random.randrange(len(STYLES)))
        parts: tuple[UserPart, ...] = self._shuffled(seen, self._phrase(task, language)[0])
        if language == "en" and self.random.random() < 0.1:
            parts = (seen,)
        return Turn(task, language, parts, answer_text(concept, language), concept=concept.index)

    def _picture_and_speech(self, task: str, language: str) -> Turn:
        turn = self._picture_to_name("picture_to_name", language)
        seen = next(part for part in turn.user if isinstance(part, SeenPicture))
        asked = self._recording("what_is_this", language).clip
        return replace(turn, task=task, user=self._shuffled(seen, asked))

    def _picture_to_picture(self, task: str, language: str) -> Turn:
        turn = self._picture_to_name("picture_to_name", language)
        seen = next(part for part in turn.user if isinstance(part, SeenPicture))
        phrase, style = self._phrase(task, language)
        return replace(turn, task=task, user=self._shuffled(seen, phrase), picture=SeenPicture(seen.concept, style))

    def _text_to_speech(self, task: str, language: str) -> Turn:
        concept = self._concept()
        text = answer_text(concept, language)
        asked = self.random.choice((concept.name(language), concept.name(language), text))
        if self.random.random() < 0.08:
            text = asked = self.random.choice(list(FIXED_ANSWERS[language].values()))
        phrase = fill(self._phrasing(task, language), language, text=asked)
        if asked != phrase:
            phrase = self._vary(phrase, language)
        return Turn(task, language, (phrase,), text, concept=concept.index if concept.name(language) in asked else None)

    def _translate(self, task: str, language: str) -> Turn:
        concept, other = self._concept(), "en" if language == "ko" else "ko"
        return Turn(
            task,
            language,
            (self._phrase(task, language, concept)[0],),
            answer_text(concept, other),
            concept=concept.index,
        )

    def _translate_back(self, task: str, language: str) -> Turn:
        concept = self._concept()
        return Turn(
            task,
            language,
            (self._phrase(task, language, concept)[0],),
            answer_text(concept, language),
            concept=concept.index,
        )

    def _category(self, task: str, language: str) -> Turn:
        concept = self._concept()
        category = concept.category_english if self.random.random() < 0.5 else self.random.choice(list(CATEGORIES))
        phrase, _ = self._phrase(task, language, concept, category=category)
        return Turn(task, language, (phrase,), yes_or_no(concept, category, language))

    def _name_one(self, task: str, language: str) -> Turn:
        concept = self._concept()
        phrase, _ = self._phrase(task, language, category=concept.category_english)
        return Turn(task, language, (phrase,), answer_text(concept, language), concept=concept.index)

    def _refuse(self, task: str, language: str) -> Turn:
        text = FIXED_ANSWERS[language]["refusal"]
        if self.random.random() < 0.1 and self.recordings["refusal", language]:
            return Turn(task, language, (self._recording("refusal", language).clip,), text)
        other, category = self.random.choice(self.others[language]), self.random.choice(list(CATEGORIES))
        if language == "en" and self.random.random() < 0.6:
            other = with_article(other)
        phrase, _ = self._phrase(task, language, self._concept(), other=other, category=category)
        return Turn(task, language, (phrase,), text)

    def _speech_to_text(self, task: str, language: str) -> Turn:
        sentences = ("draw", "draw_style", "say", "translate", "is_category", "what_is_this", "name_one", "refusal")
        templates = (*["name"] * 3, *sentences, *["draw_style"] * 2, *["dictation"] * 4)  # a name in a sentence is found last
        usable = [template for template in templates if self.recordings[template, language]]
        recording = self._recording(self.random.choice(usable), language)
        asked = self._phrase(task, self.random.choice(LANGUAGES))[0]
        return Turn(task, language, self._shuffled(recording.clip, asked), recording.text)

    def _speech_to_picture(self, task: str, language: str) -> Turn:
        template = self.random.choice([name for name in ("name", "draw", "draw_style") if self.recordings[name, language]])
        recording = self._recording(template, language)
        concept, heard = self.concepts[recording.concept or 0], recording.clip
        parts, style = (heard,), style_in(recording.text, language)
        user: Sequence[UserPart] = parts
        if template == "name":
            phrase, style = self._phrase(task, language)
            user = self._shuffled(heard, phrase)
        return Turn(
            task,
            language,
            tuple(user),
            answer_text(concept, language),
            SeenPicture(concept.index, style),
            concept=concept.index,
        )

    def _speech_to_speech(self, task: str, language: str) -> Turn:
        # A yes teaches one token, where a name or a sentence teaches many.
        templates = ("name", *["translate"] * 2, *["is_category"] * 5, "say", "name_one", "repeat")
        template = self.random.choice(templates)
        kind = "name" if template == "repeat" else template
        if not self.recordings[kind, language]:
            template = kind = "name"
        recording = self._recording(kind, language)
        user: tuple[UserPart, ...] = (recording.clip,)
        if template == "name":
            user = self._shuffled(*user, self._phrase(task, self.random.choice(LANGUAGES))[0])
        text, concept = spoken_answer(recording, template, self.concepts, self.random)
        return Turn(task, language, user, text, concept=concept)
