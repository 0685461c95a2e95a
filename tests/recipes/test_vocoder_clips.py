"""Training windows are what the decoder will meet."""

import random
from dataclasses import replace

import pytest
import torch

from recipes.vocoder_clips import SAMPLES_PER_UNIT, WRITERS, SpokenClip, as_written, cut_window, random_windows


def clip_of(count: int) -> SpokenClip:
    waveform = torch.arange(count * SAMPLES_PER_UNIT, dtype=torch.float32)
    return SpokenClip(waveform, len(waveform), 0, "a fox", "en", torch.arange(count), torch.eye(count))


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


def test_a_voice_learns_the_units_that_the_backbone_writes() -> None:
    """Catches a voice trained on units it is never given, or on ones that say something else at that moment."""
    pytest.importorskip("librosa")
    writer = replace(clip_of(4), speaker=WRITERS["en"], units=torch.tensor([10, 11, 12, 13]))
    slower = replace(writer, speaker=1 - WRITERS["en"], units=torch.arange(8), sounds=torch.eye(4).repeat_interleave(2, dim=0))
    alone = replace(slower, text="a cow")
    own, other = as_written([writer, slower, alone])
    assert own.units.tolist() == [10, 11, 12, 13]
    assert other.units.tolist() == [10, 10, 11, 11, 12, 12, 13, 13] and other.speaker == slower.speaker
