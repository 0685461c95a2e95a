"""Speech at another tempo: the right length, the same pitch, and the same sound however it is cut."""

import numpy as np
import pytest

from omni_server.tempo import Tempo
from tests.rest.scripts import SAMPLE_RATE, tone

SPEEDS = (0.25, 0.5, 0.8, 1.5, 2.0, 3.3, 4.0)


def played(speed: float, samples: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    tempo = Tempo(speed, SAMPLE_RATE)
    return [*(tempo.feed(piece) for piece in np.split(samples, cuts)), tempo.finish()]


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("seconds", [0.0, 0.02, 1.0])
def test_length_is_exact(speed: float, seconds: float) -> None:
    """Catches a filter whose last window is lost, or a voice too short for one window that is lost whole."""
    samples = tone(seconds)
    assert len(np.concatenate(played(speed, samples, []))) == round(len(samples) / speed)


@pytest.mark.parametrize("speed", SPEEDS)
def test_pitch_is_kept(speed: float) -> None:
    """Catches a speed that is made by resampling, which turns a voice into a mouse's."""
    made = np.concatenate(played(speed, tone(2.0), []))
    spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made))))
    assert abs(float(np.argmax(spectrum)) * SAMPLE_RATE / len(made) - 440.0) < 3.0
    assert 0.45 < np.abs(made).max() < 0.55


@pytest.mark.parametrize("speed", SPEEDS)
def test_cuts_do_not_change_the_sound(speed: float) -> None:
    """Catches a window that begins anew at each piece."""
    samples, cuts = tone(1.0), [1, 2, 999, 1024, 3000, 7000, 20_000]
    assert np.array_equal(np.concatenate(played(speed, samples, cuts)), np.concatenate(played(speed, samples, [])))


def test_sound_comes_before_the_end() -> None:
    """Catches a filter that holds everything back until the last sample is there."""
    pieces = played(2.0, tone(2.0), list(range(1920, 48_000, 1920)))
    assert sum(map(len, pieces[:-1])) > 0.8 * sum(map(len, pieces))
