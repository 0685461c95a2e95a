"""The compiled kernels compute what the network's own layers compute."""

import copy

import pytest
import torch

from recipes.vocoder_kernels import kernel, quicken
from tests.decoders.audio.tiny_vocoder import tiny_network


@pytest.mark.skipif(kernel() is None, reason="no C compiler")
def test_a_quickened_network_is_the_same_network() -> None:
    """Catches a kernel whose sound or gradients differ, at the ends of a row above all."""
    plain = tiny_network(upsample_initial_channel=64)
    fast = quicken(copy.deepcopy(plain))
    units, target = torch.arange(20)[None], torch.randn(240, generator=torch.Generator().manual_seed(0))
    for network in (plain, fast):
        (network(units, network.spk_emb(torch.tensor([0])))[0, 0] - target).square().mean().backward()
    for (name, expected), found in zip(plain.named_parameters(), fast.parameters(), strict=True):
        scale = expected.grad.abs().max()
        assert (found.grad - expected.grad).abs().max() <= 1e-4 * scale + 1e-9, name


@pytest.mark.skipif(kernel() is None, reason="no C compiler")
def test_the_kernels_are_used() -> None:
    """Catches a comparison of the torch layers with themselves."""
    fast = quicken(tiny_network(upsample_initial_channel=64))
    assert any("forward" in vars(layer) for layer in fast.modules())
