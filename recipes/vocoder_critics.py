"""Speech-out step: networks that tell recorded from made waveforms, at several resolutions. Knows nothing of units or voices.

A spectral loss alone lets a vocoder buzz: it averages over what it cannot foresee. What the critics notice, it must mend.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.precision import mixed

RESOLUTIONS = ((2048, 512), (1024, 256), (512, 128), (256, 64))  # FFT length, hop
CHANNELS = 24
SLOPE = 0.1


class Critic(nn.Module):
    """Convolutions over one complex spectrogram; strides along frequency only, so that a score has a place in time."""

    def __init__(self, length: int, hop: int) -> None:
        super().__init__()
        self.length, self.hop = length, hop
        self.register_buffer("window", torch.hann_window(length), persistent=False)
        kernel, pad = (3, 9), (1, 4)
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(2, CHANNELS, kernel, padding=pad),
                nn.Conv2d(CHANNELS, CHANNELS, kernel, stride=(1, 4), padding=pad),
                nn.Conv2d(CHANNELS, CHANNELS, kernel, stride=(1, 4), padding=pad),
                nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            ]
        )
        self.outward = nn.Conv2d(CHANNELS, 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """[batch, samples] -> what each layer saw, the scores [batch, 1, frames, bins] last."""
        spectrum = torch.stft(waveform, self.length, self.hop, window=self.window, return_complex=True)
        parts = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [batch, 2, frames, bins]
        # Loud and soft sounds alike: the power 0.3 of the magnitude, the phase kept.
        parts = parts * (parts.square().sum(dim=1, keepdim=True) + 1e-6) ** -0.35
        x, seen = parts, []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), SLOPE)
            seen.append(x)
        return [*seen, self.outward(x)]


class Critics(nn.Module):
    """One critic for each resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleList(Critic(length, hop) for length, hop in RESOLUTIONS)

    def judge(self, recorded: Tensor, made: Tensor) -> Tensor:
        """The critics' own loss: recorded waveforms shall score 1, made ones 0."""
        made, loss = made.detach(), recorded.new_zeros(())
        for critic in self.critics:
            with mixed():
                good, bad = critic(recorded)[-1].float(), critic(made)[-1].float()
            loss = loss + (good - 1).square().mean() + bad.square().mean()
        return loss / len(self.critics)

    def teach(self, recorded: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """The vocoder's losses: its scores fall short of 1, and the critics' layers see other things than in the recording."""
        short, unlike = recorded.new_zeros(()), recorded.new_zeros(())
        for critic in self.critics:
            with torch.no_grad(), mixed():
                known = critic(recorded)
            with mixed():
                seen = critic(made)
            short = short + (seen[-1].float() - 1).square().mean()
            for mine, theirs in zip(seen[:-1], known[:-1], strict=True):
                unlike = unlike + (mine.float() - theirs.float()).abs().mean() / theirs.float().abs().mean().clamp(min=1e-3)
        count = len(self.critics)
        return short / count, unlike / (count * (len(seen) - 1))
