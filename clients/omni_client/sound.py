"""Sound on its way to a live conversation: frames of it, at the pace of speech, from a recording or a microphone."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

from omni_client.errors import MissingDependency
from omni_client.media import Audio

FRAME_SECONDS = 0.02
# The server refuses frames of more than a second.
LONGEST_FRAME_SECONDS = 0.5
MICROPHONE_SAMPLE_RATE = 16_000
# Without a reader the microphone's sound is dropped after this long, instead of being held in memory for ever.
UNREAD_SECONDS = 30.0


class Frames:
    """Cuts 16-bit samples into frames that the server takes. State without I/O: feed it pieces cut anywhere."""

    def __init__(self, sample_rate: int) -> None:
        self._most = 2 * max(1, int(LONGEST_FRAME_SECONDS * sample_rate))
        self._rest = b""

    def feed(self, item: bytes) -> list[bytes]:
        item = self._rest + item
        whole = len(item) - len(item) % 2
        self._rest = item[whole:]
        return [item[at : min(at + self._most, whole)] for at in range(0, whole, self._most)]

    def finish(self) -> list[bytes]:
        """Nothing: half a sample is no sound."""
        self._rest = b""
        return []


class Paced:
    """A recording, a frame at a time, as fast as it would be spoken. `silence` seconds of quiet follow it, so that the server
    hears where it ends. Samples come from a WAV; MediaError for another format."""

    def __init__(self, audio: Audio, silence: float = 0.0) -> None:
        self.sample_rate = audio.sample_rate
        self._pcm = audio.pcm + bytes(2 * int(silence * self.sample_rate))

    def __iter__(self) -> Iterator[bytes]:
        size = 2 * int(FRAME_SECONDS * self.sample_rate)
        start = time.monotonic()
        for number, at in enumerate(range(0, len(self._pcm), size), start=1):
            yield self._pcm[at : at + size]
            # Against the clock from the beginning: pauses that are each a little too long would add up.
            time.sleep(max(0.0, start + number * FRAME_SECONDS - time.monotonic()))


class Microphone:
    """What the default microphone hears, for as long as it is iterated. Needs `sounddevice`."""

    sample_rate = MICROPHONE_SAMPLE_RATE

    def __iter__(self) -> Iterator[bytes]:
        frames: queue.Queue[bytes] = queue.Queue(int(UNREAD_SECONDS / FRAME_SECONDS))

        def take(frame: Any, *_: object) -> None:
            if not frames.full():
                frames.put_nowait(bytes(frame))

        blocksize = int(FRAME_SECONDS * self.sample_rate)
        with _sounddevice().RawInputStream(
            samplerate=self.sample_rate, blocksize=blocksize, channels=1, dtype="int16", callback=take
        ):
            while True:
                yield frames.get()


class Speaker:
    """Plays 16-bit mono samples as they come, on the default device. Needs `sounddevice`."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._waiting = bytearray()
        self._given = 0  # bytes, since `begin`
        self._stream = _sounddevice().RawOutputStream(samplerate=sample_rate, channels=1, dtype="int16", callback=self._give)
        self._stream.start()

    @property
    def heard(self) -> float:
        """Seconds that were played since `begin`."""
        return self._given / 2 / self._sample_rate

    def begin(self) -> None:
        """What is played from now on belongs to another answer."""
        self._given = 0

    def play(self, pcm: bytes) -> None:
        """Appends to what is being played."""
        self._waiting += pcm

    def drop(self) -> None:
        """Forgets what has not been heard yet: the person has spoken over it."""
        self._waiting.clear()

    def close(self) -> None:
        """Stops playing at once."""
        self._stream.close()

    def _give(self, out: Any, *_: object) -> None:
        taken = bytes(self._waiting[: len(out)])
        del self._waiting[: len(taken)]
        self._given += len(taken)
        out[:] = taken + bytes(len(out) - len(taken))


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as problem:  # OSError: the package is there, and PortAudio is not
        raise MissingDependency(f"a microphone needs `pip install sounddevice`, which needs PortAudio ({problem})") from None
    return sounddevice
