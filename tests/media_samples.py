"""Pictures and sounds for tests, made on the spot."""

from __future__ import annotations

import io
import math
import struct
import wave

import PIL.Image


def png_of(image: PIL.Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def wav_of_tone(seconds: float = 0.5, frequency: float = 220.0, sample_rate: int = 16000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        count = int(seconds * sample_rate)
        tone = (int(8000 * math.sin(2 * math.pi * frequency * n / sample_rate)) for n in range(count))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in tone))
    return out.getvalue()
