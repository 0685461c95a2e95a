"""Step 7, voice. What a network is asked for, the ways of computing it, and who shares one call; knows no streams.

Kernels reach a user by numba: it comes with pip, needs no C compiler, and compiles for the CPU it finds, once (some ten
seconds, kept in a cache beside these files or in the user's cache folder). Nothing of it is imported before a vocoder is
opened; where numba is absent the network runs as torch has it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from decoders.audio.unit_bigvgan import Range, UnitBigVGAN

Precision = Literal["auto", "bfloat16", "float32"]
MOST = 16  # windows of one call


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A stretch of units, who speaks them, and which of their samples are wanted, counted from the first unit's first."""

    units: Sequence[int]
    voice: Tensor  # [1, voice width]
    wanted: Range


class Vocoder(Protocol):
    @property
    def precision(self) -> str: ...

    def speak(self, windows: Sequence[Window]) -> list[np.ndarray]:
        """The wanted samples of each window, float32 [samples]; none depends on the other windows."""
        ...


class PlainVocoder:
    """The network as torch has it, one window after another."""

    precision = "float32"

    def __init__(self, network: UnitBigVGAN) -> None:
        self.network = network

    @torch.inference_mode()
    def speak(self, windows: Sequence[Window]) -> list[np.ndarray]:
        made = [self.network(torch.tensor(window.units)[None], window.voice, window.wanted) for window in windows]
        return [waveform[0, 0].numpy() for waveform in made]


def open_vocoder(network: UnitBigVGAN, precision: Precision = "auto") -> Vocoder:
    """The fastest way there is on this machine. `auto` is bfloat16 where the CPU multiplies it, else float32."""
    try:
        from decoders.audio.compiled import CompiledVocoder, multiplies_bfloat16
    except ImportError:
        if precision == "bfloat16":
            raise ValueError("precision `bfloat16` needs numba; `pip install numba`, or choose `float32`") from None
        return PlainVocoder(network)
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16() else "float32"
    vocoder = CompiledVocoder(network, precision, torch.get_num_threads())
    # What is compiled at first use is compiled here, so that no request waits for it.
    vocoder.speak([Window([0], torch.zeros(1, network.config.spk_emb_dim), (0, network.samples_per_unit - 1))])
    return vocoder


@dataclass(slots=True, eq=False)
class Waiting:
    window: Window
    made: Future[np.ndarray] = field(default_factory=Future)


class Company:
    """Lets callers in different threads share calls: whoever finds the network free speaks for all who wait.

    No clock and no worker of its own. A caller alone is served at once; while a call runs, the windows that come meanwhile
    gather for the next. Windows are spoken in the order they came.
    """

    def __init__(self, vocoder: Vocoder) -> None:
        self._vocoder = vocoder
        self._network = threading.Lock()
        self._waiting: deque[Waiting] = deque()  # its ends are safe to use from any thread

    def speak(self, window: Window) -> np.ndarray:
        own = Waiting(window)
        self._waiting.append(own)
        with self._network:
            while not own.made.done():
                self._speak_for([self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))])
        return own.made.result()

    def _speak_for(self, company: list[Waiting]) -> None:
        try:
            waveforms = self._vocoder.speak([each.window for each in company])
        except BaseException as error:  # noqa: BLE001 - it is raised again by whoever waits for it
            if len(company) > 1 and isinstance(error, Exception):
                for each in company:  # one of them is to blame: each for itself, so that only that one fails
                    self._speak_for([each])
            else:
                for each in company:
                    each.made.set_exception(error)
        else:
            for each, waveform in zip(company, waveforms, strict=True):
                each.made.set_result(waveform)
