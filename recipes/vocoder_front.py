"""Speech-out step: lets the vocoder's first stages learn what the units say, many clips at a time.

A whole vocoder hears one clip in the time its first stages hear dozens. A linear head reads a log-mel from the first stage, and
another the waveform below 1.2 kHz from the second, so the meaning of the units and the course of the voice's first harmonics
are learnt there cheaply, and the later stages are left with turning them into sound.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from decoders.audio.unit_bigvgan import UnitBigVGAN
from recipes.vocoder_clips import SAMPLE_RATE, SAMPLES_PER_UNIT, SpokenClip
from recipes.vocoder_losses import LOW_RATE, LowBand

MELS = 80
FLOOR = 1e-3
LOW_KERNEL = 7


@dataclass(slots=True)
class FrontTarget:
    """What the first stages are to say of one clip."""

    mel: Tensor  # [units * first rate, mels]
    low: Tensor  # [low samples], the waveform below 1.2 kHz


class FrontLoss(nn.Module):
    """The L1 distance of the log-mels that the first stage's output holds from those recorded, and how unlike the recorded
    first harmonics those are that the second stage's holds."""

    def __init__(self, network: UnitBigVGAN) -> None:
        super().__init__()
        channels, rates = network.config.upsample_initial_channel, network.config.upsample_rates
        self.rate = rates[0]  # frames per unit
        self.head = nn.Conv1d(channels // 2, MELS, 1)
        hop = SAMPLES_PER_UNIT // self.rate
        self.mel = torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, 1024, hop_length=hop, n_mels=MELS, power=1.0)
        frames = math.prod(rates[:2]) * SAMPLE_RATE // SAMPLES_PER_UNIT  # a second
        self.low_head = nn.Conv1d(channels // 4, LOW_RATE // frames, LOW_KERNEL, padding=LOW_KERNEL // 2)
        for parameter in self.low_head.parameters():
            nn.init.zeros_(parameter)  # what it says at first shall not disturb the stages
        self.low_band = LowBand()

    def targets(self, clips: Sequence[SpokenClip]) -> list[FrontTarget]:
        waveforms = [clip.waveform for clip in clips]
        mels = [(self.mel(waveform)[:, :-1] + FLOOR).log().T for waveform in waveforms]
        return [FrontTarget(mel, self.low_band(waveform)) for mel, waveform in zip(mels, waveforms, strict=True)]

    def read(self, network: UnitBigVGAN, clips: Sequence[SpokenClip]) -> tuple[Tensor, Tensor]:
        """-> log-mels [batch, longest * rate, mels], waveforms at the low rate [batch, low samples of the longest]."""
        units = pad_sequence([clip.units for clip in clips], batch_first=True)  # [batch, longest]
        voice = network.spk_emb(torch.tensor([clip.speaker for clip in clips]))  # [batch, voice width]
        x = network.unit_emb(units).transpose(1, 2) * network.config.unit_emb_dim**-0.5
        x = network.conv_pre(torch.cat([x, voice[:, :, None].expand(-1, -1, x.shape[-1])], dim=1))
        stages = []
        for stage in range(2):
            upsampling, blocks = network.layers(stage)
            x = upsampling(x)
            x = torch.stack([block(x) for block in blocks]).mean(dim=0)
            stages.append(x)
        first, second = stages
        return self.head(first).transpose(1, 2).float(), self.low_head(second).transpose(1, 2).flatten(1).float()

    def forward(
        self, network: UnitBigVGAN, clips: Sequence[SpokenClip], targets: Sequence[FrontTarget]
    ) -> tuple[Tensor, Tensor]:
        """-> the losses of both readings."""
        mel, low = self.read(network, clips)
        wanted = pad_sequence([target.mel for target in targets], batch_first=True)  # [batch, longest * rate, mels]
        counted = pad_sequence([torch.ones(len(target.mel), 1) for target in targets], batch_first=True)
        mel_loss = ((mel - wanted).abs() * counted).sum() / (counted.sum() * MELS)
        present = counted[..., 0].repeat_interleave(low.shape[1] // counted.shape[1], dim=1)  # [batch, low samples]
        low_wanted = pad_sequence([target.low for target in targets], batch_first=True)
        return mel_loss, self.low_band.distance(low * present, low_wanted)


class FrontBatches:
    """Draws clips with their targets."""

    def __init__(self, loss: FrontLoss, clips: Sequence[SpokenClip]) -> None:
        self.clips, self.targets = clips, loss.targets(clips)

    def draw(self, count: int, chance: random.Random) -> tuple[list[SpokenClip], list[FrontTarget]]:
        chosen = chance.sample(range(len(self.clips)), count)
        return [self.clips[index] for index in chosen], [self.targets[index] for index in chosen]
