"""Critics can be satisfied, and what they say reaches the vocoder."""

import torch

from recipes.vocoder_critics import Critics


def waves(seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(1, 4800, generator=torch.Generator().manual_seed(seed))


def test_critics_learn_to_tell_two_sounds_apart() -> None:
    """Catches targets that are swapped, or a loss that does not reach the critics."""
    torch.manual_seed(0)
    critics, recorded, made = Critics(), waves(1), waves(2).cumsum(dim=1) * 0.1
    optimizer = torch.optim.Adam(critics.parameters(), 2e-3)
    first = critics.judge(recorded, made).item()
    for _ in range(15):
        loss = critics.judge(recorded, made)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert critics.judge(recorded, made).item() < 0.7 * first


def test_the_recording_itself_is_like_the_recording() -> None:
    """Catches a likeness that compares the wrong layers, or that gives no gradient."""
    critics, recorded = Critics(), waves(1)
    made = waves(2).requires_grad_()
    _, unlike = critics.teach(recorded, made)
    unlike.backward()
    assert made.grad is not None and made.grad.abs().max() > 0
    assert critics.teach(recorded, recorded)[1].item() == 0.0
