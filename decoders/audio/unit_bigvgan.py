"""Step 7, network. Unit-BigVGAN: speech units and a voice in, a waveform out; knows nothing of streams or files.

Every size comes from `VocoderConfig`; parameter names are those of the published checkpoints. Weight norm exists only
in files: `fold_weight_norm` turns either stored form into plain weights. Each layer can say which of its inputs a range
of its outputs depends on (`needs`), so the context that exact streaming must keep is computed and never typed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.audio.ecapa_tdnn import SpeakerEncoder

Range = tuple[int, int]  # first and last index, both included


@dataclass(frozen=True, slots=True)
class VocoderConfig:
    """The architecture keys of a checkpoint's config.json; the defaults are those of the published class."""

    num_units: int
    unit_emb_dim: int
    spk_emb_dim: int
    upsample_initial_channel: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    resblock: str = "1"
    activation: str = "snakebeta"
    snake_logscale: bool = True
    num_mels: int = 100
    spk_hidden_dim: int = 512
    global_context_att: bool = False
    use_bias_at_final: bool = True
    use_tanh_at_final: bool = True
    causal: bool = True
    finetune: bool = False
    num_spk: int = 0

    def __post_init__(self) -> None:
        for name, given, known in (("resblock", self.resblock, "1"), ("activation", self.activation, "snakebeta")):
            if given != known:
                raise ValueError(f"vocoder config `{name}` must be `{known}`, got `{given}`")
        if self.causal and tuple(2 * rate for rate in self.upsample_rates) != self.upsample_kernel_sizes:
            raise ValueError(f"a causal vocoder needs kernels twice the rates, got `{self.upsample_kernel_sizes}`")
        if any(kernel % 2 == 0 for kernel in self.resblock_kernel_sizes):
            raise ValueError(f"`resblock_kernel_sizes` must be odd, got `{self.resblock_kernel_sizes}`")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> VocoderConfig:
        """Picks the architecture keys; a config.json may hold others (training, streaming, voices)."""
        known = {field.name: mapping[field.name] for field in fields(cls) if field.name in mapping}
        missing = [name for name in REQUIRED if name not in known]
        if missing:
            raise ValueError(f"vocoder config lacks `{', '.join(missing)}`")
        for name in ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes"):
            known[name] = tuple(known[name])
        known["resblock_dilation_sizes"] = tuple(tuple(sizes) for sizes in known["resblock_dilation_sizes"])
        return cls(**known)


REQUIRED = (
    "num_units", "unit_emb_dim", "spk_emb_dim", "upsample_initial_channel", "upsample_rates",
    "upsample_kernel_sizes", "resblock_kernel_sizes", "resblock_dilation_sizes",
)  # fmt: skip


