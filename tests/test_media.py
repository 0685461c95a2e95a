"""Step 2: what clients send becomes pictures and waveforms, or an error that names the field."""

import base64
import contextlib
import io
import random

import av
import numpy as np
import PIL.Image
import pytest
import soundfile

from omni_server.config import MediaLimits
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.media import MediaLoader
from omni_server.types import MediaSource

LIMITS = MediaLimits(bytes=1 << 20, pixels=10_000, seconds=5)
PARAM = "messages[0].content[0].image_url.url"


async def no_network(url: str, param: str, limit: int) -> bytes:
    raise AssertionError(url)


LOADER = MediaLoader(LIMITS, no_network)


def of(data: bytes | str) -> MediaSource:
    return MediaSource(PARAM, data=data) if isinstance(data, bytes) else MediaSource(PARAM, url=data)


def image_file(image: PIL.Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def plain_png() -> bytes:
    return image_file(PIL.Image.new("RGB", (8, 6), "red"))


def tone(seconds: float, sample_rate: int, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * sample_rate)) / sample_rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def wav(seconds: float = 0.5, sample_rate: int = 16_000, channels: int = 1, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(seconds, sample_rate, channels), sample_rate, format="WAV", subtype=subtype)
    return file.getvalue()


def encoded(container: str, codec: str, sample_rate: int = 48_000) -> bytes:
    """Half a second of a 440 Hz tone by FFmpeg."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=sample_rate, layout="stereo")
        kind = next(format.name for format in stream.codec_context.codec.audio_formats)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone(0.5, sample_rate, 2).T), "fltp", "stereo")
        frame.sample_rate = sample_rate
        for ready in av.AudioResampler(kind, "stereo", sample_rate).resample(frame):
            output.mux(stream.encode(ready))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_picture_formats(format: str) -> None:
    """Catches a format that the installed Pillow cannot read, or one that arrives in other colours."""
    picture = LOADER.picture(of(image_file(PIL.Image.new("RGB", (40, 30), (200, 40, 40)), format)))
    assert (picture.image.mode, picture.image.size) == ("RGB", (40, 30))
    pixel = np.asarray(picture.image)[15, 20].astype(int)
    assert np.abs(pixel - (200, 40, 40)).max() < 12


def test_ways_to_hand_over() -> None:
    """Catches the difference between a data: URL, bare base64, its URL-safe form, and missing padding."""
    data = image_file(PIL.Image.effect_noise((32, 32), 90))
    plain, safe = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
    assert "-" in safe or "_" in safe
    broken_lines = "\n".join(plain[start : start + 76] for start in range(0, len(plain), 76))
    ways = [data, plain, safe, safe.rstrip("="), broken_lines, f"data:image/png;base64,{plain}", f"data:;base64,{safe}"]
    assert len({LOADER.picture(of(way)).digest for way in ways}) == 1


def test_exif_orientation() -> None:
    """Catches telephone photographs that the model sees lying on their side."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    assert LOADER.picture(of(image_file(PIL.Image.new("RGB", (8, 4)), "JPEG", exif=exif))).image.size == (4, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(mode: str) -> None:
    """Catches logos on black, the colour that transparent pixels happen to hold."""
    image = PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    options = {"transparency": image.getpixel((0, 0))} if mode == "P" else {}
    assert LOADER.picture(of(image_file(image, **options))).image.getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_greys() -> None:
    """Catches scans that turn all white: Pillow clips 16-bit values at 255."""
    half = PIL.Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert LOADER.picture(of(image_file(half))).image.getpixel((0, 0)) == (128, 128, 128)


def test_animation_is_its_first_frame() -> None:
    """Catches an animation that is read whole, or at its end."""
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = image_file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert LOADER.picture(of(data)).image.getpixel((0, 0)) == (255, 0, 0)


def test_digest_is_of_the_pixels() -> None:
    """Catches a cache that misses the same picture in another file, or mistakes one shape for another."""
    image = PIL.Image.new("RGB", (8, 6), "red")
    same = [LOADER.picture(of(image_file(image, kind))).digest for kind in ("PNG", "BMP")]
    assert same[0] == same[1] != LOADER.picture(of(image_file(image.resize((6, 8))))).digest


def test_pixels_are_counted_before_they_are_decoded() -> None:
    """Catches a small file that fills the memory."""
    data = image_file(PIL.Image.new("1", (8_000, 8_000)))
    assert len(data) < LIMITS.bytes
    with pytest.raises(MediaTooLarge, match="`8000x8000` pixels") as caught:
        LOADER.picture(of(data))
    assert caught.value.param == PARAM


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "empty"),
        ("", "empty"),
        (b"GARBAGE" * 10, "png, jpeg, webp, gif or bmp"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "png, jpeg"),
        (plain_png()[:50], "damaged"),
        ("data:image/png;base64", "expected `data:"),
        ("data:image/png;base64,!!!!", "base64"),
        ("file:///etc/passwd", "data:, http: or https:"),
        ("ftp://host/picture.png", "data:, http: or https:"),
        ("a picture of a fox!", "base64"),
    ],
)
def test_bad_pictures(source: bytes | str, says: str) -> None:
    """Catches a 500, or an error that does not say which field was wrong and what was expected."""
    with pytest.raises(MediaError, match=says) as caught:
        LOADER.picture(of(source))
    assert caught.value.param == PARAM
    assert f"`{PARAM}`" in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("way", [bytes, "base64"])
