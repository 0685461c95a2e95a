"""Speech-in step: heads that teach and are thrown away (recognition, reconstruction), and recognition's scores."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.audio_batches import AudioBatch
from recipes.audio_clips import ALPHABET, BLANK, Clip, symbols
from recipes.domain import load_concepts


class RecognitionHead(nn.Module):
    """Reads phonemes from vectors; trained with CTC. At 25 vectors a second two guesses are made from each: fast
    speech has more than one in 40 ms."""

    def __init__(self, width: int, hidden: int = 128, guesses: int = 2) -> None:
        super().__init__()
        self.guesses = guesses
        self.inward = nn.Conv1d(width, hidden, 5, padding=2)
        self.outward = nn.Conv1d(hidden, guesses * (len(ALPHABET) + 1), 3, padding=1)

    def forward(self, units: Tensor) -> Tensor:
        """[batch, units, width] -> log-probabilities [batch, guesses * units, symbols]."""
        hidden = functional.gelu(self.inward(units.transpose(1, 2)))
        scores = self.outward(hidden).transpose(1, 2)
        return scores.reshape(len(units), -1, len(ALPHABET) + 1).log_softmax(dim=-1)

    def loss(self, units: Tensor, unit_counts: Tensor, batch: AudioBatch) -> Tensor:
        """CTC per symbol."""
        scores = self(units).transpose(0, 1)  # [guesses * units, batch, symbols]
        lengths = unit_counts * self.guesses
        return functional.ctc_loss(scores, batch.targets, lengths, batch.target_lengths, BLANK, "mean", zero_infinity=True)

    def read(self, units: Tensor, unit_counts: Tensor) -> list[list[int]]:
        """Greedy symbols of each row."""
        best = self(units).argmax(dim=-1)
        readings = []
        for row, count in zip(best, unit_counts.tolist(), strict=True):
            kept = torch.unique_consecutive(row[: count * self.guesses])
            readings.append(kept[kept != BLANK].tolist())
        return readings


class NamingHead(nn.Module):
    """Tells which concept is named and what kind of request it is; needs no alignment, so it learns before CTC does."""

    def __init__(self, width: int, kinds: list[str]) -> None:
        super().__init__()
        self.kinds = {kind: number for number, kind in enumerate(kinds)}
        self.attention = nn.Linear(width, 2)
        self.concept = nn.Linear(width, len(load_concepts()))
        self.kind = nn.Linear(width, len(kinds))

    def forward(self, units: Tensor, unit_counts: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, units, width] -> scores of concepts [batch, concepts] and of kinds [batch, kinds]."""
        absent = torch.arange(units.shape[1]) >= unit_counts[:, None]
        weights = self.attention(units).masked_fill(absent[..., None], float("-inf")).softmax(dim=1)
        named, asked = (weights.transpose(1, 2) @ units).unbind(dim=1)  # [batch, width] each
        return self.concept(named), self.kind(asked)

    def loss(self, units: Tensor, unit_counts: Tensor, clips: tuple[Clip, ...]) -> Tensor:
        """Cross-entropies; a clip about no concept teaches only its kind."""
        concepts, kinds = self(units, unit_counts)
        named = torch.tensor([-100 if clip.concept is None else clip.concept for clip in clips])
        asked = torch.tensor([self.kinds[clip.kind] for clip in clips])
        known = (named >= 0).sum().clamp(min=1)
        by_concept = functional.cross_entropy(concepts, named, reduction="sum") / known
        return by_concept + 0.3 * functional.cross_entropy(kinds, asked)


class MelDecoder(nn.Module):
    """Paints the log-mel from the digits of the codes and a summary of the speaker."""

    def __init__(self, digits: int, mel_bins: int, width: int = 128) -> None:
        super().__init__()
        self.mel_bins = mel_bins
        self.speaker = nn.Sequential(nn.Linear(2 * mel_bins, 64), nn.GELU(), nn.Linear(64, width))
        self.inward = nn.Conv1d(digits, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(2))
        self.outward = nn.Conv1d(width, 4 * mel_bins, 1)

    def forward(self, digits: Tensor, log_mel: Tensor, frames: Tensor) -> Tensor:
        """digits [batch, units, digits], log_mel [batch, mels, frames] for the speaker -> [batch, mels, 4 * units]."""
        present = (torch.arange(log_mel.shape[-1]) < frames[:, None])[:, None]  # [batch, 1, frames]
        mean = (log_mel * present).sum(-1) / frames[:, None]
        spread = (((log_mel - mean[..., None]) * present) ** 2).sum(-1) / frames[:, None]
        x = self.inward(digits.transpose(1, 2)) + self.speaker(torch.cat([mean, spread.sqrt()], dim=1))[..., None]
        for layer in self.layers:
            x = x + layer(functional.gelu(x))
        painted = self.outward(functional.gelu(x))  # [batch, 4 * mels, units]
        batch, _, units = painted.shape
        return painted.view(batch, 4, self.mel_bins, units).permute(0, 2, 3, 1).reshape(batch, self.mel_bins, 4 * units)

    def loss(self, digits: Tensor, batch: AudioBatch) -> Tensor:
        """Mean absolute error of the clean clips in units of the log-mel, and of its change from frame to frame."""
        if not batch.is_clean.any():
            return digits.sum() * 0
        log_mel, frames = batch.log_mel[batch.is_clean], batch.frames[batch.is_clean]
        painted = self(digits[batch.is_clean], log_mel, frames)[..., : log_mel.shape[-1]]
        present = (torch.arange(log_mel.shape[-1]) < frames[:, None])[:, None]
        error = (painted - log_mel) * present
        return (error.abs().sum() + 0.5 * error.diff(dim=-1).abs().sum()) / (present.sum() * self.mel_bins)


def edit_distances(reading: Sequence[int], candidates: Sequence[Sequence[int]]) -> np.ndarray:
    """Levenshtein distance of one reading to each candidate, [candidates], all in one table."""
    longest = max(map(len, candidates))
    table = np.full((len(candidates), longest), -1)
    for row, candidate in enumerate(candidates):
        table[row, : len(candidate)] = candidate
    above = np.tile(np.arange(longest + 1), (len(candidates), 1))
    for symbol in reading:
        below = np.empty_like(above)
        below[:, 0] = above[:, 0] + 1
        free = np.minimum(above[:, 1:] + 1, above[:, :-1] + (table != symbol))
        for column in range(longest):
            below[:, column + 1] = np.minimum(free[:, column], below[:, column] + 1)
        above = below
    return above[np.arange(len(candidates)), [len(candidate) for candidate in candidates]]


def right_names(clips: list[Clip], readings: list[list[int]]) -> list[bool]:
    """Whether the sentence with the right name in it is the nearest of the sentences with each name."""
    concepts = load_concepts()
    right = []
    for clip, reading in zip(clips, readings, strict=True):
        name = concepts[clip.concept or 0].name(clip.language)
        texts = [clip.text.replace(name, other.name(clip.language)) for other in concepts]
        distances = edit_distances(reading, [symbols(text, clip.language) for text in texts])
        right.append(int(distances.argmin()) == clip.concept)
    return right


def error_rate(clips: list[Clip], readings: list[list[int]]) -> float:
    """Wrong symbols over all symbols."""
    wrong = sum(
        int(edit_distances(reading, [symbols(clip.text, clip.language)])[0])
        for clip, reading in zip(clips, readings, strict=True)
    )
    return wrong / max(1, sum(len(symbols(clip.text, clip.language)) for clip in clips))
