"""Step 7, voice. What a network is asked for: a stretch of units, who speaks them, and which of their samples are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decoders.audio.unit_bigvgan import Range, UnitBigVGAN


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    units: Sequence[int]
    voice: Tensor  # [1, voice width]
    wanted: Range  # samples, counted from the first unit's first


class PlainVocoder:
    """The network as torch has it, one window after another."""

    precision = "float32"

    def __init__(self, network: UnitBigVGAN) -> None:
        self.network = network

    @torch.inference_mode()
    def speak(self, windows: Sequence[Window]) -> list[np.ndarray]:
        """The wanted samples of each window, float32 [samples]."""
        made = [self.network(torch.tensor(window.units)[None], window.voice, window.wanted) for window in windows]
        return [waveform[0, 0].numpy() for waveform in made]
