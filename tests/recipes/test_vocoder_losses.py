"""What the vocoder's losses hear."""

import torch

from recipes.vocoder_losses import SAMPLE_RATE, SpectralLoss


def tone(hertz: float) -> torch.Tensor:
    return 0.1 * torch.sin(2 * torch.pi * hertz * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)[None]


def test_a_first_harmonic_out_of_tune_counts_below_two_kilohertz() -> None:
    """Catches a low band that is cut too low, or too coarse to tell neighbouring pitches apart."""
    loss = SpectralLoss()
    assert loss.low_loss(tone(220), tone(220)).item() == 0.0
    near, far = loss.low_loss(tone(220), tone(230)).item(), loss.low_loss(tone(220), tone(250)).item()
    assert far > near > 5 * loss.low_loss(tone(5000), tone(6000)).item()


def test_the_loss_reaches_the_waveform() -> None:
    """Catches a part of the loss that is detached."""
    made = tone(200).requires_grad_()
    SpectralLoss().low_loss(made, tone(210)).backward()
    assert made.grad is not None and made.grad.abs().max() > 0
