"""Speech-out step: how far a made waveform is from a recorded one. Knows nothing of units or voices."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

SAMPLE_RATE = 24_000
RESOLUTIONS = ((256, 24), (512, 48), (1024, 80), (2048, 128))  # FFT length, mel bins
LOW_RATE = 4_000
LOW_LENGTHS = (128, 256, 512)  # FFT lengths at the low rate: 32 to 128 ms
LOW_WEIGHT = 1.0
FLOOR = 1e-4


class SpectralLoss(nn.Module):
    """L1 of log-mels at several resolutions, and of log magnitudes at a fine one, which holds harmonics apart.

    Where the voice's first harmonics are, below 2 kHz, finer magnitudes count once more: a spectrogram of ours is blurred there
    between the harmonics, where a recording's is clear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mels = nn.ModuleList(
            torchaudio.transforms.MelScale(bins, SAMPLE_RATE, n_stft=length // 2 + 1) for length, bins in RESOLUTIONS
        )
        self.low = torchaudio.transforms.Resample(SAMPLE_RATE, LOW_RATE)
        for length in {*(length for length, _ in RESOLUTIONS), *LOW_LENGTHS}:
            self.register_buffer(f"window{length}", torch.hann_window(length), persistent=False)

    def magnitude(self, waveform: Tensor, length: int) -> Tensor:  # [batch, samples] -> [batch, bins, frames]
        window = getattr(self, f"window{length}")
        spectrum = torch.stft(waveform, length, length // 4, window=window, return_complex=True)
        return (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt() * (2 / window.sum())

    def forward(self, made: Tensor, recorded: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples] each -> the loss, and its mel part in nepers as a figure to report."""
        mel_loss = magnitude_loss = made.new_zeros(())
        for (length, _), mel in zip(RESOLUTIONS, self.mels, strict=True):
            first, second = self.magnitude(made, length), self.magnitude(recorded, length)
            mel_loss = mel_loss + log_distance(mel(first), mel(second)) / len(RESOLUTIONS)
            if length == 1024:
                magnitude_loss = log_distance(first, second)
        return mel_loss + 0.3 * magnitude_loss + LOW_WEIGHT * self.low_loss(made, recorded), mel_loss.detach()

    def low_loss(self, made: Tensor, recorded: Tensor) -> Tensor:
        """L1 of the log magnitudes below 2 kHz, of [batch, samples] each."""
        made, recorded = self.low(made), self.low(recorded)
        loss = made.new_zeros(())
        for length in LOW_LENGTHS:
            distance = log_distance(self.magnitude(made, length), self.magnitude(recorded, length))
            loss = loss + distance / len(LOW_LENGTHS)
        return loss


def log_distance(made: Tensor, recorded: Tensor) -> Tensor:
    """Mean absolute difference of the logarithms of two spectra of one shape."""
    return ((made + FLOOR).log() - (recorded + FLOOR).log()).abs().mean()
