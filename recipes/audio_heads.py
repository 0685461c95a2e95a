"""Speech-in step: the heads that teach and are thrown away (recognition, reconstruction), and how recognition is scored."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.audio_batches import AudioBatch
from recipes.audio_clips import ALPHABET, BLANK, Clip, symbols
from recipes.domain import load_concepts

SYMBOLS_PER_UNIT = 2  # fast speech has more than one letter in 40 ms


class RecognitionHead(nn.Module):
    """Reads letters and jamo from 25 vectors a second, two guesses from each; trained with CTC."""

    def __init__(self, width: int, hidden: int = 192) -> None:
        super().__init__()
        self.inward = nn.Conv1d(width, hidden, 5, padding=2)
        self.outward = nn.Conv1d(hidden, SYMBOLS_PER_UNIT * (len(ALPHABET) + 1), 3, padding=1)

    def forward(self, units: Tensor) -> Tensor:
        """[batch, units, width] -> log-probabilities [batch, 2 * units, symbols]."""
        hidden = functional.gelu(self.inward(units.transpose(1, 2)))
        scores = self.outward(hidden).transpose(1, 2)
        return scores.reshape(len(units), -1, len(ALPHABET) + 1).log_softmax(dim=-1)

    def loss(self, units: Tensor, unit_counts: Tensor, batch: AudioBatch) -> Tensor:
        """CTC per symbol."""
        scores = self(units).transpose(0, 1)  # [2 * units, batch, symbols]
        lengths = unit_counts * SYMBOLS_PER_UNIT
        return functional.ctc_loss(scores, batch.targets, lengths, batch.target_lengths, BLANK, "mean", zero_infinity=True)

    def read(self, units: Tensor, unit_counts: Tensor) -> list[list[int]]:
        """Greedy symbols of each row."""
        best = self(units).argmax(dim=-1)
        readings = []
        for row, count in zip(best, unit_counts.tolist(), strict=True):
            kept = torch.unique_consecutive(row[: count * SYMBOLS_PER_UNIT])
            readings.append(kept[kept != BLANK].tolist())
        return readings


class MelDecoder(nn.Module):
    """Paints the log-mel from the digits of the codes and a summary of the speaker."""

    def __init__(self, digits: int, mel_bins: int, width: int = 192) -> None:
        super().__init__()
        self.mel_bins = mel_bins
        self.speaker = nn.Sequential(nn.Linear(2 * mel_bins, 64), nn.GELU(), nn.Linear(64, width))
        self.inward = nn.Conv1d(digits, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(3))
        self.outward = nn.Conv1d(width, 4 * mel_bins, 1)

    def forward(self, digits: Tensor, clean: Tensor, frames: Tensor) -> Tensor:
        """digits [batch, units, digits], clean [batch, mels, frames] for the speaker only -> [batch, mels, 4 * units]."""
        present = (torch.arange(clean.shape[-1]) < frames[:, None])[:, None]  # [batch, 1, frames]
        mean = (clean * present).sum(-1) / frames[:, None]
        spread = (((clean - mean[..., None]) * present) ** 2).sum(-1) / frames[:, None]
        x = self.inward(digits.transpose(1, 2)) + self.speaker(torch.cat([mean, spread.sqrt()], dim=1))[..., None]
        for layer in self.layers:
            x = x + layer(functional.gelu(x))
        painted = self.outward(functional.gelu(x))  # [batch, 4 * mels, units]
        batch, _, units = painted.shape
        return painted.view(batch, 4, self.mel_bins, units).permute(0, 2, 3, 1).reshape(batch, self.mel_bins, 4 * units)

    def loss(self, digits: Tensor, batch: AudioBatch) -> Tensor:
        """Mean absolute error in units of the log-mel, and of its change from frame to frame."""
        painted = self(digits, batch.clean, batch.frames)[..., : batch.clean.shape[-1]]
        clean = batch.clean[..., : painted.shape[-1]]
        present = (torch.arange(clean.shape[-1]) < batch.frames[:, None])[:, None]
        plain = ((painted - clean).abs() * present).sum()
        change = (((painted - clean).diff(dim=-1)).abs() * present[..., 1:]).sum()
        return (plain + 0.5 * change) / (present.sum() * self.mel_bins)


def edit_distances(reading: list[int], candidates: list[list[int]]) -> np.ndarray:
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
        distances = edit_distances(reading, [symbols(text) for text in texts])
        right.append(int(distances.argmin()) == clip.concept)
    return right


def error_rate(clips: list[Clip], readings: list[list[int]]) -> float:
    """Wrong symbols over all symbols."""
    wrong = sum(int(edit_distances(reading, [symbols(clip.text)])[0]) for clip, reading in zip(clips, readings, strict=True))
    return wrong / max(1, sum(len(symbols(clip.text)) for clip in clips))
