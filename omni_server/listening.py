"""Step 2. Where in a stream of sound the turns of a speaker begin and end. State without I/O; knows no model and no wire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni_server.audio_format import wav_header
from omni_server.live_audio import FrameReader, Resampler
from omni_server.vad import SAMPLE_RATE, WINDOW, VoiceActivity

WINDOW_SECONDS = WINDOW / SAMPLE_RATE
ONSET_WINDOWS = 3  # voiced windows in a row that make a voice: a click or a cough is shorter than 96 ms
PAUSE_SECONDS = 0.16  # of silence after which a turn may be over, and which stay with it
HYSTERESIS = 0.15  # a voice goes on until its probability is this much below the threshold


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """When a turn begins and ends. `automatic` is false where the speaker says so themselves."""

    automatic: bool = True
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    interrupts: bool = True
    answers: bool = True  # whether a turn that is over is answered at once
    longest_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class VoiceBegan:
    """`start` in seconds from the beginning of the stream, the padding before the voice included."""

    start: float


@dataclass(frozen=True, slots=True)
class VoicePaused:
    """The turn may be over. If it is, it is the sound from `start` to `end`."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class VoiceResumed:
    """It was not."""


@dataclass(frozen=True, slots=True)
class VoiceEnded:
    """The turn is over: the sound from `start` to `end`. The voice was last heard at `voice_end`."""

    start: float
    voice_end: float
    end: float


Heard = VoiceBegan | VoicePaused | VoiceResumed | VoiceEnded


class TurnDetector:
    """16 kHz samples in pieces of any size; the events do not depend on where the cuts were."""

    def __init__(self, settings: TurnSettings, activity: VoiceActivity) -> None:
        self.settings = settings
        self._activity = activity
        self._rest = np.zeros(0, np.float32)
        self._windows = 0  # looked at so far
        self._onset = 0  # voiced windows in a row, before a voice has begun
        self._voiced_until = 0.0
        self._floor = 0.0  # a turn does not reach back into the one before
        self._paused = False
        self.start: float | None = None  # of the turn under way

    def feed(self, samples: np.ndarray) -> list[Heard]:
        waiting = np.concatenate([self._rest, samples])
        heard: list[Heard] = []
        for at in range(0, len(waiting) - WINDOW + 1, WINDOW):
            heard += self._look(self._activity.feed(waiting[at : at + WINDOW]))
        self._rest = waiting[len(waiting) - len(waiting) % WINDOW :]
        return heard

    def drop(self, now: float) -> None:
        """The turn under way, if any, has never been, and what comes next comes from `now` on."""
        self.start, self._onset, self._paused = None, 0, False
        self._windows, self._rest = int(now / WINDOW_SECONDS), np.zeros(0, np.float32)
        self._floor = now

    def end(self, now: float) -> list[Heard]:
        """The turn under way, if any, is over now, whatever the voice does."""
        if self.start is None:
            return []
        self._voiced_until = now
        return [self._ended()]

    def _look(self, probability: float) -> list[Heard]:
        begin = self._windows * WINDOW_SECONDS
        self._windows += 1
        now = begin + WINDOW_SECONDS
        going_on = self.start is not None and not self._paused
        threshold = self.settings.threshold - (HYSTERESIS if going_on else 0.0)
        voiced = probability >= max(threshold, 0.01)
        if self.start is None:
            return self._before(voiced, begin, now)
        if voiced:
            self._voiced_until = now
        resumed: list[Heard] = [VoiceResumed()] if voiced and self._paused else []
        self._paused = self._paused and not voiced
        silence = now - self._voiced_until
        if silence >= self.settings.silence_duration_ms / 1000 or now - self.start >= self.settings.longest_seconds:
            return [*resumed, self._ended()]
        if not self._paused and silence >= PAUSE_SECONDS:
            self._paused = True
            return [VoicePaused(self.start, self._voiced_until + self._kept)]
        return resumed

    @property
    def _kept(self) -> float:
        """Of the silence after a voice, in seconds."""
        return min(PAUSE_SECONDS, self.settings.silence_duration_ms / 1000)

    def _before(self, voiced: bool, begin: float, now: float) -> list[Heard]:
        self._onset = self._onset + 1 if voiced else 0
        if self._onset < ONSET_WINDOWS:
            return []
        first = now - self._onset * WINDOW_SECONDS
        self.start = max(self._floor, first - self.settings.prefix_padding_ms / 1000, 0.0)
        self._voiced_until = now
        return [VoiceBegan(self.start)]

    def _ended(self) -> VoiceEnded:
        assert self.start is not None
        ended = VoiceEnded(self.start, self._voiced_until, self._voiced_until + self._kept)
        self.start, self._onset, self._paused = None, 0, False
        self._floor = self._voiced_until
        return ended


