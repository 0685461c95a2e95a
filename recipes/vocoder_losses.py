"""Speech-out step: how far a made waveform is from a recorded one. Knows nothing of units or voices."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

SAMPLE_RATE = 24_000
RESOLUTIONS = ((256, 24), (512, 48), (1024, 80), (2048, 128))  # FFT length, mel bins
LOW_RATE = 2_400
LOW_LENGTHS = (64, 128, 256)  # FFT lengths at the low rate: 27 to 107 ms
FLOOR = 1e-4


class SpectralLoss(nn.Module):
    """L1 of log-mels at several resolutions, and of log magnitudes at a fine one, which holds harmonics apart."""

    def __init__(self) -> None:
        super().__init__()
        self.mels = nn.ModuleList(
            torchaudio.transforms.MelScale(bins, SAMPLE_RATE, n_stft=length // 2 + 1) for length, bins in RESOLUTIONS
        )

    def forward(self, made: Tensor, recorded: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples] each -> the loss, and its mel part in nepers as a figure to report."""
        mel_loss = magnitude_loss = made.new_zeros(())
        for (length, _), mel in zip(RESOLUTIONS, self.mels, strict=True):
            first, second = magnitude(made, length), magnitude(recorded, length)
            mel_loss = mel_loss + log_distance(mel(first), mel(second)) / len(RESOLUTIONS)
            if length == 1024:
                magnitude_loss = log_distance(first, second)
        return mel_loss + 0.3 * magnitude_loss, mel_loss.detach()


class LowBand(nn.Module):
    """What is below 1.2 kHz of a waveform, the voice's first harmonics, and how much of them is missed, sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torchaudio.transforms.Resample(SAMPLE_RATE, LOW_RATE)

    def forward(self, waveform: Tensor) -> Tensor:  # [..., samples] -> [..., low samples]
        low: Tensor = self.down(waveform)
        return low

    def distance(self, made: Tensor, recorded: Tensor) -> Tensor:
        """[batch, low samples] each. L1 of samples and of their differences, which weigh the higher harmonics more, 1 for
        silence; and of log magnitudes, so that what cannot be foreseen is not left out."""
        samples = (made - recorded).abs().sum() / recorded.abs().sum().clamp(min=1e-6)
        differences = (made - recorded).diff().abs().sum() / recorded.diff().abs().sum().clamp(min=1e-6)
        magnitudes = [log_distance(magnitude(made, length), magnitude(recorded, length)) for length in LOW_LENGTHS]
        return (samples + differences) / 2 + sum(magnitudes) / len(magnitudes)


def magnitude(waveform: Tensor, length: int) -> Tensor:
    """[batch, samples] -> [batch, bins, frames], 1 for a sine of that size."""
    window = torch.hann_window(length)
    spectrum = torch.stft(waveform, length, length // 4, window=window, return_complex=True)
    return (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt() * (2 / window.sum())


def log_distance(made: Tensor, recorded: Tensor) -> Tensor:
    """Mean absolute difference of the logarithms of two spectra of one shape."""
    return ((made + FLOOR).log() - (recorded + FLOOR).log()).abs().mean()
