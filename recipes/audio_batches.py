"""Speech-in step: seeded, augmented batches of log-mels with texts; step n does not depend on where a run was cut."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omni_server.encoders.log_mel import LogMel
from recipes.audio_augmentation import (
    Strength,
    change_speed,
    change_tempo,
    change_vocal_tract,
    distort,
    distort_mel,
    mask_bands,
    surround,
)
from recipes.audio_clips import LONGEST_SECONDS, SAMPLE_RATE, Clip, ClipStore, symbols

LENGTH_STEP = 50  # frames


@dataclass(frozen=True, slots=True)
class AudioBatch:
    log_mel: Tensor  # [batch, mels, frames], what the network hears
    frames: Tensor  # [batch]
    clips: tuple[Clip, ...]
    is_clean: Tensor  # [batch], no room and no noise: worth painting
    targets: Tensor  # [symbols of all clips]
    target_lengths: Tensor  # [batch]


class AudioBatches:
    """Draws clips by weight and dresses them up."""

    def __init__(
        self, store: ClipStore, mel_bins: int, seconds: float, seed: int, output_share: float, quick: bool = False
    ) -> None:
        """`seconds` of audio make a batch, `output_share` of the clips are the server's own voices.

        `quick` works on remembered log-mels; without it waveforms are changed, which moves the pitch too.
        """
        self._dress = self._dress_quickly if quick else self._dress_carefully
        self._mels: dict[str, np.ndarray] = {}
        self._store, self._seconds, self._seed, self._output_share = store, seconds, seed, output_share
        self._log_mel = LogMel(mel_bins)
        self._mel_bins = mel_bins
        self.refresh()

    def refresh(self) -> None:
        """Looks at the store anew; weights level engines and keep neural speakers, who are few, from drowning."""
        clips = [clip for clip in self._store.clips if clip.is_training]
        self._own = [clip for clip in clips if clip.is_output_voice]
        others = [clip for clip in clips if not clip.is_output_voice] or self._own
        counts: dict[tuple[str, str], int] = {}
        for clip in others:
            counts[clip.engine, clip.language] = counts.get((clip.engine, clip.language), 0) + 1
        # A group's share grows with the root of its size: a compromise between its size and an even share.
        weights = np.array([counts[clip.engine, clip.language] ** -0.5 for clip in others])
        self._others, self._weights = others, np.cumsum(weights / weights.sum())

    def draw(self, step: int, strength: Strength, dropped_bands: bool = True) -> AudioBatch:
        random = np.random.default_rng([self._seed, step])
        # One length per batch, roughly: candidates are sorted and a stretch of them is taken.
        candidates = sorted((self._choose(random) for _ in range(80)), key=self._store.seconds)
        clips: list[Clip] = []
        start = int(random.integers(0, len(candidates)))
        for clip in candidates[start:] + candidates[:start][::-1]:
            longest = max([self._store.seconds(clip), *map(self._store.seconds, clips)])
            if clips and (len(clips) + 1) * (longest + 0.2) > self._seconds:
                break
            clips.append(clip)
        dressed = [self._dress(clip, strength, random, dropped_bands) for clip in clips]
        return self._collate(clips, dressed)

    def plain(self, clips: list[Clip]) -> AudioBatch:
        """Clips as they are."""
        return self._collate(clips, [(self._log_mel(torch.from_numpy(self._store.waveform(clip))), True) for clip in clips])

    def _choose(self, random: np.random.Generator) -> Clip:
        if self._own and random.random() < self._output_share:
            return self._own[int(random.integers(len(self._own)))]
        return self._others[int(np.searchsorted(self._weights, random.random() * 0.999999))]

    def _dress_quickly(self, clip: Clip, strength: Strength, random: np.random.Generator, drop: bool) -> tuple[Tensor, bool]:
        """-> log-mel [mels, frames], and whether it is clean."""
        if clip.path not in self._mels:
            self._mels[clip.path] = self._log_mel(torch.from_numpy(self._store.waveform(clip))).half().numpy()
        log_mel = self._mels[clip.path].astype(np.float32)
        dirty = random.random() < strength.dirt
        if dirty:
            log_mel = distort_mel(log_mel, strength, random)
        return self._reshape(torch.from_numpy(log_mel), strength, random, drop), not dirty

    def _dress_carefully(self, clip: Clip, strength: Strength, random: np.random.Generator, drop: bool) -> tuple[Tensor, bool]:
        """-> log-mel [mels, frames], and whether it is clean."""
        waveform = self._store.waveform(clip)
        dirty = random.random() < strength.dirt
        if random.random() < strength.chance:
            waveform = change_speed(waveform, float(np.exp(random.uniform(-strength.speed, strength.speed))))
        waveform = surround(waveform, random)[: int(LONGEST_SECONDS * SAMPLE_RATE)]
        if dirty:
            waveform = distort(waveform, strength, random)
        return self._reshape(self._log_mel(torch.from_numpy(waveform)), strength, random, drop), not dirty

    def _reshape(self, log_mel: Tensor, strength: Strength, random: np.random.Generator, drop: bool) -> Tensor:
        """Another tempo and vocal tract, and bands blanked, for [mels, frames]."""
        if random.random() < strength.chance:
            log_mel = change_tempo(log_mel, float(np.exp(random.uniform(-strength.tempo, strength.tempo))))
            log_mel = change_vocal_tract(log_mel, float(np.exp(random.uniform(-strength.vocal_tract, strength.vocal_tract))))
            log_mel = log_mel[:, : int(LONGEST_SECONDS * 100)]
        if drop and random.random() < strength.chance:
            log_mel = mask_bands(log_mel, strength, random)
        return log_mel

    def _collate(self, clips: list[Clip], dressed: list[tuple[Tensor, bool]]) -> AudioBatch:
        frames = torch.tensor([log_mel.shape[1] for log_mel, _ in dressed])
        # Few different lengths: the library compiles its kernels anew for each shape.
        padded = torch.empty(len(clips), self._mel_bins, -(-int(frames.max()) // LENGTH_STEP) * LENGTH_STEP)
        for row, (log_mel, _) in enumerate(dressed):
            padded[row] = log_mel.min()  # what silence after the sound looks like, under the floor
            padded[row, :, : log_mel.shape[1]] = log_mel
        texts = [symbols(clip.text, clip.language) for clip in clips]
        targets = torch.tensor([number for text in texts for number in text])
        lengths = torch.tensor([len(text) for text in texts])
        return AudioBatch(padded, frames, tuple(clips), torch.tensor([clean for _, clean in dressed]), targets, lengths)
