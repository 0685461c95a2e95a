"""A recording's periods keep step with the units."""

import numpy as np
import pytest

from recipes.vocoder_clips import SAMPLE_RATE, SAMPLES_PER_UNIT
from recipes.vocoder_phase import in_step

pytest.importorskip("librosa")


def voice(hertz: np.ndarray) -> np.ndarray:
    """Four harmonics of a pitch, [samples]."""
    turns = np.cumsum(hertz) / SAMPLE_RATE
    return (0.1 * sum(np.cos(2 * np.pi * number * turns) / number for number in range(1, 5))).astype(np.float32)


def fundamental_phases(waveform: np.ndarray, hertz: float) -> np.ndarray:
    """Turns of the fundamental in the middle of each unit, from a window of two periods."""
    half = int(SAMPLE_RATE / hertz)
    wave = np.exp(-2j * np.pi * hertz * np.arange(-half, half) / SAMPLE_RATE) * np.hanning(2 * half)
    middles = range(SAMPLES_PER_UNIT // 2 + SAMPLES_PER_UNIT, len(waveform) - SAMPLES_PER_UNIT, SAMPLES_PER_UNIT)
    return np.array([np.angle((waveform[middle - half : middle + half] * wave).sum()) for middle in middles]) / (2 * np.pi)


def test_every_unit_begins_a_period_whatever_the_pitch() -> None:
    """Catches moves that are computed the wrong way round, and periods counted from the unit's edge."""
    recorded = voice(np.linspace(190, 235, SAMPLE_RATE))
    before, after = (
        fundamental_phases(waveform, 212) for waveform in (recorded, in_step(recorded, SAMPLE_RATE, SAMPLES_PER_UNIT))
    )
    assert np.abs(before).max() > 0.3
    assert np.abs(after).max() < 0.12


def test_what_has_no_voice_and_how_long_it_is_stay() -> None:
    """Catches a tracker that fails on silence, and a result that is cut."""
    hiss = 0.01 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2).astype(np.float32)
    silence = np.zeros(10 * SAMPLES_PER_UNIT, np.float32)
    assert np.array_equal(in_step(silence, SAMPLE_RATE, SAMPLES_PER_UNIT), silence)
    spoken = np.concatenate([hiss, voice(np.full(SAMPLE_RATE // 2, 180.0))])
    assert in_step(spoken, SAMPLE_RATE, SAMPLES_PER_UNIT).shape == spoken.shape
