"""Speech-out step: bends the pitch of a recording until its periods keep step with the units. Knows nothing of networks.

Units do not say where in its period a voice is, so what is right about a waveform cannot be told sample by sample, and a
vocoder that nobody tells makes harmonics that break off at every unit. Where a recording makes a whole number of periods from
one unit to the next, every unit's middle finds it at the same place of its period, and the unit says all: that costs a pitch
which is now and then some Hertz beside the recorded one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LOWEST, HIGHEST = 65.0, 420.0  # Hertz, of the voices
FRAME, HOP = 1024, 240  # samples, of the pitch tracker
DEEP = 150.0  # Hertz, below which a voice is bent so far that its formants must not follow
HARMONICS = 1_200.0  # Hertz, below which even then everything follows
SMOOTHING = 0.03  # seconds, of the fundamental's phase
FURTHEST = 0.008  # seconds that a moment of the recording may be moved
STRAYING = 0.04  # what a move of FURTHEST costs, as the square of a bend


def in_step(waveform: np.ndarray, sample_rate: int, samples_per_unit: int) -> np.ndarray:
    """float32 [samples] -> the same, with a period's beginning in the middle of every voiced unit."""
    moments = period_beginnings(waveform, sample_rate)
    middles = np.arange(samples_per_unit // 2, len(waveform), samples_per_unit) / sample_rate
    choices = [moments[np.abs(moments - middle) <= FURTHEST] - middle for middle in middles]
    places = [number for number, moves in enumerate(choices) if len(moves)]
    if not places:
        return waveform
    moves = cheapest([choices[number] for number in places], middles[places])
    bent = moved(waveform, middles[places], moves, sample_rate)
    if np.median(np.diff(moments)) < 1 / DEEP:
        return bent
    low: np.ndarray = waveform + below(bent - waveform, sample_rate)
    return low


def below(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """What is under HARMONICS of it, in phase."""
    from scipy.signal import butter, sosfiltfilt

    filtered: np.ndarray = sosfiltfilt(butter(4, HARMONICS, fs=sample_rate, output="sos"), waveform)
    return filtered.astype(np.float32)


def period_beginnings(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Seconds at which the fundamental begins anew, where there is a voice."""
    import librosa
    from scipy.ndimage import gaussian_filter1d

    pitch, _, _ = librosa.pyin(waveform, fmin=LOWEST, fmax=HIGHEST, sr=sample_rate, frame_length=FRAME, hop_length=HOP)
    frames, voiced = np.arange(len(pitch)) * HOP / sample_rate, ~np.isnan(pitch)
    if not voiced.any():
        return np.zeros(0)
    times = np.arange(len(waveform)) / sample_rate
    hertz = np.interp(times, frames[voiced], gaussian_filter1d(pitch[voiced], 1.0))
    turns = np.cumsum(hertz) / sample_rate
    around = waveform * np.exp(-2j * np.pi * turns)
    width = SMOOTHING * sample_rate / 4
    around = gaussian_filter1d(around.real, width) + 1j * gaussian_filter1d(around.imag, width)
    turns = turns + np.unwrap(np.angle(around)) / (2 * np.pi)
    begins = np.flatnonzero(np.diff(np.floor(turns)) > 0)
    share = (np.ceil(turns[begins]) - turns[begins]) / np.maximum(turns[begins + 1] - turns[begins], 1e-9)
    near = voiced[np.minimum((begins / HOP).round().astype(int), len(voiced) - 1)]
    moments: np.ndarray = ((begins + share) / sample_rate)[near]
    return moments


def cheapest(choices: Sequence[np.ndarray], middles: np.ndarray) -> np.ndarray:
    """One move of each unit's choices, so that neighbours move alike and none far: seconds."""
    straying = [STRAYING * (moves / FURTHEST) ** 2 for moves in choices]
    costs, came = straying[0], []
    for number in range(1, len(choices)):
        bends = (choices[number][None] - choices[number - 1][:, None]) / (middles[number] - middles[number - 1])
        ways = costs[:, None] + bends**2
        came.append(ways.argmin(axis=0))
        costs = ways.min(axis=0) + straying[number]
    place = int(costs.argmin())
    path = [place]
    for back in reversed(came):
        place = int(back[place])
        path.append(place)
    return np.array([moves[place] for moves, place in zip(choices, path[::-1], strict=True)])


def moved(waveform: np.ndarray, middles: np.ndarray, moves: np.ndarray, sample_rate: int) -> np.ndarray:
    """The waveform, what was to be heard at `middle + move` heard at `middle`."""
    from scipy.interpolate import PchipInterpolator
    from scipy.ndimage import map_coordinates

    times = np.arange(len(waveform)) / sample_rate
    inside = np.clip(times, middles[0], middles[-1])
    later = PchipInterpolator(middles, moves)(inside) if len(middles) > 1 else np.full_like(times, moves[0])
    heard: np.ndarray = map_coordinates(waveform, [(times + later) * sample_rate], order=3, mode="constant")
    return heard.astype(np.float32)
