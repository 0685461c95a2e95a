"""Step 3, discrete pictures: the TA-Tok network, picture -> one code for each cell of a grid. Knows no files and no PIL.

Only the path that selects codes is built: the SigLIP tower up to the chosen layer, the task layer, the bottleneck and
the codebook. A checkpoint's feature decoder, later layers, post norm and head are not needed and not loaded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# Checkpoint tensors that only serve training; everything else must be used, so that a misnamed tensor is not lost.
UNUSED_PREFIXES = (
    "decoder.",
    "decode_task_layer.",
    "bottleneck.out_linear.",
    "encoder.post_layernorm.",
    "encoder.head.",
)


@dataclass(frozen=True, slots=True)
class TaTokConfig:
    """Sizes of one TA-Tok tokenizer, as its config.json states them."""

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    select_layer: int  # index into the tower's hidden states, embeddings first; -2 skips the last layer
    bottleneck_dim: int
    codebook_size: int

    @property
    def side(self) -> int:
        """Cells along one edge of the grid."""
        return self.image_size // self.patch_size

    @property
    def used_layers(self) -> int:
        """How many tower layers lie before the selected hidden state."""
        return range(self.num_hidden_layers + 1)[self.select_layer]


class Attention(nn.Module):
    """Bidirectional multi-head attention with SigLIP's parameter names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:  # [batch, cells, width]
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [batch, heads, cells, head width]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return attended


class FeedForward(nn.Module):
    """The two-layer tanh-GELU network of a SigLIP block."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        fed: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return fed


class Layer(nn.Module):
    """One pre-norm SigLIP block."""

    def __init__(self, config: TaTokConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.self_attn = Attention(config.hidden_size, config.num_attention_heads)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.mlp = FeedForward(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = x + self.self_attn(self.layer_norm1(x))
        fed: Tensor = attended + self.mlp(self.layer_norm2(attended))
        return fed


class Embeddings(nn.Module):
    """Patches and their learned positions."""

    def __init__(self, config: TaTokConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding(config.side**2, config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:  # [batch, 3, size, size] -> [batch, cells, width]
        patches: Tensor = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return patches + self.position_embedding.weight


class Layers(nn.Module):
    """The blocks up to the selected hidden state."""

    def __init__(self, config: TaTokConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.used_layers))


class Tower(nn.Module):
    """The SigLIP vision tower, cut at the selected hidden state."""

    def __init__(self, config: TaTokConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden: Tensor = self.embeddings(pixels)
        for layer in self.encoder.layers:
            hidden = layer(hidden)
        return hidden


class SimVQ(nn.Module):
    """A codebook seen through a learned projection; cosine similarity selects."""

    def __init__(self, config: TaTokConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.bottleneck_dim)
        self.embedding_proj = nn.Linear(config.bottleneck_dim, config.bottleneck_dim)

    def directions(self) -> Tensor:
        """The projected codebook on the unit sphere, [codes, width]."""
        return functional.normalize(self.embedding_proj(self.embedding.weight), dim=-1)


class Bottleneck(nn.Module):
    """From tower width to codebook width."""

    def __init__(self, config: TaTokConfig) -> None:
        super().__init__()
        self.in_linear = nn.Linear(config.hidden_size, config.bottleneck_dim)
        self.regularizer = SimVQ(config)


class Scale(nn.Module):
    """Pixels in 0..1 to the tower's range; the constants are part of the checkpoint."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 0.5))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.shift) / self.scale


class TaTok(nn.Module):
    """Picture -> features -> unit vectors -> codes; `codes` is deterministic (the nearest direction, never a sample)."""

    def __init__(self, config: TaTokConfig) -> None:
        super().__init__()
        self.config = config
        self.scale_layer = Scale()
        self.encoder = Tower(config)
        self.encode_task_layer = nn.Sequential(nn.Linear(config.hidden_size, config.hidden_size), nn.Tanh())
        self.bottleneck = Bottleneck(config)

    def features(self, pixels: Tensor) -> Tensor:
        """Tower features behind the task layer: [batch, 3, size, size] in 0..1 -> [batch, cells, width]."""
        features: Tensor = self.encode_task_layer(self.encoder(self.scale_layer(pixels)))
        return features

    def project(self, pixels: Tensor) -> Tensor:
        """What the codebook is compared with by direction: [batch, cells, bottleneck width]."""
        projected: Tensor = self.bottleneck.in_linear(self.features(pixels))
        return projected

    def codes(self, pixels: Tensor, directions: Tensor) -> Tensor:
        """Codes in row-major order, [batch, cells]; `directions` is the prepared codebook."""
        return (self.project(pixels) @ directions.T).argmax(dim=-1)
