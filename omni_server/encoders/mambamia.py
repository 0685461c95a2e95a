"""Step 3. The MambaMia compressor: the sound of a video, 25 embeddings a second, to one embedding a second.

A learned query follows every chunk of frames; one gated Mamba2 block runs over all, and only the queries' places are kept.
Parameter names are those of the published network. The scan is plain PyTorch: one layer over some hundred places.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

LEAST_GATE, MOST_GATE = 0.01, 0.99


@dataclass(frozen=True, slots=True)
class MambaMiaConfig:
    """The sizes of one compressor, as its config.json states them."""

    input_size: int
    inner_size: int
    output_size: int
    chunk_size: int  # frames that become one
    head_dim: int
    state_size: int
    expand: int
    conv_kernel: int
    num_layers: int = 1

    def __post_init__(self) -> None:
        if self.wide % self.head_dim:
            raise ValueError(f"`head_dim` `{self.head_dim}` must divide the expanded width `{self.wide}`")

    @property
    def wide(self) -> int:
        return self.expand * self.inner_size

    @property
    def heads(self) -> int:
        return self.wide // self.head_dim

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        return cls(**{field.name: mapping[field.name] for field in fields(cls) if field.name in mapping})


class RmsNorm(nn.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed: Tensor = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight
        return normed


class Mamba2(nn.Module):
    """A state-space mixer with scalar decays, one group; its norm comes before its gate."""

    def __init__(self, config: MambaMiaConfig) -> None:
        super().__init__()
        self.config = config
        mixed = config.wide + 2 * config.state_size
        self.in_proj = nn.Linear(config.inner_size, config.wide + mixed + config.heads, bias=False)
        self.conv1d = nn.Conv1d(mixed, mixed, config.conv_kernel, groups=mixed, padding=config.conv_kernel - 1)
        self.dt_bias = nn.Parameter(torch.zeros(config.heads))
        self.A_log = nn.Parameter(torch.zeros(config.heads))
        self.D = nn.Parameter(torch.ones(config.heads))
        self.norm = RmsNorm(config.wide)
        self.out_proj = nn.Linear(config.wide, config.inner_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[places, inner] -> the same."""
        config = self.config
        gate, mixed, delta = self.in_proj(x).split([config.wide, config.wide + 2 * config.state_size, config.heads], dim=-1)
        mixed = functional.silu(self.conv1d(mixed.T[None])[0, :, : len(x)]).T  # causal: the later padding is cut off
        values, keys, queries = mixed.split([config.wide, config.state_size, config.state_size], dim=-1)
        values = values.unflatten(-1, (config.heads, config.head_dim))  # [places, heads, head_dim]
        steps = functional.softplus(delta + self.dt_bias).float()  # [places, heads]
        scanned = scan(values.float(), keys.float(), queries.float(), steps, -self.A_log.float().exp())
        out = (scanned + values * self.D[:, None]).flatten(1).to(x.dtype)  # [places, wide]
        projected: Tensor = self.out_proj(self.norm(out) * functional.silu(gate))
        return projected


def scan(values: Tensor, keys: Tensor, queries: Tensor, steps: Tensor, decay: Tensor) -> Tensor:
    """The recurrence state = exp(step * decay) * state + step * value (x) key, read by query at each place.

    values [places, heads, head_dim], keys and queries [places, state], steps [places, heads], decay [heads] ->
    [places, heads, head_dim].
    """
    state = values.new_zeros(values.shape[1], values.shape[2], keys.shape[1])
    outputs = []
    for value, key, query, step in zip(values, keys, queries, steps, strict=True):
        state = state * (step * decay).exp()[:, None, None] + (step[:, None] * value)[..., None] * key
        outputs.append(state @ query)
    return torch.stack(outputs)


class Block(nn.Module):
    """Each query gathers its chunk by attention weights and a gate, then the mixer runs over all places."""

    def __init__(self, config: MambaMiaConfig) -> None:
        super().__init__()
        self.chunk = config.chunk_size
        self.norm = RmsNorm(config.inner_size)
        self.weight_fc = nn.Linear(config.inner_size, config.chunk_size)
        self.gate_fc = nn.Linear(config.inner_size, 1)
        self.mixer = Mamba2(config)

    def forward(self, x: Tensor) -> Tensor:
        """[chunks * (chunk + 1), inner] -> the same."""
        chunks = self.norm(x).unflatten(0, (-1, self.chunk + 1))  # [chunks, chunk + 1, inner]
        frames, query = chunks[:, :-1], chunks[:, -1]
        weights = self.weight_fc(query).float().softmax(-1).to(x.dtype)  # [chunks, chunk]
        gathered = (weights[..., None] * frames).sum(1)
        gate = LEAST_GATE + (MOST_GATE - LEAST_GATE) * self.gate_fc(query).sigmoid()
        query = (1 - gate) * query + gate * gathered
        mixed: Tensor = self.mixer(torch.cat([frames, query[:, None]], dim=1).flatten(0, 1))
        return x + mixed


class Blocks(nn.Module):
    """Holds the blocks and the last norm under their published name."""

    def __init__(self, config: MambaMiaConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_f = RmsNorm(config.inner_size)


class SoundCompressor(nn.Module):
    """[frames, input] -> [ceil(frames / chunk), output]."""

    def __init__(self, config: MambaMiaConfig) -> None:
        super().__init__()
        self.config = config
        self.input_proj = nn.Linear(config.input_size, config.inner_size)
        self.query_token = nn.Parameter(torch.zeros(config.inner_size))
        self.input_norm = nn.LayerNorm(config.inner_size, eps=1e-6)
        self.model = Blocks(config)
        self.output_proj = nn.Linear(config.inner_size, config.output_size)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        config = MambaMiaConfig.from_mapping(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")))
        network = cls(config)
        network.load_state_dict({name: t.float() for name, t in load_file(Path(folder) / "model.safetensors").items()})
        return network.eval()

    @torch.inference_mode()
    def compress(self, frames: Tensor) -> Tensor:
        """Pads the last chunk with zeros, as the published network does; what is not a number becomes zero."""
        chunk = self.config.chunk_size
        padded = functional.pad(frames.to(self.query_token.device), (0, 0, 0, -len(frames) % chunk))
        inner = self.input_proj(padded).unflatten(0, (-1, chunk))  # [chunks, chunk, inner]
        queries = self.query_token.expand(len(inner), 1, -1)
        places = self.input_norm(torch.cat([inner, queries], dim=1).flatten(0, 1))
        for block in self.model.layers:
            places = block(places)
        kept = self.model.norm_f(places)[chunk :: chunk + 1]
        return torch.nan_to_num(self.output_proj(kept), nan=0.0).cpu()
