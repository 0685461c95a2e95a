"""Step 7, network. ECAPA-TDNN speaker encoder of a zero-shot Unit-BigVGAN: a reference mel in, a voice embedding out.

Attribute names are those of the published checkpoints, so a state dict loads as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SCALE = 8  # groups of channels in a Res2 convolution
BOTTLENECK = 128  # of squeeze-and-excitation and of the attention over time


class TimeDelay(nn.Module):
    """Convolution, ReLU, batch norm, in this order."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:  # [batch, inputs, time] -> [batch, outputs, time]
        return self.bn(self.conv(x).relu())


class Res2TimeDelay(nn.Module):
    """Groups of channels, each convolved together with the result of the group before; the last passes through."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        width, groups = channels // SCALE, range(SCALE - 1)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False) for _ in groups)
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in groups)

    def forward(self, x: Tensor) -> Tensor:  # [batch, channels, time] -> the same
        *groups, last = x.chunk(SCALE, dim=1)
        outputs: list[Tensor] = []
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            outputs.append(norm(conv(group + outputs[-1] if outputs else group).relu()))
        return torch.cat([*outputs, last], dim=1)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the means over time."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear1 = nn.Linear(channels, BOTTLENECK)
        self.linear2 = nn.Linear(BOTTLENECK, channels)

    def forward(self, x: Tensor) -> Tensor:  # [batch, channels, time] -> the same
        return x * self.linear2(self.linear1(x.mean(dim=2)).relu()).sigmoid()[:, :, None]


class SpeakerBlock(nn.Module):
    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.Conv1dReluBn1 = TimeDelay(channels, channels, 1)
        self.Res2Conv1dReluBn = Res2TimeDelay(channels, dilation)
        self.Conv1dReluBn2 = TimeDelay(channels, channels, 1)
        self.SE_Connect = SqueezeExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:  # [batch, channels, time] -> the same
        return x + self.SE_Connect(self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(x))))


class AttentivePooling(nn.Module):
    """Mean and deviation over time, weighted by attention, which with `global_context` sees both unweighted too."""

    def __init__(self, channels: int, global_context: bool):
        super().__init__()
        self.global_context = global_context
        self.linear1 = nn.Conv1d(channels * (3 if global_context else 1), BOTTLENECK, 1)
        self.linear2 = nn.Conv1d(BOTTLENECK, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # [batch, channels, time] -> [batch, 2 channels]
        seen = x
        if self.global_context:
            deviation = (x.var(dim=-1, keepdim=True) + 1e-10).sqrt()
            seen = torch.cat([x, x.mean(dim=-1, keepdim=True).expand_as(x), deviation.expand_as(x)], dim=1)
        weight = self.linear2(self.linear1(seen).tanh()).softmax(dim=2)
        mean = (weight * x).sum(dim=2)
        variance = (weight * x.square()).sum(dim=2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)


class SpeakerEncoder(nn.Module):
    def __init__(self, mels: int, channels: int, outputs: int, global_context: bool):
        super().__init__()
        self.layer1 = TimeDelay(mels, channels, 5)
        self.layer2, self.layer3, self.layer4 = (SpeakerBlock(channels, dilation) for dilation in (2, 3, 4))
        self.conv = nn.Conv1d(3 * channels, 3 * channels, 1)
        self.pooling = AttentivePooling(3 * channels, global_context)
        self.bn = nn.BatchNorm1d(6 * channels)
        self.linear = nn.Linear(6 * channels, outputs)
        self.bn_out = nn.BatchNorm1d(outputs)

    def forward(self, mel: Tensor) -> Tensor:  # [batch, mels, time] -> [batch, outputs]
        second = self.layer2(self.layer1(mel))
        third = self.layer3(second)
        fourth = self.layer4(third)
        joined = self.conv(torch.cat([second, third, fourth], dim=1)).relu()
        return self.bn_out(self.linear(self.bn(self.pooling(joined))))
