"""Training clips are what the decoder will meet."""

from dataclasses import replace

import pytest
import torch

from recipes.vocoder_clips import SAMPLE_RATE, SAMPLES_PER_UNIT, WRITERS, SpokenClip, as_written


def clip_of(count: int) -> SpokenClip:
    waveform = torch.arange(count * SAMPLES_PER_UNIT, dtype=torch.float32)
    return SpokenClip(waveform, len(waveform), 0, "a fox", "en", torch.arange(count), torch.eye(count))


def test_a_voice_learns_the_units_that_the_backbone_writes() -> None:
    """Catches a voice trained on units, or on a time, that it is never given."""
    pytest.importorskip("librosa")
    time = torch.arange(20 * SAMPLES_PER_UNIT) / SAMPLE_RATE
    beep = torch.where(time < 0.4, 0.0, torch.sin(2 * torch.pi * 200 * time))  # silence and a tone
    sounds = torch.eye(2).repeat_interleave(torch.tensor([10, 10]), dim=0)
    clip = replace(clip_of(20), waveform=beep, units=torch.arange(20), sounds=sounds)
    writer = replace(clip, speaker=WRITERS["en"])
    slow = replace(clip, speaker=1 - WRITERS["en"], waveform=torch.cat([0 * beep, beep]))
    slow = replace(slow, sounds=torch.eye(2).repeat_interleave(torch.tensor([30, 10]), dim=0), units=torch.arange(40))
    alone = replace(slow, text="a cow")
    own, other = as_written([writer, slow, alone])
    assert own is writer
    assert other.units.tolist() == list(range(20)) and other.speaker == slow.speaker
    loud = other.waveform.view(20, -1).square().mean(dim=1)
    assert loud[:8].max() < 0.01 and (loud[12:19] > 0.4).all()
    crossings = (other.waveform[12 * SAMPLES_PER_UNIT : 18 * SAMPLES_PER_UNIT].sign().diff() > 0).sum()
    assert abs(int(crossings) - 48) <= 2  # 200 Hz still
