"""video.py: frames at the pace that a model wants, the sound beside them, and files that are none."""

from __future__ import annotations

import pytest

from omni_server.config import MediaLimits
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.media import MediaLoader
from omni_server.types import MediaSource, Video
from omni_server.video import frame_count
from tests.media_samples import mp4_of, wav_of_tone

LIMITS = MediaLimits(bytes=1 << 20, pixels=10_000, seconds=20.0)


async def no_fetch(url: str, param: str, limit: int) -> bytes:
    raise AssertionError("nothing is fetched here")


def load(data: bytes, limits: MediaLimits = LIMITS, hears: bool = True, most: int = 128) -> Video:
    return MediaLoader(limits, no_fetch).video(MediaSource("video", data=data), 2.0, most, hears=hears)


def test_two_frames_a_second_and_their_sound() -> None:
    """Would catch frames from the beginning only, a length that is not the film's, and a lost sound."""
    video = load(mp4_of(seconds=3.0))
    assert video.frames.shape == (6, 48, 64, 3)
    assert video.seconds == pytest.approx(3.0)
    brightness = video.frames.mean(axis=(1, 2, 3))
    assert brightness[0] < 20 and brightness[-1] > 220 and (brightness[1:] > brightness[:-1]).all()
    assert video.sound is not None and video.sound.seconds == pytest.approx(3.0, abs=0.1)


def test_what_is_not_heard_is_not_read() -> None:
    """Would catch a silent video that is refused, and sound that is decoded for a model without ears."""
    silent, unheard = load(mp4_of(seconds=1.0, sound=False)), load(mp4_of(seconds=1.0), hears=False)
    assert silent.sound is None and unheard.sound is None
    assert silent.digest == unheard.digest != load(mp4_of(seconds=1.0)).digest


@pytest.mark.parametrize(
    ("seconds", "pace", "frames", "most", "expected"),
    [(0.5, 2, 12, 128, 4), (3.7, 2, 90, 128, 6), (600, 2, 15_000, 128, 128), (10, 2, 5, 128, 4), (1, 2, 1, 128, 2)],
)
def test_how_many_frames(seconds: float, pace: float, frames: int, most: int, expected: int) -> None:
    """Would catch an odd number, which the tower cannot pair, and a long film that fills the context."""
    assert frame_count(seconds, pace, frames, most) == expected


def test_limits_and_damage() -> None:
    """Would catch a film over a limit that is decoded first, and a damaged one that becomes a 5xx."""
    film = mp4_of(seconds=2.0)
    with pytest.raises(MediaTooLarge, match="seconds"):
        load(film, MediaLimits(bytes=1 << 20, pixels=10_000, seconds=1.0), hears=False)
    with pytest.raises(MediaTooLarge, match="pixels"):
        load(film, MediaLimits(bytes=1 << 20, pixels=100, seconds=20.0))
    with pytest.raises(MediaError, match="not a video"):
        load(wav_of_tone(0.5))
    with pytest.raises(MediaError):
        load(film[: len(film) // 3])
