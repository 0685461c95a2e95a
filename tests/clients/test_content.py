"""What may be handed in, and what goes over the wire for it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from omni_client import Audio, MediaError, Message, Picture, Reply
from omni_client.content import recording, wire_messages
from tests.media_samples import png_of, wav_of_tone

IMAGE = PIL.Image.new("RGB", (8, 6), "red")
PNG, WAV = png_of(IMAGE), wav_of_tone(0.2)


def one_part(content: Any) -> dict[str, Any]:
    (message,) = wire_messages(content)
    (part,) = message["content"]
    return part


@pytest.mark.parametrize("given", ["bytes", "path", "picture", "pil", "list"])
def test_pictures(given: str, tmp_path: Path) -> None:
    """Catches a kind of picture that is taken for words or for a recording."""
    path = tmp_path / "fox"
    path.write_bytes(PNG)
    forms = {"bytes": PNG, "path": path, "picture": Picture(PNG), "pil": IMAGE, "list": [PNG]}
    part = one_part(forms[given])
    assert part["type"] == "image_url"
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    assert PIL.Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("given", ["bytes", "path", "audio", "waveform", "list"])
def test_recordings(given: str, tmp_path: Path) -> None:
    """Catches a waveform whose rate is lost, or that is taken for a list of parts."""
    path = tmp_path / "hi"
    path.write_bytes(WAV)
    waveform = (Audio(WAV).waveform, 16_000)
    forms = {"bytes": WAV, "path": path, "audio": Audio(WAV), "waveform": waveform, "list": [waveform]}
    part = one_part(forms[given])
    assert part["input_audio"]["format"] == "wav"
    assert Audio(base64.b64decode(part["input_audio"]["data"])).sample_rate == 16_000


def test_words_and_turns() -> None:
    """Catches a path that is read because a user happened to say its name, and turns that lose their order or role."""
    assert wire_messages("pyproject.toml") == [{"role": "user", "content": "pyproject.toml"}]
    earlier = Reply("A fox.", pictures=(Picture(PNG),))
    messages = wire_messages(
        [Message("user", ["look", IMAGE]), earlier, {"role": "user", "content": ("and", PNG), "name": "me"}], system="Be brief."
    )
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert [part["type"] for part in messages[1]["content"]] == ["text", "image_url"]
    assert messages[2]["content"] == "A fox."
    assert messages[2]["images"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert messages[3]["name"] == "me"
    assert [part["type"] for part in messages[3]["content"]] == ["text", "image_url"]
    assert [message["role"] for message in wire_messages(["draw a fox", earlier, IMAGE])] == ["user", "assistant", "user"]
    assert wire_messages([{"type": "text", "text": "as it is"}]) == [
        {"role": "user", "content": [{"type": "text", "text": "as it is"}]}
    ]


@pytest.mark.parametrize("content", [3, [3], [Message("user", "a"), 3], [], [b"\x00\x01\x02"], Path("nowhere.png")])
def test_what_cannot_be_sent_is_told(content: Any) -> None:
    """Catches a TypeError from deep inside, or a wrong request that is found out only on the server."""
    with pytest.raises(MediaError):
        wire_messages(content)


def test_what_transcribe_takes(tmp_path: Path) -> None:
    """Catches a kind of recording that is refused; here, unlike in a conversation, a string is a path."""
    path = tmp_path / "hi.wav"
    path.write_bytes(WAV)
    for given in (WAV, path, str(path), Audio(WAV), io.BytesIO(WAV), (np.frombuffer(WAV[44:], "<i2"), 16_000)):
        assert recording(given).data == WAV  # type: ignore[arg-type]
    for wrong in (3, PNG, str(tmp_path / "nothing.wav")):
        with pytest.raises(MediaError):
            recording(wrong)  # type: ignore[arg-type]
