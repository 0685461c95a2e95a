"""Speech-in step: other speakers, rooms and microphones out of few recordings. Knows no texts and no networks."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft
from scipy.signal import lfilter
from torch import Tensor

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Strength:
    """How far each change may go; `chance` is of another speaker, `dirt` of another room or wire."""

    chance: float = 0.85
    dirt: float = 0.5
    speed: float = 0.2
    tempo: float = 0.2
    vocal_tract: float = 0.15
    noise: float = 0.6  # chance of each of the following
    room: float = 0.35
    band: float = 0.35
    masks: int = 2


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Plays [samples] faster or slower, pitch and formants going along."""
    positions = np.arange(0, len(waveform) - 1, factor)
    return np.interp(positions, np.arange(len(waveform)), waveform).astype(np.float32)


def distort(waveform: np.ndarray, strength: Strength, random: np.random.Generator) -> np.ndarray:
    """Room, band limit, gain and noise: what lies between a mouth and a file. [samples] -> [samples]."""
    samples = len(waveform)
    size = fft.next_fast_len(samples + 4800, real=True)
    response = np.ones(size // 2 + 1, np.float32)
    if random.random() < strength.band:
        frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)
        response *= (np.maximum(frequencies, 50) / 1000) ** random.uniform(-0.5, 0.5)
        response[frequencies < random.uniform(20, 350)] *= 0.05
        response[frequencies > random.uniform(3000, 8000)] *= 0.003
    if random.random() < strength.room:
        length = int(random.uniform(0.03, 0.3) * SAMPLE_RATE)
        echo = random.standard_normal(length, np.float32) * np.exp(-np.arange(length, dtype=np.float32) / (length / 5))
        echo *= random.uniform(0.1, 0.6) / np.sqrt((echo**2).sum())
        echo[0] = 1.0
        response = response * fft.rfft(echo, size)
    waveform = fft.irfft(fft.rfft(waveform, size) * response, size)[:samples]
    loudness = 10 ** random.uniform(-1.6, -0.6)
    waveform = waveform * (loudness / (np.sqrt((waveform**2).mean()) + 1e-6))
    if random.random() < strength.noise:
        noise = random.standard_normal(samples, np.float32)
        if random.random() < 0.5:  # most rooms hum more than they hiss
            noise = lfilter([1.0], [1.0, -random.uniform(0.7, 0.97)], noise)
        noise *= loudness * 10 ** (-random.uniform(8, 40) / 20) / (np.sqrt((noise**2).mean()) + 1e-9)
        waveform = waveform + noise
    return np.clip(waveform, -1, 1).astype(np.float32)


def surround(waveform: np.ndarray, random: np.random.Generator, longest: float = 0.3) -> np.ndarray:
    """Random silence before and after."""
    before, after = (int(random.uniform(0, longest) * SAMPLE_RATE) for _ in range(2))
    return np.pad(waveform, (before, after))


def resample_axis(log_mel: Tensor, positions: Tensor, axis: int) -> Tensor:
    """Linear interpolation of [mels, frames] at fractional positions along an axis."""
    last = log_mel.shape[axis] - 1
    positions = positions.clamp(0, last)
    below = positions.floor().long().clamp(max=max(0, last - 1))
    share = (positions - below).unsqueeze(1 - axis)
    upper = (below + 1).clamp(max=last)
    return log_mel.index_select(axis, below) * (1 - share) + log_mel.index_select(axis, upper) * share


def change_tempo(log_mel: Tensor, factor: float) -> Tensor:
    """[mels, frames] -> [mels, frames / factor], the voice as it was."""
    return resample_axis(log_mel, torch.arange(0, log_mel.shape[1] - 1, factor), axis=1)


def change_vocal_tract(log_mel: Tensor, factor: float) -> Tensor:
    """Stretches the mel axis, so that formants move and the tempo does not."""
    return resample_axis(log_mel, torch.arange(log_mel.shape[0]) * factor, axis=0)


def distort_mel(log_mel: np.ndarray, strength: Strength, random: np.random.Generator) -> np.ndarray:
    """What `distort` does, guessed on [mels, frames] of the scaled log-mel: a tenth of its cost."""
    mels, frames = log_mel.shape
    power = 10 ** (4 * log_mel - 4)
    if random.random() < strength.band:
        response = np.linspace(0, random.uniform(-1, 1), mels, dtype=np.float32)
        response[int(random.uniform(0.62, 1.0) * mels) :] -= 4
        response[: int(random.uniform(0, 0.1) * mels)] -= 2
        power *= (10**response)[:, None]
    if random.random() < strength.room:
        decay = random.uniform(0.5, 0.85)
        power += random.uniform(0.02, 0.3) * lfilter([1 - decay], [1, -decay], power, axis=1)
    if random.random() < strength.noise:
        color = np.linspace(random.uniform(-1, 1), random.uniform(-1, 1), mels, dtype=np.float32)[:, None]
        grain = 0.25 * random.standard_normal((mels, frames), np.float32)
        power += power.mean() * 10 ** (color + grain - random.uniform(0.8, 4))
    loud = np.log10(power * 10 ** random.uniform(-1, 1))
    return ((np.maximum(loud, loud.max() - 8) + 4) / 4).astype(np.float32)


def mask_bands(log_mel: Tensor, strength: Strength, random: np.random.Generator) -> Tensor:
    """SpecAugment: blanks some bands of mels and some stretches of time with the mean."""
    log_mel = log_mel.clone()
    mels, frames = log_mel.shape
    blank = log_mel.mean()
    for _ in range(strength.masks):
        width = int(random.integers(0, mels // 6))
        start = int(random.integers(0, mels - width))
        log_mel[start : start + width] = blank
        length = int(random.integers(0, max(2, min(12, frames // 10))))
        begin = int(random.integers(0, max(1, frames - length)))
        log_mel[:, begin : begin + length] = blank
    return log_mel
