"""The vocoder's first stages can be read, and learn by it."""

import torch

from decoders.audio.unit_bigvgan import UnitBigVGAN, VocoderConfig
from recipes.vocoder_clips import SAMPLES_PER_UNIT, SpokenClip
from recipes.vocoder_front import FrontBatches, FrontLoss
from recipes.vocoder_losses import LOW_RATE, SAMPLE_RATE


def small_network() -> UnitBigVGAN:
    torch.manual_seed(0)
    kinds = {"resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1,),)}
    rates = {"upsample_rates": (8, 6, 5, 4), "upsample_kernel_sizes": (16, 12, 11, 8)}
    return UnitBigVGAN(VocoderConfig(9, 8, 4, 32, **rates, **kinds, causal=False, finetune=True, num_spk=2))


def clip_of(units: int) -> SpokenClip:
    time = torch.arange(units * SAMPLES_PER_UNIT) / SAMPLE_RATE
    waveform = 0.1 * torch.sin(2 * torch.pi * 200 * time)
    return SpokenClip(waveform, len(waveform), 0, "a fox", "en", torch.arange(units) % 9, torch.empty(0, 0))


def test_both_readings_learn_and_so_do_the_stages_below() -> None:
    """Catches a head that reads at another rate than its target, and a loss that stops at the heads."""
    network = small_network()
    loss = FrontLoss(network)
    batches = FrontBatches(loss, [clip_of(8), clip_of(12)])
    mel, low = loss.read(network, batches.clips)
    assert mel.shape[1] == 12 * 8 and low.shape == (2, 12 * SAMPLES_PER_UNIT * LOW_RATE // SAMPLE_RATE)
    assert low.abs().max() == 0  # before it has learnt
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], 1e-3)
    figures = []
    for _ in range(100):
        front, harmonics = loss(network, batches.clips, batches.targets)
        optimizer.zero_grad()
        (front + harmonics).backward()
        optimizer.step()
        figures.append((front.item(), harmonics.item()))
    (front, harmonics), (first_front, first_harmonics) = figures[-1], figures[0]
    assert front < 0.7 * first_front and harmonics < 0.7 * first_harmonics
    assert network.unit_emb.weight.grad is not None and network.unit_emb.weight.grad.abs().max() > 0
