"""The dialogues: what is held out stays out, and every answer can be said by the output voices."""

import random

import pytest

from recipes.dialogues import WEIGHTS, Dialogues
from recipes.domain import LANGUAGES, load_concepts
from recipes.phrasings import (
    PHRASINGS,
    answer_text,
    category_in,
    fill,
    held_out_phrasings,
    other_names,
    style_in,
    training_phrasings,
)
from recipes.turns import HeardClip, Recorded, SeenPicture, spoken_answer
from recipes.utterances import FIXED_ANSWERS

TURNS = 2000


def _dialogues(recordings: tuple[Recorded, ...] = ()) -> Dialogues:
    return Dialogues(recordings, random.Random(3))


@pytest.mark.parametrize("task", PHRASINGS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_phrasings_are_never_trained_on(task: str, language: str) -> None:
    """Catches a phrasing copied into both lists, which would make the evaluation a memory test."""
    plain = {phrasing.lower().rstrip("?.!") for phrasing in training_phrasings(task, language)}
    held_out = {phrasing.lower().rstrip("?.!") for phrasing in held_out_phrasings(task, language)}
    assert held_out
    assert not plain & held_out


def test_every_answer_has_a_spoken_form() -> None:
    """Catches an answer that the output voices have never been recorded saying."""
    sayable = {answer_text(concept, language) for concept in load_concepts() for language in LANGUAGES}
    sayable |= {text for language in LANGUAGES for text in FIXED_ANSWERS[language].values()}
    dialogues = _dialogues()
    for _ in range(TURNS):
        turn = dialogues.turn()
        assert turn.text in sayable, turn


def test_a_seed_gives_the_same_dialogues() -> None:
    """Catches randomness from elsewhere: a resumed training must be repeatable."""
    first, second = _dialogues(), _dialogues()
    assert [first.conversation() for _ in range(50)] == [second.conversation() for _ in range(50)]


def test_every_task_makes_turns_once_there_are_recordings() -> None:
    """Catches a task that is weighted but cannot be built."""
    templates = [
        "name",
        "draw",
        "draw_style",
        "say",
        "translate",
        "is_category",
        "what_is_this",
        "name_one",
        "hello",
        "abilities",
        "refusal",
    ]
    texts = {"name_one": "name an animal", "is_category": "is a fox an animal"}
    korean = {"name_one": "동물 하나 말해줘", "is_category": "여우는 동물이야"}
    recordings = tuple(
        Recorded(
            f"{template}-{language}",
            (texts if language == "en" else korean).get(template, "fox"),
            language,
            3,
            template,
        )
        for template in templates
        for language in LANGUAGES
    )
    dialogues = _dialogues(recordings)
    for task in WEIGHTS:
        for language in LANGUAGES:
            turns = [dialogues.turn_of(task, language) for _ in range(20)]
            assert {turn.task for turn in turns} == {task}
            if task.startswith("speech_to"):
                assert all(any(isinstance(part, HeardClip) for part in turn.user) for turn in turns)
            if task.startswith("picture_"):
                assert all(any(isinstance(part, SeenPicture) for part in turn.user) for turn in turns)


def test_a_spoken_request_is_answered_by_its_template() -> None:
    """Catches an answer in the wrong language, or a wrong yes."""
    concepts, chooser = load_concepts(), random.Random(1)
    fox = next(concept for concept in concepts if concept.english == "fox")

    def answer(text: str, language: str, template: str) -> str:
        return spoken_answer(Recorded("", text, language, fox.index, template), template, concepts, chooser)[0]

    assert answer("what is fox in Korean", "en", "translate") == "여우입니다"
    assert answer("여우는 영어로 뭐야", "ko", "translate") == "a fox"
    assert answer("is a fox an animal", "en", "is_category") == "yes, it is"
    assert answer("여우는 식물이야", "ko", "is_category") == "아니요, 아닙니다"
    assert answer("say fox", "en", "say") == "a fox"


def test_slots_and_particles() -> None:
    """Catches a wrong Korean particle, a doubled article, or a category left in English."""
    fox, horse = (next(concept for concept in load_concepts() if concept.english == name) for name in ("fox", "horse"))
    assert fill("{name}을(를) 그려줘", "ko", fox) == "여우를 그려줘"
    assert fill("{name}을(를) 그려줘", "ko", horse) == "말을 그려줘"
    assert fill("is {a_name} {a_category}?", "en", fox, category="animal") == "is a fox an animal?"
    assert fill("{name}은(는) {category}이야?", "ko", fox, category="animal") == "여우는 동물이야?"
    assert style_in("draw a fox in the flat style", "en") == 1
    assert style_in("draw a fox", "en") == 0
    assert category_in("is a carrot a thing", "en") == "thing"


def test_things_outside_the_domain_are_split() -> None:
    """Catches refusals measured on names that were trained on."""
    assert not set(other_names(True)["en"]) & set(other_names(False)["en"])
    assert "fox" not in other_names(False)["en"]
