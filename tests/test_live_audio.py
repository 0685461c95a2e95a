"""Live sound: frames to samples and back, at every rate, in pieces of any size."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from omni_server.errors import MediaError, RequestError
from omni_server.live_audio import (
    Encoding,
    FrameWriter,
    OpusReader,
    PcmReader,
    Resampler,
    check_rate,
    output_rate,
    rates_of,
)

TONE = (np.sin(np.arange(24_000) * 2 * np.pi * 440 / 24_000) * 0.5).astype(np.float32)


def written(encoding: str, rate: int, cut: int) -> list[bytes]:
    writer = FrameWriter(encoding, 24_000, rate)  # type: ignore[arg-type]
    frames = [frame for at in range(0, len(TONE), cut) for frame in writer.feed(TONE[at : at + cut])]
    return frames + writer.finish()


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_pcm_at_every_rate_is_the_same_however_it_is_cut(rate: int) -> None:
    """Would catch samples lost or doubled where two pieces meet."""
    small, large = (b"".join(written("pcm16", rate, cut)) for cut in (317, 24_000))
    assert len(small) == 2 * rate
    difference = np.frombuffer(small, "<i2").astype(int) - np.frombuffer(large, "<i2").astype(int)
    assert np.abs(difference).max() <= 1


def test_opus_packets_keep_the_sound() -> None:
    """Would catch packets in the wrong order, at the wrong rate, or as noise."""
    reader = OpusReader()
    heard = np.concatenate([reader.feed(packet) for packet in written("opus_packets", 24_000, 1_000)]) / 32768
    assert len(heard) / 48_000 == pytest.approx(1.0, abs=0.05)
    spectrum = np.abs(np.fft.rfft(heard[9_600:33_600]))
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 4
    with pytest.raises(MediaError, match="Opus"):
        reader.feed(b"\xff" * 1000)


def test_a_recording_at_another_rate_keeps_its_length() -> None:
    """Would catch a microphone of 44.1 kHz that is heard too fast."""
    resampler = Resampler(44_100, 16_000)
    pieces = [resampler.feed(np.zeros(441, np.float32)) for _ in range(100)]
    assert sum(map(len, pieces)) + len(resampler.finish()) == 16_000


def test_what_cannot_be_is_refused() -> None:
    """Would catch half a sample, a frame of minutes, or a rate that nobody has."""
    reader = PcmReader(16_000)
    for frame in (b"abc", bytes(2 * 16_001)):
        with pytest.raises(MediaError, match="audio"):
            reader.feed(frame)
    for rate in (0, 7_999, 48_001):
        with pytest.raises(RequestError, match="8000 to 48000"):
            check_rate(rate, "rate")
    for encoding, rate in (("opus_packets", 44_100), ("opus", 22_050), ("mp3", 23_000), ("aac", 8_001)):
        with pytest.raises(RequestError, match=f"`{rate}`; expected one of 8000, .*48000 with {encoding[:3]}"):
            output_rate(encoding, rate, 24_000, "rate")  # type: ignore[arg-type]
    assert output_rate("opus_packets", 0, 22_050, "rate") == 48_000


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_every_rate_that_is_agreed_to_can_be_written(encoding: Encoding) -> None:
    """Would catch a rate whose encoder refuses it at the first sound, when nobody can be told what to correct."""
    for own in (16_000, 22_050, 24_000):
        for wanted in (0, *rates_of(encoding), *(() if rates_of(encoding) else (23_000,))):
            writer = FrameWriter(encoding, own, output_rate(encoding, wanted, own, "rate"))
            assert b"".join([*writer.feed(np.zeros(own // 5, np.float32)), *writer.finish()])