class Recording:
    """The newest part of a stream of int16 samples, by seconds from the stream's beginning."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._pieces: list[np.ndarray] = []
        self._first = 0  # place in the stream of the first sample that is kept
        self._size = 0

    @property
    def seconds(self) -> float:
        """How long the stream is so far."""
        return (self._first + self._size) / self.sample_rate

    def feed(self, samples: np.ndarray) -> None:
        self._pieces.append(samples)
        self._size += len(samples)

    def forget(self, before: float) -> None:
        """Whole pieces only: to the second it does not matter."""
        limit = round(before * self.sample_rate)
        while self._pieces and self._first + len(self._pieces[0]) <= limit:
            self._first += len(self._pieces[0])
            self._size -= len(self._pieces.pop(0))

    def cut(self, start: float, end: float) -> np.ndarray:
        joined = np.concatenate([np.zeros(0, np.int16), *self._pieces])
        first, last = (max(0, round(at * self.sample_rate) - self._first) for at in (start, end))
        return joined[first:last]


class Listener:
    """One caller's sound: frames in, what was heard out, and the sound of any turn that was just heard."""

    def __init__(self, reader: FrameReader, settings: TurnSettings, activity: VoiceActivity) -> None:
        self._reader = reader
        self._settings = settings
        self._resampler = Resampler(reader.sample_rate, SAMPLE_RATE)
        self._detector = TurnDetector(settings, activity)
        self._recording = Recording(reader.sample_rate)
        self._open: float | None = None  # where a turn began that the speaker ends themselves

    def feed(self, frame: bytes) -> list[Heard]:
        """Raises MediaError where the frame cannot be read."""
        samples = self._reader.feed(frame)
        began = self._recording.seconds
        self._recording.feed(samples)
        if not self._settings.automatic:
            return self._feed_by_hand(began) if len(samples) else []
        heard = self._detector.feed(self._resampler.feed(samples.astype(np.float32) / 32768.0))
        if self._detector.start is None and not heard:
            self._recording.forget(self._recording.seconds - self._settings.prefix_padding_ms / 1000 - 1.0)
        return heard

    def change(self, settings: TurnSettings) -> None:
        """From now on."""
        self._settings = self._detector.settings = settings

    def drop(self) -> None:
        """The turn under way, if any, has never been."""
        self._open = None
        self._detector.drop(self._recording.seconds)

    def end(self) -> list[Heard]:
        """The speaker says that their turn is over."""
        now = self._recording.seconds
        if self._settings.automatic:
            return self._detector.end(now)
        if self._open is None:
            return []
        start, self._open = self._open, None
        return [VoiceEnded(start, now, now)]

    def cut(self, start: float, end: float) -> bytes:
        """A WAV file of a turn that was just heard, at the rate at which it came up."""
        pcm = self._recording.cut(start, end).astype("<i2").tobytes()
        return wav_header(self._recording.sample_rate, len(pcm)) + pcm

    @property
    def seconds(self) -> float:
        """Of all sound so far."""
        return self._recording.seconds

    def _feed_by_hand(self, began: float) -> list[Heard]:
        heard: list[Heard] = []
        if self._open is None:
            self._recording.forget(began)
            self._open = began
            heard.append(VoiceBegan(began))
        if self._recording.seconds - self._open >= self._settings.longest_seconds:
            heard += self.end()
        return heard
