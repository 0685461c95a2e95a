"""What the vocoder's losses hear."""

import torch

from recipes.vocoder_losses import SAMPLE_RATE, LowBand, SpectralLoss


def tone(hertz: float, turns: float = 0.0) -> torch.Tensor:
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    return 0.1 * torch.sin(2 * torch.pi * (hertz * time + turns))[None]


def low_distance(made: torch.Tensor, recorded: torch.Tensor) -> float:
    low_band = LowBand()
    return low_band.distance(low_band(made), low_band(recorded)).item()


def test_a_first_harmonic_out_of_step_counts_and_a_high_sound_does_not() -> None:
    """Catches a low band that is cut too low or too high, or a distance that is deaf to phase."""
    assert low_distance(tone(220), tone(220)) == 0.0
    near, far = low_distance(tone(220, 0.05), tone(220)), low_distance(tone(220, 0.25), tone(220))
    assert far > 2 * near > 0.2
    assert low_distance(tone(220) + tone(5000), tone(220) + tone(6000)) < 0.1 * near


def test_the_losses_reach_the_waveform() -> None:
    """Catches a part of a loss that is detached."""
    low_band = LowBand()
    for loss in (
        lambda made: SpectralLoss()(made, tone(210))[0],
        lambda made: low_band.distance(low_band(made), low_band(tone(210))),
    ):
        made = tone(200).requires_grad_()
        loss(made).backward()
        assert made.grad is not None and made.grad.abs().max() > 0
