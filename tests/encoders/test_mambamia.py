"""The MambaMia compressor: its mixer against the same function in `transformers`, and what the steps around it promise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from omni_server.encoders.mambamia import Block, Mamba2, MambaMiaConfig, RmsNorm, SoundCompressor

CONFIG = MambaMiaConfig(
    input_size=12, inner_size=16, output_size=10, chunk_size=5, head_dim=8, state_size=6, expand=2, conv_kernel=4
)


class NormThenGate(nn.Module):
    """The published order, in the place of the other one that `transformers` has."""

    def __init__(self, norm: RmsNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, hidden: Tensor, gate: Tensor) -> Tensor:
        return self.norm(hidden) * functional.silu(gate)


def shaken(module: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.eval()


def test_mixer_is_a_mamba2() -> None:
    """Would catch a projection in another order, a convolution that looks ahead, a decay or a step that is not softplus."""
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    ours: Mamba2 = shaken(Mamba2(CONFIG))
    theirs = Mamba2Mixer(
        Mamba2Config(
            hidden_size=16,
            num_heads=4,
            head_dim=8,
            state_size=6,
            expand=2,
            conv_kernel=4,
            n_groups=1,
            chunk_size=8,
            use_bias=False,
        ),
        layer_idx=0,
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    theirs.norm = NormThenGate(ours.norm)
    x = torch.randn(1, 27, 16)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x[0]), theirs(x)[0], atol=1e-5, rtol=1e-4)


def test_each_chunk_becomes_one_and_hears_no_later_one() -> None:
    """Would catch queries that are read at the wrong place, and a compressor that cannot work as sound arrives."""
    network: SoundCompressor = shaken(SoundCompressor(CONFIG))
    frames = torch.randn(13, 12)
    whole = network.compress(frames)
    assert whole.shape == (3, 10)
    torch.testing.assert_close(network.compress(frames[:10]), whole[:2], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network.compress(torch.cat([frames[:10] + 1, frames[10:]]))[2], whole[2])


def test_the_gate_keeps_within_its_bounds() -> None:
    """Would catch a query that forgets itself where its gate is wide open."""
    block: Block = shaken(Block(CONFIG))
    heard: list[Tensor] = []
    block.mixer.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0]))
    with torch.no_grad():
        block.gate_fc.bias.fill_(1e4)
        block.weight_fc.weight.zero_()
        block.weight_fc.bias.zero_()
    x = torch.randn(6, 16)
    with torch.inference_mode():
        block(x)
        normed = block.norm(x)
    torch.testing.assert_close(heard[0][-1], 0.01 * normed[-1] + 0.99 * normed[:5].mean(0))
    torch.testing.assert_close(heard[0][:5], normed[:5])


def test_what_is_no_number_becomes_silence() -> None:
    """Would catch one damaged frame that poisons the backbone's whole prompt."""
    network: SoundCompressor = shaken(SoundCompressor(CONFIG))
    frames = torch.randn(10, 12)
    frames[7] = float("nan")
    out = network.compress(frames)
    assert torch.isfinite(out).all() and out[0].abs().sum() > 0