def test_bytes_limit(way: object) -> None:
    """Catches base64 that is decoded before its size is looked at."""
    data = bytes(LIMITS.bytes + 10)
    with pytest.raises(MediaTooLarge, match="at most 1048576"):
        LOADER.picture(of(data if way is bytes else base64.b64encode(data).decode()))


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("wav", "pcm_f32le"),
        ("wav", "pcm_u8"),
        ("wav", "pcm_s24le"),
        ("mp3", "libmp3lame"),
        ("flac", "flac"),
        ("ogg", "libopus"),
        ("webm", "libopus"),
        ("ipod", "aac"),
        ("adts", "aac"),
    ],
)
def test_audio_formats(container: str, codec: str) -> None:
    """Catches a format that is promised and cannot be read, a wrong scale or rate, channels strung together."""
    speech = LOADER.speech(of(encoded(container, codec)))
    assert (speech.sample_rate, speech.waveform.dtype, speech.waveform.ndim) == (16_000, np.float32, 1)
    assert 0.48 < speech.seconds < 0.6
    middle = speech.waveform[2000:6000]
    assert 0.45 < np.abs(middle).max() < 0.56
    crossings = np.count_nonzero(np.diff(np.signbit(middle)))
    assert abs(crossings - 2 * 440 * 4000 / 16_000) < 8


def test_ogg_vorbis() -> None:
    """Catches the one usual format that FFmpeg here reads but cannot write."""
    file = io.BytesIO()
    soundfile.write(file, tone(0.5, 44_100, 2), 44_100, format="OGG", subtype="VORBIS")
    assert LOADER.speech(of(file.getvalue())).seconds == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100])
def test_resampling_keeps_the_length(sample_rate: int) -> None:
    """Catches speech that is too fast or too slow for the encoder."""
    speech = LOADER.speech(of(wav(1.0, sample_rate)))
    assert abs(len(speech.waveform) - 16_000) <= 1


def test_stereo_is_averaged() -> None:
    """Catches a down-mix by sum, which clips, and a lost right channel."""
    loud = np.stack([np.full(4000, 0.8), np.full(4000, 0.4)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, loud, 16_000, format="WAV", subtype="FLOAT")
    assert LOADER.speech(of(file.getvalue())).waveform[2000] == pytest.approx(0.6, abs=1e-3)


def test_a_wav_of_unknown_length() -> None:
    """Catches refusal of a recording that was streamed into a file: its header says 0xFFFFFFFF."""
    data = bytearray(wav(0.5))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert LOADER.speech(of(bytes(data))).seconds == pytest.approx(0.5)


def test_an_mp3_cut_out_of_a_stream() -> None:
    """Catches refusal of a recording that begins in the middle of a frame."""
    data = encoded("mp3", "libmp3lame")
    start = data.index(b"\xff\xfb", 900)
    assert LOADER.speech(of(data[start:] + data[: start // 2])).seconds > 0.2


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "empty"),
        (b"GARBAGE" * 10, "wav, mp3, flac"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "wav, mp3, flac"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "wav, mp3, flac"),
        (wav(0), "samples|seconds"),
        (wav(0.05), "at least 0.1"),
        (wav()[:30], "damaged|no samples"),
        (b"OggS" + bytes(500), "damaged|no audio|no samples"),
        (b"ID3\x04" + bytes(500), "damaged|no audio|no samples"),
    ],
)
def test_bad_audio(source: bytes, says: str) -> None:
    """Catches a 500, a playlist that opens other files, and an utterance of no length that reaches the encoder."""
    with pytest.raises(MediaError, match=says) as caught:
        LOADER.speech(of(source))
    assert caught.value.param == PARAM


def test_seconds_limit() -> None:
    """Catches an hour of silence, a small flac, that is decoded whole before it is refused."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000 * 60, np.int16), 16_000, format="FLAC")
    with pytest.raises(MediaTooLarge, match="longer than 5 seconds"):
        LOADER.speech(of(file.getvalue()))


def test_samples_that_are_not_numbers() -> None:
    """Catches NaN that would spread through every later token."""
    file = io.BytesIO()
    soundfile.write(file, np.full(4000, np.nan, np.float32), 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(MediaError, match="not numbers"):
        LOADER.speech(of(file.getvalue()))


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_or_read(seed: int) -> None:
    """Catches any other exception than ours from a file with flipped bytes."""
    random_bytes = random.Random(seed)
    noise = PIL.Image.effect_noise((24, 24), 90).convert("RGB")
    pictures = [image_file(noise, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]
    sounds = [wav(), encoded("mp3", "libmp3lame"), encoded("ogg", "libopus"), encoded("webm", "libopus")]
    for load, files in ((LOADER.picture, pictures), (LOADER.speech, [*sounds, encoded("ipod", "aac")])):
        for file in files:
            for _ in range(8):
                damaged = bytearray(file)
                for _ in range(random_bytes.choice((1, 4, 40))):
                    damaged[random_bytes.randrange(len(damaged))] = random_bytes.randrange(256)
                with contextlib.suppress(MediaError, MediaTooLarge):
                    load(of(bytes(damaged)))


async def test_only_urls_are_fetched() -> None:
    """Catches a data: URL that waits for a network, and a fetched source that keeps its URL."""
    asked: list[tuple[str, str, int]] = []

    async def fetch(url: str, param: str, limit: int) -> bytes:
        asked.append((url, param, limit))
        return b"bytes"

    loader = MediaLoader(LIMITS, fetch)
    for source in (of(b"x"), of("data:,x"), of("aHR0cDovL2E=")):
        assert await loader.fetch(source) is source
    assert await loader.fetch(of("HTTPS://host/a.png")) == of(b"bytes")
    assert asked == [("HTTPS://host/a.png", PARAM, LIMITS.bytes)]
