"""The picture step's pure parts."""

import numpy as np

from recipes.domain import LANGUAGES, STYLE_NAMES, STYLES, load_concepts, load_wide_concepts
from recipes.pictures import codepoints, on_white


def test_codepoints_leave_out_the_variation_selector() -> None:
    """Catches `✈️` not being found in packs that know it as 2708."""
    assert codepoints("✈\ufe0f") == codepoints("✈") == "2708"
    assert codepoints("🐕‍🦺") == "1f415-200d-1f9ba"


def test_on_white() -> None:
    """Catches transparent pixels that keep their hidden colour."""
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], np.uint8)
    assert on_white(pixels)[0].tolist() == [[255, 255, 255], [10, 20, 30], [204, 204, 204]]


def test_the_domain_is_complete() -> None:
    """Catches a concept without a name, or a style without one."""
    concepts = load_concepts()
    assert len(concepts) == 104
    assert all(concept.name(language) and concept.category(language) for concept in concepts for language in LANGUAGES)
    assert len({concept.english for concept in concepts}) == len({concept.korean for concept in concepts}) == 104
    assert {concept.emoji for concept in concepts} <= {row["emoji"] for row in load_wide_concepts()}
    assert set(STYLES) == set(STYLE_NAMES)
