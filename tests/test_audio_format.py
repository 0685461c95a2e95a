"""Every format a client may ask for: decodable, cut-invariant, and early enough to stream."""

import io

import av
import numpy as np
import pytest

from omni_server.audio_format import MEDIA_TYPES, encode, open_writer
from tests.rest.scripts import SAMPLE_RATE, tone


def decoded(file: bytes) -> tuple[np.ndarray, int]:
    with av.open(io.BytesIO(file)) as container:
        frames = list(container.decode(audio=0))
    pieces = [frame.to_ndarray().reshape(-1) for frame in frames]
    return np.concatenate(pieces), frames[0].sample_rate


def streamed(format: str, samples: np.ndarray, cuts: list[int]) -> list[bytes]:
    writer = open_writer(format, SAMPLE_RATE)
    return [*(writer.feed(piece) for piece in np.split(samples, cuts)), writer.finish()]


@pytest.mark.parametrize("format", sorted(set(MEDIA_TYPES) - {"pcm16"}))
def test_whole_file_decodes_to_the_same_length(format: str) -> None:
    """Catches an encoder whose tail is never flushed: the end of the last word would be missing."""
    samples = tone(1.0)
    waveform, sample_rate = decoded(encode(format, samples, SAMPLE_RATE))
    seconds = len(waveform) / sample_rate
    assert 1.0 <= seconds < 1.1
    assert np.abs(waveform).max() > 0


@pytest.mark.parametrize("format", sorted(MEDIA_TYPES))
def test_cuts_do_not_change_the_bytes(format: str) -> None:
    """Catches frames that are padded at each chunk: a gap that is heard at every border."""
    samples = tone(0.7)
    assert b"".join(streamed(format, samples, [1, 2, 960, 961, 5000])) == b"".join(streamed(format, samples, []))


@pytest.mark.parametrize("format", sorted(MEDIA_TYPES))
def test_bytes_come_before_the_end(format: str) -> None:
    """Catches a container that is written only when it is closed: streaming would be a pretence."""
    pieces = streamed(format, tone(2.0), list(range(1920, 48_000, 1920)))
    assert any(pieces[:4])
    assert sum(map(len, pieces[:-1])) > 0.8 * sum(map(len, pieces))


def test_full_scale_does_not_wrap() -> None:
    """Catches an overflow of +1.0 to -32768, a loud click."""
    pcm = np.frombuffer(encode("pcm16", np.array([1.0, -1.0, 2.0, -2.0], np.float32), SAMPLE_RATE), "<i2")
    assert pcm.tolist() == [32767, -32767, 32767, -32767]


def test_wav_lengths() -> None:
    """Catches a file whose header has the lengths of a stream: players would show four gigabytes."""
    file = encode("wav", tone(0.1), SAMPLE_RATE)
    assert int.from_bytes(file[4:8], "little") == len(file) - 8
    assert int.from_bytes(file[40:44], "little") == len(file) - 44


@pytest.mark.parametrize("format", sorted(MEDIA_TYPES))
def test_silence_of_no_length(format: str) -> None:
    """Catches a crash at the end of a voice that was cut before its first sample."""
    writer = open_writer(format, SAMPLE_RATE)
    assert isinstance(writer.feed(np.zeros(0, np.float32)) + writer.finish(), bytes)


@pytest.mark.parametrize("format", sorted(set(MEDIA_TYPES) - {"pcm16"}))
def test_joined_pieces_are_one_voice_without_gaps(format: str) -> None:
    """Catches an encoder that begins anew at each piece: silence, clicks or lost samples where the pieces meet."""
    samples, sizes = tone(3.0), np.random.default_rng(1).integers(1, 4000, 60)
    cuts = [cut for cut in np.cumsum(sizes).tolist() if cut < len(samples)]
    waveform, sample_rate = decoded(b"".join(streamed(format, samples, cuts)))
    if waveform.dtype != np.float32:
        waveform = waveform.astype(np.float32) / 32768
    assert abs(len(waveform) / sample_rate - 3.0) < 0.1
    middle = waveform[int(0.2 * sample_rate) : int(2.8 * sample_rate)]
    period = sample_rate / 440.0
    windows = middle[: len(middle) // 240 * 240].reshape(-1, 240)
    loudness = np.sqrt(np.square(windows).mean(axis=1))
    assert loudness.min() > 0.6 * 0.5 / np.sqrt(2)  # no gap
    swing = np.abs(np.diff(middle)).max()
    assert swing < 1.3 * 0.5 * 2 * np.pi / period  # no click: never steeper than the tone itself


def test_pcm16_pieces_joined_are_the_samples() -> None:
    """Catches a byte lost or doubled where raw pieces meet."""
    samples = tone(0.5)
    joined = np.frombuffer(b"".join(streamed("pcm16", samples, [7, 960, 961, 4000])), "<i2")
    np.testing.assert_array_equal(joined, np.round(samples * 32767).astype(np.int16))
