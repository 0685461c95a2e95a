"""Speech-in step: other speakers, rooms and microphones out of few recordings. Knows nothing about texts or networks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE = 16_000
QUIET_LOG_MEL = -1.0  # what digital silence becomes after (log10 + 4) / 4


@dataclass(frozen=True, slots=True)
class Strength:
    """How far each change may go; `chance` is of touching a recording at all."""

    chance: float = 0.85
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
    if random.random() < strength.room:
        decay = random.uniform(0.03, 0.3)
        length = int(decay * SAMPLE_RATE)
        echo = random.normal(0, 1, length) * np.exp(-np.arange(length) / (length / 5))
        echo *= random.uniform(0.1, 0.6) / np.sqrt((echo**2).sum())
        echo[0] = 1.0
        size = 1 << (samples + length).bit_length()
        waveform = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(echo, size), size)[:samples]
    if random.random() < strength.band:
        size = 1 << samples.bit_length()
        frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
        low, high = random.uniform(20, 350), random.uniform(3000, 8000)
        tilt = (np.maximum(frequencies, 50) / 1000) ** random.uniform(-0.5, 0.5)
        spectrum = np.fft.rfft(waveform, size) * tilt
        spectrum[frequencies < low] *= 0.05
        spectrum[frequencies > high] *= 0.003
        waveform = np.fft.irfft(spectrum, size)[:samples]
    loudness = np.sqrt((waveform**2).mean()) + 1e-6
    gain = 10 ** random.uniform(-1.6, -0.6) / loudness
    waveform = waveform * gain
    if random.random() < strength.noise:
        noise = random.normal(0, 1, samples)
        if random.random() < 0.5:  # brownish: most rooms hum more than they hiss
            noise = np.convolve(noise, np.exp(-np.arange(64) / random.uniform(2, 30)), mode="same")
        noise /= np.sqrt((noise**2).mean()) + 1e-9
        waveform = waveform + noise * loudness * gain * 10 ** (-random.uniform(8, 40) / 20)
    return np.clip(waveform, -1, 1).astype(np.float32)


def surround(waveform: np.ndarray, random: np.random.Generator, longest: float = 0.4) -> tuple[np.ndarray, int]:
    """Random silence before and after; also returns how many samples stand before."""
    before, after = (int(random.uniform(0, longest) * SAMPLE_RATE) for _ in range(2))
    return np.pad(waveform, (before, after)), before


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
