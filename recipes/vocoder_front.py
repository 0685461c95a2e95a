"""Speech-out step: lets the vocoder's first stage learn what the units say, many clips at a time.

A whole vocoder hears one clip in the time its first stage hears dozens. A linear head reads a log-mel from that stage, so
the meaning of the units is learnt there cheaply, and the later stages are left with turning it into sound.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from decoders.audio.unit_bigvgan import UnitBigVGAN
from recipes.vocoder_clips import SAMPLE_RATE, SAMPLES_PER_UNIT, SpokenClip

MELS = 80
FLOOR = 1e-3
LONGEST_UNITS = 40  # one long clip would make a whole batch long


class FrontLoss(nn.Module):
    """The L1 distance of the log-mels that the first stage's output holds from those recorded."""

    def __init__(self, network: UnitBigVGAN) -> None:
        super().__init__()
        self.rate = network.config.upsample_rates[0]  # frames per unit
        self.head = nn.Conv1d(network.config.upsample_initial_channel // 2, MELS, 1)
        hop = SAMPLES_PER_UNIT // self.rate
        self.mel = torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, 1024, hop_length=hop, n_mels=MELS, power=1.0)

    def targets(self, clips: Sequence[SpokenClip]) -> list[Tensor]:
        """[units * rate, mels] of each clip."""
        return [(self.mel(clip.waveform)[:, :-1] + FLOOR).log().T for clip in clips]

    def forward(self, network: UnitBigVGAN, clips: Sequence[SpokenClip], targets: Sequence[Tensor]) -> Tensor:
        units = pad_sequence([clip.units for clip in clips], batch_first=True)  # [batch, longest]
        voice = network.spk_emb(torch.tensor([clip.speaker for clip in clips]))  # [batch, voice width]
        x = network.unit_emb(units).transpose(1, 2) * network.config.unit_emb_dim**-0.5
        x = network.conv_pre(torch.cat([x, voice[:, :, None].expand(-1, -1, x.shape[-1])], dim=1))
        upsampling, blocks = network.layers(0)
        x = upsampling(x)
        read = self.head(torch.stack([block(x) for block in blocks]).mean(dim=0)).transpose(1, 2)
        wanted = pad_sequence(list(targets), batch_first=True)  # [batch, longest * rate, mels]
        counted = pad_sequence([torch.ones(len(target), 1) for target in targets], batch_first=True)
        return ((read - wanted).abs() * counted).sum() / (counted.sum() * MELS)


class FrontBatches:
    """Draws clips with their targets."""

    def __init__(self, loss: FrontLoss, clips: Sequence[SpokenClip]) -> None:
        self.clips = [clip for clip in clips if len(clip.units) <= LONGEST_UNITS]
        self.targets = loss.targets(self.clips)

    def draw(self, count: int, chance: random.Random) -> tuple[list[SpokenClip], list[Tensor]]:
        chosen = chance.sample(range(len(self.clips)), count)
        return [self.clips[index] for index in chosen], [self.targets[index] for index in chosen]
