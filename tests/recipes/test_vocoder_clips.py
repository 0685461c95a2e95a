"""Training windows are what the decoder will meet."""

import random

import torch

from recipes.vocoder_clips import SAMPLES_PER_UNIT, SpokenClip, cut_window, random_windows


def clip_of(count: int) -> SpokenClip:
    waveform = torch.arange(count * SAMPLES_PER_UNIT, dtype=torch.float32)
    return SpokenClip(waveform, len(waveform), 0, "a fox", "en", torch.arange(count))


def test_a_window_in_the_middle_has_its_context() -> None:
    """Catches a target that does not belong to the units beside it."""
    window = cut_window(clip_of(50), 20, 5, (8, 9))
    assert window.units.tolist() == list(range(12, 34))
    assert window.wanted == (8 * SAMPLES_PER_UNIT, 13 * SAMPLES_PER_UNIT - 1)
    assert window.waveform[0] == 20 * SAMPLES_PER_UNIT and len(window.waveform) == 5 * SAMPLES_PER_UNIT


def test_ends_are_ends() -> None:
    """Catches padding where the server has none."""
    window = cut_window(clip_of(10), 0, 10, (8, 9))
    assert window.units.tolist() == list(range(10)) and window.wanted[0] == 0


def test_short_clips_are_drawn_whole_and_long_ones_in_part() -> None:
    """Catches a draw that reaches over a clip's end."""
    windows = random_windows([clip_of(8), clip_of(70)], 40, 30, (2, 2), random.Random(0))
    lengths = {len(window.waveform) // SAMPLES_PER_UNIT for window in windows}
    assert lengths == {8, 30}