class Convolution(nn.Module):
    """A length-preserving convolution; zeros beyond the ends, and in a causal network all of them before the start."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, *, causal: bool, bias: bool = True):
        super().__init__()
        reach = (kernel - 1) * dilation
        self.before, self.after = (reach, 0) if causal else (reach // 2, reach // 2)
        padding = 0 if causal else reach // 2
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # [batch, inputs, time] -> [batch, outputs, time]
        if self.after != self.before:
            x = F.pad(x, (self.before, self.after))
        return self.conv(x)

    def needs(self, wanted: Range) -> Range:
        return wanted[0] - self.before, wanted[1] + self.after


class Upsampling(nn.Module):
    """A transposed convolution that makes exactly `rate` samples of one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int, causal: bool):
        super().__init__()
        self.kernel, self.rate, self.causal = kernel, rate, causal
        self.shift = 0 if causal else math.ceil((kernel - rate) / 2)
        extra = 0 if causal else (kernel - rate) % 2
        self.deconv = nn.ConvTranspose1d(inputs, outputs, kernel, rate, padding=self.shift, output_padding=extra)

    def forward(self, x: Tensor) -> Tensor:  # [batch, inputs, time] -> [batch, outputs, time * rate]
        if not self.causal:
            return self.deconv(x)
        return self.deconv(F.pad(x, (1, 0), mode="replicate"))[..., self.rate : -self.rate]

    def needs(self, wanted: Range) -> Range:
        first, last = wanted[0] + self.shift, wanted[1] + self.shift
        return -((self.kernel - 1 - first) // self.rate), last // self.rate


class Snake(nn.Module):
    """x + sin^2(alpha x) / beta, one alpha and beta a channel."""

    def __init__(self, channels: int, logscale: bool):
        super().__init__()
        self.logscale = logscale
        initial = torch.zeros(channels) if logscale else torch.ones(channels)
        self.alpha, self.beta = nn.Parameter(initial.clone()), nn.Parameter(initial.clone())

    def forward(self, x: Tensor) -> Tensor:  # [batch, channels, time] -> the same
        alpha, beta = self.alpha[:, None], self.beta[:, None]
        if self.logscale:
            alpha, beta = alpha.exp(), beta.exp()
        return x + (x * alpha).sin().square() * (beta + 1e-9).reciprocal()


class LowPass(nn.Module):
    """Holds a filter under its published name."""

    filter: Tensor

    def __init__(self, taps: int = 12):
        super().__init__()
        self.register_buffer("filter", half_band_filter(taps))  # [1, 1, taps]


class Halving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lowpass = LowPass()


class AntiAliasedSnake(nn.Module):
    """Snake at twice the rate, between two half-band filters; beyond the ends the signal repeats its last sample."""

    def __init__(self, channels: int, logscale: bool):
        super().__init__()
        self.act = Snake(channels, logscale)
        self.upsample = LowPass()
        self.downsample = Halving()

    def forward(self, x: Tensor) -> Tensor:  # [batch, channels, time] -> the same
        channels = x.shape[1]
        up, down = self.upsample.filter, self.downsample.lowpass.filter
        half = up.shape[-1] // 2
        edge = half - 1  # enough repeated samples for a whole filter, cut off again below
        x = F.pad(x, (edge, edge), mode="replicate")
        x = F.conv_transpose1d(x, 2 * up.expand(channels, 1, -1), stride=2, groups=channels)
        x = self.act(x[..., 3 * edge : -3 * edge])  # [batch, channels, 2 * time]
        x = F.pad(x, (half - 1, half), mode="replicate")
        return F.conv1d(x, down.expand(channels, 1, -1), stride=2, groups=channels)

    def needs(self, wanted: Range) -> Range:
        half = self.upsample.filter.shape[-1] // 2
        first, last = 2 * wanted[0] - (half - 1), 2 * wanted[1] + half  # of the doubled signal
        return -((half - first) // 2), (last + half - 1) // 2


class ResidualBlock(nn.Module):
    """Pairs of activated convolutions, the first of each pair dilated, each pair added to its input."""

    def __init__(self, config: VocoderConfig, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(Convolution(channels, channels, kernel, d, causal=config.causal) for d in dilations)
        self.convs2 = nn.ModuleList(Convolution(channels, channels, kernel, 1, causal=config.causal) for _ in dilations)
        self.activations = nn.ModuleList(AntiAliasedSnake(channels, config.snake_logscale) for _ in 2 * dilations)

    def forward(self, x: Tensor) -> Tensor:  # [batch, channels, time] -> the same
        pairs = zip(self.activations[::2], self.convs1, self.activations[1::2], self.convs2, strict=True)
        for activation1, conv1, activation2, conv2 in pairs:
            x = x + conv2(activation2(conv1(activation1(x))))
        return x

    def needs(self, wanted: Range) -> Range:
        for layer in [*self.convs1, *self.convs2, *self.activations]:  # reaches add up in any order
            wanted = layer.needs(wanted)
        return wanted


class UnitBigVGAN(nn.Module):
    """Embeds units and voice, then upsamples in stages; each stage is an upsampling and the mean of residual blocks."""

    def __init__(self, config: VocoderConfig):
        super().__init__()
        self.config = config
        self.samples_per_unit = math.prod(config.upsample_rates)
        channels = [config.upsample_initial_channel // 2**i for i in range(len(config.upsample_rates) + 1)]
        self.unit_emb = nn.Embedding(config.num_units, config.unit_emb_dim)
        self.spk_emb = (
            nn.Embedding(config.num_spk, config.spk_emb_dim)
            if config.finetune
            else SpeakerEncoder(config.num_mels, config.spk_hidden_dim, config.spk_emb_dim, config.global_context_att)
        )
        self.conv_pre = Convolution(config.unit_emb_dim + config.spk_emb_dim, channels[0], 7, causal=config.causal)
        self.ups = nn.ModuleList(
            nn.ModuleList([Upsampling(channels[i], channels[i + 1], kernel, rate, config.causal)])
            for i, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True))
        )
        kinds = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
        self.resblocks = nn.ModuleList(ResidualBlock(config, width, *kind) for width in channels[1:] for kind in kinds)
        self.activation_post = AntiAliasedSnake(channels[-1], config.snake_logscale)
        self.conv_post = Convolution(channels[-1], 1, 7, bias=config.use_bias_at_final, causal=config.causal)

    def forward(self, units: Tensor, voice: Tensor, wanted: Range | None = None) -> Tensor:
        """units [batch, n], voice [batch, voice width] -> [batch, 1, samples].

        With `wanted`, only those samples: exact if the units around them that they depend on are there.
        """
        length = units.shape[1] * self.samples_per_unit
        needed, _ = self.needs(wanted or (0, length - 1))
        x = self.unit_emb(units).transpose(1, 2) * self.config.unit_emb_dim**-0.5
        x = torch.cat([x, voice[:, :, None].expand(-1, -1, x.shape[-1])], dim=1)  # [batch, unit + voice width, n]
        x = self.conv_pre(x)
        start = 0  # where x[..., 0] lies in the whole signal at the present rate
        for stage in range(len(self.ups)):
            upsampling, blocks = self.layers(stage)
            # Early stages see far, late ones cost most: keep only what later stages need.
            first, last = max(needed[stage][0], start), min(needed[stage][1] + 1, start + x.shape[-1])
            x = upsampling(x[..., first - start : last - start])
            start = first * upsampling.rate
            x = torch.stack([block(x) for block in blocks]).mean(dim=0)
        x = self.conv_post(self.activation_post(x))
        x = torch.tanh(x) if self.config.use_tanh_at_final else x.clamp(-1.0, 1.0)
        return x if wanted is None else x[..., wanted[0] - start : wanted[1] + 1 - start]

    def layers(self, stage: int) -> tuple[Upsampling, list[ResidualBlock]]:
        count = len(self.config.resblock_kernel_sizes)
        upsampling = cast(nn.ModuleList, self.ups[stage])[0]
        blocks = self.resblocks[stage * count : (stage + 1) * count]
        return cast(Upsampling, upsampling), cast(list[ResidualBlock], list(blocks))

    def needs(self, wanted: Range) -> tuple[list[Range], Range]:
        """For a range of samples: the range each stage must be given, and the range of units. Ends are not clipped."""
        wanted = self.activation_post.needs(self.conv_post.needs(wanted))
        stages = []
        for stage in reversed(range(len(self.ups))):
            upsampling, blocks = self.layers(stage)
            ranges = [block.needs(wanted) for block in blocks]
            wanted = upsampling.needs((min(first for first, _ in ranges), max(last for _, last in ranges)))
            stages.append(wanted)
        return stages[::-1], self.conv_pre.needs(wanted)

    def context(self) -> Range:
        """How many units before and after a unit its samples depend on."""
        _, (first, last) = self.needs((0, self.samples_per_unit - 1))
        return -first, last


def half_band_filter(taps: int) -> Tensor:
    """Kaiser-windowed sinc that halves the band, sum 1. -> [1, 1, taps]"""
    half_width = 0.3  # of the transition, as a share of the doubled rate
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    time = torch.arange(taps) - (taps - 1) / 2
    values = torch.kaiser_window(taps, periodic=False, beta=beta) * torch.sinc(0.5 * time)
    return (values / values.sum()).view(1, 1, taps)


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gain and direction, where a file still holds them apart, become one weight; all is widened to float32."""
    suffix, folded = ".parametrizations.weight.original", {}
    for name, value in state.items():
        if name.endswith(suffix + "1"):
            gain = state[name[:-1] + "0"].float()
            length = value.float().norm(dim=tuple(range(1, value.dim())), keepdim=True)
            folded[name.removesuffix(suffix + "1") + ".weight"] = value.float() * (gain / length)
        elif not name.endswith((suffix + "0", "pad_buffer")):  # pad_buffer: a streaming scratch of causal checkpoints
            folded[name] = value.float() if value.is_floating_point() else value
    return folded
