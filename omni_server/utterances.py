"""Step 2. Where a recording is cut into utterances: at its silences, by voice activity. Knows no wire and no words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from omni_server.listening import Heard, TurnDetector, TurnSettings, VoiceEnded, VoicePaused
from omni_server.types import Speech
from omni_server.vad import WINDOW, Ears

LONGEST_SECONDS = 30.0  # of one utterance: speech encoders are made for about so much in one piece
PIECE_SECONDS = 1.0  # that are listened to in one call, 20 ms of work: live conversations use the same ears


@dataclass(frozen=True, slots=True)
class Utterance:
    """A voice from `start` to `end`, in seconds of the recording; `sound_start` to `sound_end` is what there is to hear of it,
    with some of the silence around."""

    start: float
    end: float
    sound_start: float
    sound_end: float

    def sound(self, speech: Speech) -> np.ndarray:
        """float32 [n]"""
        first, last = (round(at * speech.sample_rate) for at in (self.sound_start, self.sound_end))
        return speech.waveform[first:last]


async def utterances(speech: Speech, ears: Ears, settings: TurnSettings) -> list[Utterance]:
    """In order. A recording in which no voice is found is taken for one: a network can miss what a model understands."""
    # The padding before a voice is not the voice, so it is added afterwards.
    exact = replace(settings, prefix_padding_ms=0, longest_seconds=float("inf"))
    silence = np.zeros(round(settings.silence_duration_ms / 1000 * speech.sample_rate) + 2 * WINDOW, np.float32)
    sound = np.concatenate([speech.waveform, silence])  # so that a voice at the very end ends too
    step = round(PIECE_SECONDS * speech.sample_rate)
    activity = ears.open()
    try:
        detector = TurnDetector(exact, activity)
        heard: list[Heard] = []
        for at in range(0, len(sound), step):
            heard += await ears.lane.run(detector.feed, sound[at : at + step])
    finally:
        ears.close(activity)
    return cut(heard, speech.seconds, settings.prefix_padding_ms / 1000)


def cut(heard: Sequence[Heard], seconds: float, lead: float) -> list[Utterance]:
    """Each voice that ended, in pieces of LONGEST_SECONDS at most. `lead` is how much sound goes with a voice before it."""
    found: list[Utterance] = []
    pauses: list[float] = []
    for event in heard or [VoiceEnded(0.0, seconds, seconds)]:
        match event:
            case VoicePaused(end=end):
                pauses.append(end)
            case VoiceEnded(start=start, voice_end=voice_end, end=end):
                floor = found[-1].sound_end if found else 0.0
                sound_start, voice_end, end = max(floor, start - lead), min(voice_end, seconds), min(end, seconds)
                for place in _places(start, voice_end, pauses):
                    found.append(Utterance(start, place, sound_start, place))
                    start = sound_start = place
                found.append(Utterance(start, voice_end, sound_start, end))
                pauses = []
            case _:
                pass
    return found


def _places(start: float, end: float, pauses: Sequence[float]) -> list[float]:
    """Where a voice is cut that goes on for too long: in its last pause before that; in the midst of it where there is none."""
    places = []
    while end - start > LONGEST_SECONDS:
        start = max((pause for pause in pauses if start < pause <= start + LONGEST_SECONDS), default=start + LONGEST_SECONDS)
        places.append(start)
    return places
