"""Pictures and recordings: read from bytes, handed on as pixels and samples, saved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from omni_client import Audio, MediaError, Picture, Reply
from omni_client.media import sniff
from omni_server.audio_format import encode
from tests.media_samples import png_of, wav_of_tone
from tests.rest.scripts import SAMPLE_RATE, tone

RED = png_of(PIL.Image.new("RGB", (8, 6), "red"))


@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "opus", "aac"])
def test_recordings_are_told_by_their_bytes(format: str) -> None:
    """Catches a file that goes out under the wrong name, which some servers then refuse."""
    kind, found = sniff(encode(format, tone(0.3), SAMPLE_RATE), "it")
    assert (kind, found) == ("audio", "ogg" if format == "opus" else format)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "gif", "bmp"])
def test_pictures_are_told_by_their_bytes(format: str, tmp_path: Path) -> None:
    """Catches a suffix that is believed."""
    path = tmp_path / "misnamed.txt"
    PIL.Image.new("RGB", (8, 6), "red").save(path, format.upper())
    picture = Picture.open(path)
    assert picture.format == format
    assert picture.image.size == (8, 6)


def test_saving_a_picture(tmp_path: Path) -> None:
    """Catches a PNG under a name that says JPEG, and a name without a suffix."""
    picture = Picture.from_bytes(RED)
    assert picture.save(tmp_path / "fox").name == "fox.png"
    assert (tmp_path / "fox.png").read_bytes() == RED
    assert Picture.open(picture.save(tmp_path / "fox.JPG")).format == "jpeg"
    with pytest.raises(MediaError, match=r"`\.wav`"):
        picture.save(tmp_path / "fox.wav")


def test_saving_a_voice(tmp_path: Path) -> None:
    """Catches an MP3 in a file called WAV."""
    audio = Audio.from_pcm(b"\x00\x40" * 2400, 24_000, "hi")
    assert audio.save(tmp_path / "hi").read_bytes() == audio.data
    assert (audio.seconds, audio.sample_rate, audio.transcript) == (0.1, 24_000, "hi")
    with pytest.raises(MediaError, match="ask for that format"):
        audio.save(tmp_path / "hi.mp3")
    with pytest.raises(MediaError, match="expected `wav`"):
        _ = Audio(b"\xff\xfb", "mp3").waveform


def test_saving_a_reply(tmp_path: Path) -> None:
    """Catches a second picture that takes the name of the first, and `fox.png.png`."""
    reply = Reply("hi", (Picture(RED), Picture(RED)), Audio.from_pcm(b"\0\0", 24_000))
    for stem, names in (
        ("new/fox", ["fox.png", "fox-2.png", "fox.wav"]),
        ("fox.JPG", ["fox.png", "fox-2.png", "fox.wav"]),
        ("v1.5", ["v1.5.png", "v1.5-2.png", "v1.5.wav"]),
    ):
        saved = reply.save(tmp_path / stem)
        assert [path.name for path in saved] == names
        assert all(path.parent == (tmp_path / stem).parent and path.exists() for path in saved)
    assert Reply("hi").save(tmp_path / "none") == []


@pytest.mark.parametrize("shape", [(480,), (480, 1), (480, 2)])
@pytest.mark.parametrize("kind", ["float32", "float64", "int16"])
def test_a_waveform_there_and_back(shape: tuple[int, ...], kind: str) -> None:
    """Catches samples that wrap around, channels that are played one after another, and a scale of its own."""
    line = np.linspace(-1, 1, 480)
    samples: Any = np.broadcast_to(line.reshape(480, *([1] * (len(shape) - 1))), shape)
    samples = np.round(samples * 32767).astype("int16") if kind == "int16" else samples.astype(kind)
    audio = Audio.from_waveform(samples, 16_000)
    assert audio.waveform.dtype == np.float32
    assert np.abs(audio.waveform - line).max() < 1e-4
    assert np.abs(Audio.from_waveform([-3.0, 3.0], 8000).waveform).tolist() == [1.0, 1.0]


def test_bad_waveforms_are_told() -> None:
    """Catches noise at full volume, out of samples whose scale is only guessed."""
    for samples, words in ((np.zeros((2, 480)), "shape"), (np.zeros(9, np.int32), "int32"), ([float("nan")], "not numbers")):
        with pytest.raises(MediaError, match=words):
            Audio.from_waveform(samples, 16_000)


def test_the_wrong_kind_is_told(tmp_path: Path) -> None:
    """Catches a picture that is sent as a recording, and a file that is neither."""
    with pytest.raises(MediaError, match="is a picture"):
        Audio.from_bytes(RED)
    with pytest.raises(MediaError, match="is a recording"):
        Picture.from_bytes(wav_of_tone())
    with pytest.raises(MediaError, match="hello"):
        Picture.from_bytes(b"hello there")
    with pytest.raises(MediaError, match=r"nothing\.png"):
        Picture.open(tmp_path / "nothing.png")


def test_the_sdk_needs_httpx_alone() -> None:
    """Catches an import that drags a model, a web framework or gRPC into a client's program."""
    heavy = ("torch", "numpy", "PIL", "grpc", "google.protobuf", "pydantic", "fastapi", "vllm", "omni_server", "openai")
    code = f"import sys, omni_client, omni_client.cli; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root / "clients")
    assert done.stdout.strip() == "[]"
