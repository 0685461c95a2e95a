"""Speech-in step: seeded, augmented batches of log-mels with their texts; step n is the same batch however often a run is resumed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omni_server.encoders.log_mel import LogMel
from recipes.audio_augmentation import (
    QUIET_LOG_MEL,
    Strength,
    change_speed,
    change_tempo,
    change_vocal_tract,
    distort,
    mask_bands,
    surround,
)
from recipes.audio_clips import LONGEST_SECONDS, SAMPLE_RATE, Clip, ClipStore, symbols


@dataclass(frozen=True, slots=True)
class AudioBatch:
    log_mel: Tensor  # [batch, mels, frames], what the network hears
    clean: Tensor  # [batch, mels, frames], the same moments undistorted
    frames: Tensor  # [batch]
    targets: Tensor  # [symbols of all clips]
    target_lengths: Tensor  # [batch]


class AudioBatches:
    """Draws clips by weight and dresses them up."""

    def __init__(self, store: ClipStore, mel_bins: int, seconds: float, seed: int, output_share: float) -> None:
        """`seconds` of audio make a batch, `output_share` of the clips are the server's own voices."""
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
        self._others, self._weights = others, weights / weights.sum()

    def draw(self, step: int, strength: Strength, dropped_bands: bool = True) -> AudioBatch:
        random = np.random.default_rng([self._seed, step])
        # One length per batch, roughly: candidates are sorted and a stretch of them is taken.
        candidates = sorted((self._choose(random) for _ in range(160)), key=self._store.seconds)
        clips: list[Clip] = []
        start = int(random.integers(0, len(candidates)))
        for clip in candidates[start:] + candidates[:start][::-1]:
            longest = max([self._store.seconds(clip), *map(self._store.seconds, clips)])
            if clips and (len(clips) + 1) * (longest + 0.4) > self._seconds:
                break
            clips.append(clip)
        pairs = [self._dress(clip, strength, random, dropped_bands) for clip in clips]
        return self._collate(clips, pairs)

    def plain(self, clips: list[Clip]) -> AudioBatch:
        """Clips as they are."""
        pairs = []
        for clip in clips:
            log_mel = self._log_mel(torch.from_numpy(self._store.waveform(clip)))
            pairs.append((log_mel, log_mel))
        return self._collate(clips, pairs)

    def _choose(self, random: np.random.Generator) -> Clip:
        if self._own and random.random() < self._output_share:
            return self._own[int(random.integers(len(self._own)))]
        return self._others[int(np.searchsorted(np.cumsum(self._weights), random.random() * 0.999999))]

    def _dress(self, clip: Clip, strength: Strength, random: np.random.Generator, drop: bool) -> tuple[Tensor, Tensor]:
        """-> what is heard and the clean original, each [mels, frames]."""
        waveform = self._store.waveform(clip)
        touched = random.random() < strength.chance
        if touched:
            waveform = change_speed(waveform, float(np.exp(random.uniform(-strength.speed, strength.speed))))
        waveform, _ = surround(waveform, random)
        waveform = waveform[: int(LONGEST_SECONDS * SAMPLE_RATE)]
        heard = distort(waveform, strength, random) if touched else waveform
        clean_mel, log_mel = (self._log_mel(torch.from_numpy(samples)) for samples in (waveform, heard))
        if touched:
            tempo = float(np.exp(random.uniform(-strength.tempo, strength.tempo)))
            tract = float(np.exp(random.uniform(-strength.vocal_tract, strength.vocal_tract)))
            clean_mel, log_mel = (change_vocal_tract(change_tempo(mel, tempo), tract) for mel in (clean_mel, log_mel))
            if drop:
                log_mel = mask_bands(log_mel, strength, random)
        return log_mel, clean_mel

    def _collate(self, clips: list[Clip], pairs: list[tuple[Tensor, Tensor]]) -> AudioBatch:
        frames = torch.tensor([heard.shape[1] for heard, _ in pairs])
        log_mel, clean = (torch.full((len(clips), self._mel_bins, int(frames.max())), QUIET_LOG_MEL) for _ in range(2))
        for row, (heard, original) in enumerate(pairs):
            log_mel[row, :, : heard.shape[1]] = heard
            clean[row, :, : original.shape[1]] = original
        texts = [symbols(clip.text) for clip in clips]
        targets = torch.tensor([number for text in texts for number in text])
        return AudioBatch(log_mel, clean, frames, targets, torch.tensor([len(text) for text in texts]))
