"""Step 7, the picture network for one step of several pictures, with all that stays the same hoisted out of the steps.

The same function as `VisionTransformer`, whose weights it borrows. What depends on a picture but not on the step (the codes'
share of the first layer, the modulation at each time) is computed once, when the picture joins; what depends on the size
alone (the rotation of each position) once for each size. Knows nothing of noise, schedules or requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from decoders.image.transformer import SingleBlock, VisionTransformer, rotary_angles, time_embedding


def rotation(positions: Tensor, axes: list[int]) -> Tensor:
    """positions [1, positions, 3] -> complex64 [1, positions, 1, 1, head width / 2]: rotary angles on the unit circle."""
    angles = rotary_angles(positions, axes)
    return torch.complex(angles.cos().float(), angles.sin().float())[:, :, None, None]


@dataclass(frozen=True, slots=True)
class Steering:
    """What steers one picture through one network: `codes` [positions, width], `blocks` [steps, blocks, 3, width] as shift,
    1 + scale and gate of each block, `last` [steps, 2, width] as shift and 1 + scale."""

    codes: Tensor
    blocks: Tensor
    last: Tensor


class StepNetwork:
    """A `VisionTransformer` for the steps of many pictures."""

    def __init__(self, transformer: VisionTransformer) -> None:
        first = transformer.img_in
        self.transformer = transformer
        self.axes: list[int] = transformer.axes
        channels: int = transformer.config.in_channels
        self._latents_in = first.weight[:, :channels].t()  # [channels, width]
        self._codes_in = first.weight[:, channels:]

    def steer(self, condition: Tensor, pooled: Tensor, times: Tensor) -> Steering:
        """condition [positions, context], pooled [1, context], times [steps] in 0..1."""
        network = self.transformer
        codes = functional.linear(condition, self._codes_in, network.img_in.bias)
        vector = network.time_in(time_embedding(times).type_as(condition)) + network.vector_in(pooled)  # [steps, width]
        active = functional.silu(vector)
        blocks = torch.stack([block.modulation.lin(active) for block in network.single_blocks], dim=1).unflatten(-1, (3, -1))
        blocks[:, :, 1] += 1
        last = network.final_layer.adaLN_modulation(vector).unflatten(-1, (2, -1))
        last[:, 1] += 1
        return Steering(codes, blocks, last)

    def velocity(self, flow: Tensor, steerings: Sequence[Steering], steps: Sequence[int], turns: Tensor) -> Tensor:
        """flow [pictures, positions, channels], all of one size and each at a step of its own -> velocity, same shape."""
        pictures, positions, _ = flow.shape
        codes = torch.cat([steering.codes for steering in steerings])
        # [blocks, 3, pictures, 1, width] and [2, pictures, 1, width]
        blocks = torch.stack([steering.blocks[step] for steering, step in zip(steerings, steps, strict=True)], dim=2)
        last = torch.stack([steering.last[step] for steering, step in zip(steerings, steps, strict=True)], dim=1)
        hidden = torch.addmm(codes, flow.flatten(0, 1), self._latents_in).unflatten(0, (pictures, positions))
        for block, (shift, scale, gate) in zip(self.transformer.single_blocks, blocks[:, :, :, None], strict=True):
            normed = functional.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)
            hidden.addcmul_(gate, mix(block, torch.addcmul(shift, normed, scale), turns))
        normed = functional.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)
        shift, scale = last[:, :, None]
        velocity: Tensor = self.transformer.final_layer.linear(torch.addcmul(shift, normed, scale))
        return velocity


def mix(block: SingleBlock, modulated: Tensor, turns: Tensor) -> Tensor:
    """One block between its modulation and its gate: [pictures, positions, width] in and out."""
    pictures, positions, width = modulated.shape
    wide = block.linear1(modulated)  # query | key | value | inner
    query_key = wide[..., : 2 * width].unflatten(-1, (2, block.heads, -1))
    value = wide[..., 2 * width : 3 * width].unflatten(-1, (block.heads, -1)).transpose(1, 2)
    # RMS norm and rotation of queries and keys together.
    scales = torch.stack([block.norm.query_norm.scale, block.norm.key_norm.scale])[:, None]  # [2, 1, head width]
    inverse = torch.linalg.vector_norm(query_key.float(), dim=-1, keepdim=True).square().div(scales.shape[-1]).add(1e-6).rsqrt()
    scaled = (query_key * inverse).mul_(scales)
    turned = torch.view_as_real(torch.view_as_complex(scaled.unflatten(-1, (-1, 2))) * turns).flatten(-2)
    query, key = turned.type_as(value).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(query, key, value)
    # What was attended takes the values' place beside the inner part: linear2 reads both where they are, without a copy.
    wide[..., 2 * width : 3 * width] = mixed.transpose(1, 2).flatten(2)
    torch.ops.aten.gelu_(wide[..., 3 * width :], approximate="tanh")
    joined = wide.flatten(0, 1)[:, 2 * width :]
    return functional.linear(joined, block.linear2.weight, block.linear2.bias).unflatten(0, (pictures, positions))
