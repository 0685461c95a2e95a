"""The speech projector finds names in features."""

import torch

from recipes.align_speech import CLIPS, align, distances


def test_names_are_found_among_noise() -> None:
    """Catches an attention over padding, or a loss that pulls clips to the wrong names."""
    generator = torch.Generator().manual_seed(0)
    said = torch.randn(6, 16, generator=generator)  # what each name sounds like
    names = 0.25 * torch.randn(6, 32, generator=generator)
    clips = []
    for number in range(CLIPS + 8):
        rows = 0.3 * torch.randn(5 + number % 9, 16, generator=generator)
        rows[2:4] += said[number % 6]
        clips.append((rows, number % 6))
    model = align(clips, names, steps=150, seed=1)
    with torch.inference_mode():
        away = distances(model([rows for rows, _ in clips]), names)
    right = (away.argmin(dim=1) == torch.tensor([row for _, row in clips])).float().mean()
    assert right > 0.9
