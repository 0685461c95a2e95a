"""omni_server/utterances.py: recordings are cut at their silences, nowhere else, and nothing that was said is lost."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from omni_server.listening import PAUSE_SECONDS, TurnSettings, VoiceEnded, VoicePaused
from omni_server.types import Speech
from omni_server.utterances import LONGEST_SECONDS, Utterance, cut, utterances
from omni_server.vad import SAMPLE_RATE
from tests.doubles import LoudEars

NEAR = 0.04  # a window


def recording(*stretches: tuple[float, bool]) -> Speech:
    """Stretches of so many seconds, each loud or silent."""
    pieces = [np.full(round(seconds * SAMPLE_RATE), 0.5 if loud else 0.0, np.float32) for seconds, loud in stretches]
    return Speech(np.concatenate(pieces), SAMPLE_RATE, "digest")


async def heard_in(speech: Speech, **wishes: int) -> list[Utterance]:
    ears = LoudEars()
    found = await utterances(speech, ears, TurnSettings(**wishes))
    assert ears.opened == 0
    return found


async def test_each_voice_with_its_times() -> None:
    """Catches times that hold the silence around a voice, sound without it, and a last voice that is lost at the end."""
    found = await heard_in(recording((1.0, False), (2.0, True), (1.0, False), (1.5, True)))
    assert [(round(each.start, 1), round(each.end, 1)) for each in found] == [(1.0, 3.0), (4.0, 5.5)]
    first, last = found
    assert first.sound_start == pytest.approx(first.start - 0.3)
    assert first.sound_end == pytest.approx(first.end + PAUSE_SECONDS)
    assert last.sound_end <= 5.5
    assert len(last.sound(recording((5.5, True)))) == pytest.approx((last.sound_end - last.sound_start) * SAMPLE_RATE, abs=1)


async def test_short_pauses_stay_inside() -> None:
    """Catches a sentence that is cut at a breath, and a wish for finer cuts that is not heard."""
    breath = recording((1.0, True), (0.3, False), (1.0, True))
    assert len(await heard_in(breath)) == 1
    assert len(await heard_in(breath, silence_duration_ms=200)) == 2


@pytest.mark.parametrize("loud", [False, True])
async def test_a_recording_without_a_voice_is_one_utterance(loud: bool) -> None:
    """Catches words that are lost because a network took them for noise."""
    assert await heard_in(recording((0.05, loud), (1.0, False))) == [Utterance(0.0, 1.05, 0.0, 1.05)]


async def test_long_speech_is_cut_in_its_pauses() -> None:
    """Catches an utterance longer than the model hears, and one that is cut in the midst of a word for no need."""
    found = await heard_in(recording((20.0, True), (0.3, False), (20.0, True), (0.3, False), (5.0, True)))
    assert [round(each.end, 1) for each in found] == [20.2, 45.6]
    assert all(each.end - each.start <= LONGEST_SECONDS for each in found)


async def test_speech_without_any_pause_is_cut_anyway() -> None:
    """Catches a recording that no model can take."""
    found = await heard_in(recording((70.0, True)))
    assert [round(each.end - each.start) for each in found] == [30, 30, 10]


@settings(deadline=None)
@given(strategies.lists(strategies.tuples(strategies.floats(0.2, 80), strategies.floats(0.1, 2)), min_size=1, max_size=8))
def test_cuts_lose_and_repeat_nothing(voices: list[tuple[float, float]]) -> None:
    """Catches sound of a voice that is in no utterance, in two of them, or after the recording's end."""
    events: list[VoicePaused | VoiceEnded] = []
    now = 0.0
    for length, silence in voices:
        events += [VoicePaused(now, now + length * share) for share in (0.3, 0.6, 0.8)]
        events.append(VoiceEnded(now, now + length, now + length + min(silence, PAUSE_SECONDS)))
        now += length + silence
    found = cut(events, now, 0.3)
    assert sum(each.end - each.start for each in found) == pytest.approx(sum(length for length, _ in voices))
    for each in found:
        places = (0.0, each.sound_start, each.start, each.end, each.sound_end, now)
        assert all(before <= after + 1e-9 for before, after in pairwise(places))
    assert all(before.sound_end <= after.sound_start + 1e-9 for before, after in pairwise(found))
    assert all(each.end - each.start <= LONGEST_SECONDS + 1e-6 for each in found)
