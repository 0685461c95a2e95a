"""Pictures and sounds for tests, made on the spot."""

from __future__ import annotations

import io
import math
import struct
import wave

import av
import numpy as np
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


def mp4_of(seconds: float, *, sound: bool = True, picture: np.ndarray | None = None) -> bytes:
    """Frames that grow brighter, eight a second, up to `picture` (uint8 [height, width, 3]) or white; and a tone."""
    shown = np.full((48, 64, 3), 255, np.uint8) if picture is None else picture
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        pictures = container.add_stream("mpeg4", rate=8)
        pictures.height, pictures.width, pictures.pix_fmt = *shown.shape[:2], "yuv420p"
        tones = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        count = int(seconds * 8)
        for number in range(count):
            bright = (shown.astype(int) * number // count).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(bright, format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        if tones is not None:
            wave_form = np.sin(np.arange(int(seconds * 16_000)) / 16_000 * 2 * np.pi * 440).astype(np.float32) / 2
            for start in range(0, len(wave_form), 1024):
                samples = av.AudioFrame.from_ndarray(wave_form[None, start : start + 1024], format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 16_000, start
                container.mux(tones.encode(samples))
            container.mux(tones.encode(None))
    return file.getvalue()
