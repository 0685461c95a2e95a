"""Step 7, the picture network: a flow-matching transformer over latent positions, conditioned on picture codes.

Its blocks run attention and feed-forward side by side on one projection, modulated by time and by the codes' mean.
Parameter names are those of the 8B's checkpoint.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

ROTARY_BASE = 10_000
TIME_WIDTH = 256
TIME_FACTOR = 1000.0


def rotary_angles(positions: Tensor, axes: list[int]) -> Tensor:
    """Angles of the rotary embedding, float64 [batch, positions, head width / 2], from positions [batch, positions, axes]."""
    parts = []
    for axis, width in enumerate(axes):
        rates = ROTARY_BASE ** -(torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width)
        parts.append(positions[..., axis, None].double() * rates)
    return torch.cat(parts, dim=-1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turns each pair of neighbouring channels; x [batch, heads, positions, width], angles [batch, positions, width / 2]."""
    cosine, sine = angles.cos().float()[:, None], angles.sin().float()[:, None]
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return turned.flatten(-2).type_as(x)


def time_embedding(time: Tensor) -> Tensor:
    """Sinusoids of the flow's time in 0..1: [batch] -> [batch, 256], cosines first."""
    half = TIME_WIDTH // 2
    rates = ROTARY_BASE ** -(torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angles = TIME_FACTOR * time.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TwoLayers(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.out_layer(functional.silu(self.in_layer(x)))
        return mapped


class HeadNorm(nn.Module):
    """RMS norm over one head's channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x.float(), x.shape[-1:], eps=1e-6).type_as(x) * self.scale


class QueryKeyNorm(nn.Module):
    """The two norms of one attention, under the checkpoint's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm, self.key_norm = HeadNorm(width), HeadNorm(width)


class Modulation(nn.Module):
    """Shift, scale and gate of one block from the condition vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin = nn.Linear(width, 3 * width)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        modulation: Tensor = self.lin(functional.silu(condition))[:, None]  # [batch, 1, 3 * width]
        return modulation.chunk(3, dim=-1)


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads, self.width, self.inner = heads, width, inner
        self.linear1 = nn.Linear(width, 3 * width + inner)
        self.linear2 = nn.Linear(width + inner, width)
        self.norm = QueryKeyNorm(width // heads)
        self.modulation = Modulation(width)

    def forward(self, x: Tensor, condition: Tensor, angles: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition)  # [batch, 1, width]
        modulated = (1 + scale) * functional.layer_norm(x, x.shape[-1:], eps=1e-6) + shift
        attended, widened = self.linear1(modulated).split([3 * self.width, self.inner], dim=-1)
        query, key, value = attended.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = rotate(self.norm.query_norm(query), angles)
        key = rotate(self.norm.key_norm(key), angles)
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        joined = torch.cat([mixed, functional.gelu(widened, approximate="tanh")], dim=-1)
        result: Tensor = x + gate * self.linear2(joined)
        return result


class FinalLayer(nn.Module):
    """Modulated norm and projection to latent channels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        projected: Tensor = self.linear((1 + scale) * functional.layer_norm(x, x.shape[-1:], eps=1e-6) + shift)
        return projected


class VisionTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Velocity of the flow at one time for every latent position."""

    @register_to_config
    def __init__(
        self,
        in_channels: int = 16,
        out_channels: int | None = None,
        vec_in_dim: int = 1536,
        context_in_dim: int = 1536,
        hidden_size: int = 1920,
        mlp_ratio: float = 4.0,
        num_heads: int = 24,
        depth: int = 0,
        depth_single_blocks: int = 35,
        axes_dim: list[int] | tuple[int, ...] = (8, 36, 36),
        use_patchify: bool = False,
    ) -> None:
        super().__init__()
        if depth or use_patchify:
            raise ValueError(f"expected no double blocks and no patches, got depth `{depth}`, use_patchify `{use_patchify}`")
        if sum(axes_dim) * num_heads != hidden_size:
            raise ValueError(f"expected axes_dim to add up to the head width `{hidden_size // num_heads}`, got `{axes_dim}`")
        self.axes = list(axes_dim)
        self.img_in = nn.Linear(in_channels + context_in_dim, hidden_size)
        self.time_in = TwoLayers(TIME_WIDTH, hidden_size)
        self.vector_in = TwoLayers(vec_in_dim, hidden_size)
        inner = int(hidden_size * mlp_ratio)
        self.single_blocks = nn.ModuleList(SingleBlock(hidden_size, num_heads, inner) for _ in range(depth_single_blocks))
        self.final_layer = FinalLayer(hidden_size, out_channels or in_channels)

    def forward(self, latents: Tensor, positions: Tensor, time: Tensor, pooled: Tensor) -> Tensor:
        """latents with codes [batch, positions, channels + context], positions [batch, positions, 3], time [batch] in
        0..1, pooled [batch, width] -> velocity [batch, positions, channels]."""
        condition = self.time_in(time_embedding(time).type_as(latents)) + self.vector_in(pooled)
        angles = rotary_angles(positions, self.axes)
        hidden = self.img_in(latents)
        for block in self.single_blocks:
            hidden = block(hidden, condition, angles)
        velocity: Tensor = self.final_layer(hidden, condition)
        return velocity


class VisionTokenEmbedder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The codebook as the transformer sees it: codes to embeddings and their mean."""

    @register_to_config
    def __init__(self, vocab_size: int = 65_536, embedding_dim: int = 1536, token_length: int = 729) -> None:
        super().__init__()
        self.register_buffer("vocab_embeddings", torch.zeros(vocab_size, embedding_dim))
        self.register_buffer("uncond_embedding", torch.zeros(1, embedding_dim))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, codes] -> embeddings [batch, codes, width], pooled [batch, width]."""
        embedded: Tensor = self.vocab_embeddings[codes]
        return embedded, embedded.mean(dim=1)
