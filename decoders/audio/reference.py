"""Step 7, voice. A reference recording as the mel spectrogram that a zero-shot vocoder's speaker encoder reads."""

from __future__ import annotations

import math

import numpy as np
import torch
import torchaudio
from torch import Tensor

LOUDNESS = 10 ** (-26 / 20)  # root mean square, full scale 1
HIGH_PASS_HERTZ = 70.0
WINDOW, HOP, HIGHEST_HERTZ = 1024, 256, 8000.0
SHORTEST_SECONDS = 0.5


def reference_mel(recording: np.ndarray, sample_rate: int, mels: int) -> Tensor:
    """float32 mono [samples] at `sample_rate` -> [mels, frames] of natural-log magnitudes."""
    waveform = torch.as_tensor(recording, dtype=torch.float32)
    if waveform.dim() != 1 or len(waveform) < SHORTEST_SECONDS * sample_rate:
        raise ValueError(f"a reference must be mono, {SHORTEST_SECONDS} s or longer, got shape `{tuple(waveform.shape)}`")
    # A quarter of the level: the filter clips at full scale, and the level is set right after.
    waveform = torchaudio.functional.highpass_biquad(waveform / 4, sample_rate, HIGH_PASS_HERTZ, Q=math.sqrt(0.5))
    loudness = float(waveform.square().mean().sqrt())
    if not loudness > 1e-6:
        raise ValueError(f"a reference must not be silent, got loudness `{loudness:.1e}`")
    waveform = waveform * min(LOUDNESS / loudness, 1.0 / float(waveform.abs().max()))
    edge = (WINDOW - HOP) // 2  # so that there is a frame for every whole hop
    waveform = torch.nn.functional.pad(waveform[None], (edge, edge), mode="reflect")[0]
    spectrum = torch.stft(waveform, WINDOW, HOP, window=torch.hann_window(WINDOW), center=False, return_complex=True)
    magnitude = (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt()  # [513, frames]
    filters = torchaudio.functional.melscale_fbanks(
        WINDOW // 2 + 1, 0.0, HIGHEST_HERTZ, mels, sample_rate, norm="slaney", mel_scale="slaney"
    )  # [513, mels]
    return (filters.T @ magnitude).clamp(min=1e-5).log()
