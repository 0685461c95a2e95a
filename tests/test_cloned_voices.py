"""omni_server/cloned_voices.py: voices made of recordings are their owner's, rest on a consent, and outlive the server."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from omni_server import cloned_voices
from omni_server.cloned_voices import MOST_OF_ONE, ClonedVoice, ClonedVoices
from omni_server.errors import ConfigError, MediaError, MediaNotFound, RequestError
from omni_server.types import DecodeOptions, Request, Speech


def speech(seconds: float = 2.0, level: float = 0.5) -> Speech:
    return Speech(np.full(round(seconds * 16_000), level, np.float32), 16_000, "digest")


def add(voices: ClonedVoices, owner: str = "ann", **more: Speech) -> ClonedVoice:
    consent = voices.add_consent(owner, "mine", "en-US", b"I agree")
    return voices.add_voice(owner, "warm", consent.id, more.get("speech", speech()), "audio_sample")


def asked(voice: str | None) -> Request:
    return Request("r", (), decode=DecodeOptions(voice=voice, seed=3))


def test_a_voice_becomes_its_recording() -> None:
    """Catches a voice that is not spoken with, one that stays after its end, and other wishes that are lost on the way."""
    voices = ClonedVoices()
    voice = add(voices)
    spoken = voices.spoken(asked(voice.id)).decode
    assert (spoken.voice, spoken.seed) == (None, 3)
    assert spoken.reference is not None and np.array_equal(spoken.reference, speech().waveform)
    for other in (None, "mint"):
        assert voices.spoken(asked(other)) == asked(other)
    voices.delete_voice("ann", voice.id)
    assert not voices.known(voice.id)
    assert voices.spoken(asked(voice.id)) == asked(voice.id)


def test_each_owner_sees_their_own() -> None:
    """Catches a voice, or a consent, that somebody else lists, renames, deletes or builds on."""
    voices = ClonedVoices()
    voice = add(voices)
    assert (voices.voices("bob"), voices.consents("bob")) == ([], [])
    for attempt in (
        lambda: voices.delete_voice("bob", voice.id),
        lambda: voices.delete_consent("bob", voice.consent),
        lambda: voices.rename_consent("bob", voice.consent, "his"),
        lambda: voices.consent("bob", voice.consent),
        lambda: voices.add_voice("bob", "stolen", voice.consent, speech(), "audio_sample"),
    ):
        with pytest.raises(MediaNotFound):
            attempt()
    assert voices.voices("ann") == [voice]


def test_a_consent_that_is_withdrawn_takes_its_voices_with_it(tmp_path: Path) -> None:
    """Catches a voice that goes on speaking after its owner said no, and recordings that stay on the disk."""
    voices = ClonedVoices(tmp_path)
    gone, stays = add(voices), add(voices)
    voices.delete_consent("ann", gone.consent)
    assert voices.voices("ann") == [stays]
    assert not voices.known(gone.id)
    assert not [name for name in os.listdir(tmp_path) if gone.id in name or gone.consent in name]


def test_they_outlive_the_server(tmp_path: Path) -> None:
    """Catches a voice that is lost, or is another, after a restart; and a write that was cut off and stops the next start."""
    before = ClonedVoices(tmp_path / "made")
    first, second = add(before), add(before, "bob")
    before.rename_consent("ann", first.consent, "renamed")
    (tmp_path / "made" / "voice_x.npy").write_bytes(b"half")
    (tmp_path / "made" / "voice_x.half").write_bytes(b"{")
    after = ClonedVoices(tmp_path / "made")
    assert (after.voices("ann"), after.voices("bob")) == ([first], [second])
    assert after.consent("ann", first.consent).name == "renamed"
    assert np.array_equal(after.spoken(asked(first.id)).decode.reference, speech().waveform)  # type: ignore[arg-type]
    assert (tmp_path / "made" / f"{first.consent}.recording").read_bytes() == b"I agree"


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "voice_1"}', '{"id": "voice_1", "created_at": 1}'])
def test_a_folder_that_cannot_be_read_refuses_to_start(tmp_path: Path, text: str) -> None:
    """Catches a server that starts without the voices which its clients count on."""
    (tmp_path / "voice_1.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="--voice-store"):
        ClonedVoices(tmp_path)


@pytest.mark.parametrize(
    ("bad", "told"), [(speech(0.5), "`0.50` seconds"), (speech(31.0), "1 to 30"), (speech(level=0.0), "silent")]
)
def test_recordings_that_hold_no_voice_are_refused(bad: Speech, told: str) -> None:
    """Catches a recording that the speaker encoder fails on, long after it was accepted."""
    with pytest.raises(MediaError, match=told):
        add(ClonedVoices(), speech=bad)


def test_bounds() -> None:
    """Catches one caller who fills the memory, or keeps all others out."""
    voices = ClonedVoices()
    made = [add(voices) for _ in range(MOST_OF_ONE)]
    with pytest.raises(RequestError, match="delete one first"):
        voices.add_consent("ann", "more", "en", b"")
    with pytest.raises(RequestError, match="delete one first"):
        voices.add_voice("ann", "more", made[0].consent, speech(), "audio_sample")
    add(voices, "bob")
    for number in range(cloned_voices.MOST - MOST_OF_ONE - 1):
        voices.add_consent(f"caller {number}", "one", "en", b"")
    with pytest.raises(RequestError, match="200 of all"):
        voices.add_consent("last", "one", "en", b"")
