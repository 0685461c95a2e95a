"""Step 8. A waveform becomes faster or slower at the same pitch, piece by piece, by FFmpeg's `atempo`.

State without I/O: `feed(samples) -> samples`, `finish() -> samples`; how the pieces are cut does not change the sound.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import av.filter
import numpy as np
from av.audio.frame import AudioFrame

SLOWEST, FASTEST = 0.25, 4.0
# One filter does this much; what lies outside takes several. Above 2 a single one would leave samples out.
SLOWEST_AT_ONCE, FASTEST_AT_ONCE = 0.5, 2.0
PIECE = 1024  # samples that are filtered at a time, for the sound depends a little on it
SILENCE = 8 * PIECE


class Tempo:
    """`speed` 2.0 halves the duration, to the sample. `samples`: float32 [n] mono."""

    def __init__(self, speed: float, sample_rate: int) -> None:
        self._speed, self._sample_rate = speed, sample_rate
        self._rest = np.zeros(0, np.float32)
        self._taken = 0  # samples given to the filters so far
        self._made = 0
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(
            sample_rate=sample_rate, format="flt", layout="mono", time_base=Fraction(1, sample_rate)
        )
        filters = [self._graph.add("atempo", f"{factor:.6f}") for factor in _factors(speed)]
        chain = [source, *filters, self._graph.add("abuffersink")]
        for before, after in pairwise(chain):
            before.link_to(after)
        self._graph.configure()

    def feed(self, samples: np.ndarray) -> np.ndarray:
        waiting = np.concatenate([self._rest, samples]).astype(np.float32)
        whole = len(waiting) - len(waiting) % PIECE
        self._rest = waiting[whole:]
        made = [self._filter(waiting[start : start + PIECE]) for start in range(0, whole, PIECE)]
        return np.concatenate([np.zeros(0, np.float32), *made])

    def finish(self) -> np.ndarray:
        """The filter looks at windows and keeps the last one that is not full, so silence follows, and is cut off again."""
        wanted = round((self._taken + len(self._rest)) / self._speed)
        made = [self.feed(np.zeros(SILENCE, np.float32))]
        self._graph.push(None)
        made.append(self._ready())
        return np.concatenate(made)[: max(0, wanted - (self._made - sum(map(len, made))))]

    def _filter(self, piece: np.ndarray) -> np.ndarray:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(piece[None]), "flt", "mono")
        frame.sample_rate, frame.pts = self._sample_rate, self._taken
        self._taken += len(piece)
        self._graph.push(frame)
        return self._ready()

    def _ready(self) -> np.ndarray:
        pieces: list[np.ndarray] = [np.zeros(0, np.float32)]
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break
            assert isinstance(frame, AudioFrame)
            pieces.append(frame.to_ndarray().reshape(-1))
        joined = np.concatenate(pieces)
        self._made += len(joined)
        return joined


def _factors(speed: float) -> list[float]:
    """Two equal ones where one filter cannot do it: both are then within its bounds."""
    at_once = SLOWEST_AT_ONCE <= speed <= FASTEST_AT_ONCE
    return [speed] if at_once else [speed**0.5] * 2
