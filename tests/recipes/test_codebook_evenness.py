"""Speech codes are used evenly."""

import torch

from recipes.train_audio_codebook import unevenness


def test_dead_and_twin_digits_cost() -> None:
    """Catches a codebook of which three digits in six never change, or two that say the same."""
    even = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    dead, twin = even.clone(), even.clone()
    dead[:, 2] = 12.0
    twin[:, 3] = twin[:, 4]
    assert unevenness(even) < 0.01
    assert unevenness(twin) > 0.04
    assert unevenness(dead) > 1.0
