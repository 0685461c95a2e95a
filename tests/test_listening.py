"""Where turns begin and end in a stream of sound; with the real network on real voices, and with a scripted one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from omni_server.listening import Heard, Listener, TurnDetector, TurnSettings, VoiceBegan, VoiceEnded, VoicePaused, VoiceResumed
from omni_server.live_audio import PcmReader
from omni_server.vad import SAMPLE_RATE, SileroEars
from tests.doubles import LoudEars

MEDIA = Path(__file__).parent.parent / "clients" / "examples" / "media"
LOUD, QUIET = 0.5, 0.0


def sound(*levels: tuple[float, float]) -> np.ndarray:
    """(level, seconds) one after another, float32 at 16 kHz."""
    return np.concatenate([np.full(round(seconds * SAMPLE_RATE), level, np.float32) for level, seconds in levels])


def detected(samples: np.ndarray, cut: int = 320, settings: TurnSettings = TurnSettings()) -> list[Heard]:  # noqa: B008
    detector = TurnDetector(settings, LoudEars())
    return [heard for at in range(0, len(samples), cut) for heard in detector.feed(samples[at : at + cut])]


def test_a_turn_begins_with_its_padding_and_ends_after_silence() -> None:
    """Would catch a first syllable that is cut off, or a turn that never ends."""
    began, paused, ended = detected(sound((QUIET, 1.0), (LOUD, 1.0), (QUIET, 1.0)))
    assert isinstance(began, VoiceBegan) and began.start == pytest.approx(0.7, abs=0.04)
    assert isinstance(ended, VoiceEnded) and ended.voice_end == pytest.approx(2.0, abs=0.04)
    assert isinstance(paused, VoicePaused) and (paused.start, paused.end) == (ended.start, ended.end)


@pytest.mark.parametrize("cut", [1, 160, 511, 513, 16_000])
def test_cuts_change_nothing(cut: int) -> None:
    """Would catch a turn that depends on the size of the frames."""
    samples = sound((QUIET, 0.5), (LOUD, 0.4), (QUIET, 0.3), (LOUD, 0.4), (QUIET, 0.8), (LOUD, 0.2), (QUIET, 0.7))
    if cut == 1:
        samples = samples[: SAMPLE_RATE // 2 * 2]
    assert detected(samples, cut) == detected(samples, 320)


def test_a_pause_is_no_end_and_a_click_is_no_voice() -> None:
    """Would catch an answer in the middle of a sentence, or to a cough."""
    kinds = [type(heard) for heard in detected(sound((LOUD, 0.5), (QUIET, 0.3), (LOUD, 0.5), (QUIET, 0.6)))]
    assert kinds == [VoiceBegan, VoicePaused, VoiceResumed, VoicePaused, VoiceEnded]
    assert detected(sound((QUIET, 0.5), (LOUD, 0.03), (QUIET, 1.0))) == []


def test_the_settings_mean_what_they_say() -> None:
    """Would catch a threshold, padding or silence that is read and not used."""
    samples = sound((QUIET, 1.0), (LOUD, 1.0), (QUIET, 0.3), (LOUD, 0.5), (QUIET, 1.0))
    assert len([h for h in detected(samples, settings=TurnSettings(silence_duration_ms=200)) if isinstance(h, VoiceEnded)]) == 2
    assert detected(samples, settings=TurnSettings(prefix_padding_ms=0))[0].start == pytest.approx(1.0, abs=0.04)  # type: ignore[union-attr]
    longest = detected(sound((LOUD, 5.0)), settings=TurnSettings(longest_seconds=2.0))
    assert len([h for h in longest if isinstance(h, VoiceEnded)]) == 2


async def test_the_real_network_finds_real_voices_and_no_others() -> None:
    """Would catch a network that is asked wrongly: it would hear nothing, or voices in noise."""
    ears = SileroEars()
    for path in sorted(MEDIA.glob("*.flac")):
        samples, rate = soundfile.read(path, dtype="float32")
        voice = soxr.resample(samples, rate, SAMPLE_RATE)
        stream = ears.open()
        detector = TurnDetector(TurnSettings(), stream)
        heard = detector.feed(np.concatenate([voice, np.zeros(SAMPLE_RATE, np.float32)]))
        assert [type(event) for event in heard].count(VoiceEnded) == 1, path.name
        ears.close(stream)
    stream = ears.open()
    noise = (np.random.default_rng(0).standard_normal(30 * SAMPLE_RATE) * 0.1).astype(np.float32)
    assert TurnDetector(TurnSettings(), stream).feed(noise) == []
    ears.close(stream)
    assert TurnDetector(TurnSettings(), ears.open()).feed(np.zeros(30 * SAMPLE_RATE, np.float32)) == []
    ears.lane.close()


def test_half_an_hour_keeps_only_what_may_yet_be_needed() -> None:
    """Would catch a call whose memory grows for as long as it lasts."""
    listener = Listener(PcmReader(SAMPLE_RATE), TurnSettings(), LoudEars())
    frame = (sound((QUIET, 0.8)) * 32767).astype("<i2").tobytes()
    voice = (sound((LOUD, 0.2)) * 32767).astype("<i2").tobytes()
    turns, most = 0, 0
    for second in range(1800):
        heard = listener.feed(frame) + listener.feed(voice if second % 10 == 0 else frame[: len(voice)])
        turns += sum(isinstance(event, VoiceEnded) for event in heard)
        most = max(most, listener._recording._size)
    assert listener.seconds == pytest.approx(1800.0) and turns == 179 + 1
    assert most < 5 * SAMPLE_RATE


def test_turns_by_hand_hold_exactly_what_came_up() -> None:
    """Would catch a turn of push-to-talk that loses its beginning, or holds the sound between two turns."""
    listener = Listener(PcmReader(8_000), TurnSettings(automatic=False), LoudEars())
    frames = [np.full(400, value, "<i2").tobytes() for value in (1, 2, 3)]
    assert [type(heard) for frame in frames for heard in listener.feed(frame)] == [VoiceBegan]
    (ended,) = listener.end()
    assert isinstance(ended, VoiceEnded)
    assert listener.cut(ended.start, ended.end)[44:] == b"".join(frames)
    assert listener.end() == []
