"""The judges' pure parts: spelling, distance, sharpness."""

import numpy as np

from recipes.judges import augment, edit_distance, nearest_spelling, sharpness, spelling


def test_spelling_leaves_carriers_out() -> None:
    """Catches names that look alike because their carrier does."""
    assert spelling("A fox.", "en") == spelling("fox", "en") == "fox"
    assert spelling("ice cream!", "en") == "icecream"
    assert spelling("여우입니다.", "ko") == spelling("여우", "ko")
    assert len(spelling("곰", "ko")) == 3


def test_edit_distance() -> None:
    """Catches a row that is not carried over."""
    assert edit_distance("", "abc") == 3
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("fox", "fox") == 0


def test_nearest_name_by_jamo() -> None:
    """Catches comparing whole syllables, for which every misheard vowel is a different name."""
    assert nearest_spelling("여오입니다", ["곰", "여우", "오리"], "ko") == "여우"
    assert nearest_spelling("a rabid", ["fox", "rabbit", "carrot"], "en") == "rabbit"
    assert nearest_spelling("", ["fox", "rabbit"], "en") in ("fox", "rabbit")


def test_sharpness_falls_when_blurred() -> None:
    """Catches a Laplacian that measures contrast instead of detail."""
    rough = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    smooth = np.repeat(np.repeat(rough[::8, ::8], 8, axis=0), 8, axis=1)
    assert sharpness(smooth) < sharpness(rough)
    assert sharpness(np.full((16, 16, 3), 200, np.uint8)) == 0


def test_augmented_picture_keeps_its_size_on_white() -> None:
    """Catches a border that is black."""
    picture = np.zeros((160, 160, 3), np.uint8)
    smaller = augment(picture, 0.8, 0, 0)
    assert smaller.shape == picture.shape
    assert smaller[0, 0].tolist() == [255, 255, 255]
