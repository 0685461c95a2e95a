"""Hangul to phonemes: the sound changes names need."""

import pytest

from recipes.korean_g2p import ends_closed, split_syllable, to_phonemes


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("사과", "sˈaɡwa"),  # a stop between vowels is voiced
        ("국물", "kˈuŋmul"),  # nasalisation
        ("독립", "tˈoŋnip"),  # and of the liquid after it
        ("신라", "ɕˈilla"),  # liquid beats nasal
        ("같이", "kˈaʨʰi"),  # palatalisation
        ("입학", "ˈipʰak"),  # aspiration
        ("닭", "tˈak"),  # a cluster at the end
        ("닭이", "tˈalɡi"),  # and carried over
        ("좋아", "ʨˈoa"),  # silent hieut
        ("여우입니다.", "ˈjʌuimnida."),  # punctuation is kept for the pause
    ],
)
def test_sound_changes(written: str, spoken: str) -> None:
    """Catches a rule lost or applied in the wrong order."""
    assert to_phonemes(written) == spoken


def test_words_are_joined_by_blanks_and_stressed_once_each() -> None:
    """Catches stress on every syllable, which makes the voices chant."""
    assert to_phonemes("빨간 사과").count("ˈ") == 2
    assert " " in to_phonemes("빨간 사과")


def test_syllables_come_apart() -> None:
    """Catches an offset by one in the Hangul block."""
    assert split_syllable("가") == ("ㄱ", "ㅏ", "")
    assert split_syllable("힣") == ("ㅎ", "ㅣ", "ㅎ")


def test_particles_depend_on_the_last_syllable() -> None:
    """Catches `여우은` and `곰는`."""
    assert not ends_closed("여우")
    assert ends_closed("곰")
