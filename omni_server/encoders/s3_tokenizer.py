"""Step 3. The S3 speech tokenizer v2: log-mel frames to one ternary code 25 times a second; knows no files.

Parameter names are those of the published tokenizer, so its tensors load as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ROTARY_BASE = 10_000.0
FSMN_KERNEL = 31
LEVELS = 3  # each FSQ digit is -1, 0 or 1
TANH_SCALE = 0.9990000128746033  # keeps tanh off the rounding edge of its saturated ends


@dataclass(frozen=True, slots=True)
class S3Config:
    """The sizes of a tokenizer, under the names its published configuration uses."""

    n_mels: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_codebook_size: int

    def __post_init__(self) -> None:
        if self.n_codebook_size != LEVELS**self.digits:
            raise ValueError(f"`n_codebook_size` must be a power of {LEVELS}, got `{self.n_codebook_size}`")
        if self.n_audio_state % (2 * self.n_audio_head):
            raise ValueError(f"`n_audio_state` {self.n_audio_state} has no even share for {self.n_audio_head} heads")

    @property
    def digits(self) -> int:
        digits = 0
        while LEVELS ** (digits + 1) <= self.n_codebook_size:
            digits += 1
        return digits


def code_count(mel_frames: int) -> int:
    """How many codes a piece of so many log-mel frames becomes: two halvings, each rounded up."""
    return ((mel_frames + 1) // 2 + 1) // 2


def rotation(length: int, head_size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each [length, head_size], of the rotary position angles."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)  # [length, head_size / 2]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns x [batch, heads, length, head_size] by its positions, first half against second half."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


class FsmnAttention(nn.Module):
    """Self-attention plus a depthwise convolution over the values, the sequential memory."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.fsmn_block = nn.Conv1d(width, width, FSMN_KERNEL, padding=FSMN_KERNEL // 2, groups=width, bias=False)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x [batch, length, width], valid [batch, length] or None -> [batch, length, width]."""
        batch, length, width = x.shape
        value = self.value(x)
        present = value if valid is None else value * valid[..., None]
        memory = self.fsmn_block(present.transpose(1, 2)).transpose(1, 2) + present

        def by_head(tensor: Tensor) -> Tensor:  # -> [batch, heads, length, head_size]
            return tensor.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        cosine, sine = rotation(length, width // self.heads)
        attended = functional.scaled_dot_product_attention(
            rotate(by_head(self.query(x)), cosine.to(x), sine.to(x)),
            rotate(by_head(self.key(x)), cosine.to(x), sine.to(x)),
            by_head(value),
            attn_mask=None if valid is None else valid[:, None, None, :],
        )
        mixed: Tensor = self.out(attended.transpose(1, 2).reshape(batch, length, width)) + memory
        return mixed


class Block(nn.Module):
    """One pre-norm transformer block of the tokenizer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = FsmnAttention(width, heads)
        self.attn_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width, eps=1e-5)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x [batch, length, width], valid [batch, length] or None -> [batch, length, width]."""
        x = x + self.attn(self.attn_ln(x), valid)
        transformed: Tensor = x + self.mlp(self.mlp_ln(x))
        return transformed


class Encoder(nn.Module):
    """Two strided convolutions and the blocks."""

    def __init__(self, config: S3Config) -> None:
        super().__init__()
        width = config.n_audio_state
        self.conv1 = nn.Conv1d(config.n_mels, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(width, config.n_audio_head) for _ in range(config.n_audio_layer))

    def forward(self, log_mel: Tensor, frames: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """log_mel [batch, mels, frames] -> [batch, codes, width], and which of them are valid [batch, codes]."""
        x = log_mel
        for convolution in (self.conv1, self.conv2):
            if frames is not None:
                x = x * (torch.arange(x.shape[-1]) < frames[:, None])[:, None]
                frames = (frames + 1) // 2
            x = functional.gelu(convolution(x))
        x = x.transpose(1, 2)
        valid = None if frames is None else torch.arange(x.shape[1]) < frames[:, None]
        for block in self.blocks:
            x = block(x, valid)
        return x, valid


class TernaryCodebook(nn.Module):
    """Finite scalar quantisation to three levels a digit."""

    def __init__(self, width: int, digits: int) -> None:
        super().__init__()
        self.project_down = nn.Linear(width, digits)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., digits], continuous in (-1, 1); rounding it gives the digits."""
        projected: Tensor = self.project_down(x)
        return projected.tanh() * TANH_SCALE


class Quantizer(nn.Module):
    """Holds the codebook under the name the published tensors have."""

    def __init__(self, width: int, digits: int) -> None:
        super().__init__()
        self._codebook = TernaryCodebook(width, digits)

    def forward(self, x: Tensor) -> Tensor:
        digits: Tensor = self._codebook(x)
        return digits


class S3Tokenizer(nn.Module):
    """The whole network: `encoder` and `quantizer`."""

    def __init__(self, config: S3Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = Quantizer(config.n_audio_state, config.digits)

    def forward(self, log_mel: Tensor, frames: Tensor | None = None) -> Tensor:
        """log_mel [batch, mels, frames], valid frames of each [batch] or None if all -> codes [batch, codes]."""
        hidden, _ = self.encoder(log_mel, frames)
        return digits_to_codes(self.quantizer(hidden))


def digits_to_codes(digits: Tensor) -> Tensor:
    """[..., digits] in (-1, 1) -> [...], the base-3 number whose lowest digit comes first."""
    places = LEVELS ** torch.arange(digits.shape[-1], device=digits.device)
    return ((digits.round().long() + 1) * places).sum(dim=-1)
