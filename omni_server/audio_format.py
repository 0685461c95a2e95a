"""Step 8. A waveform becomes the audio format that the client asked for, piece by piece.

State without I/O: `feed(samples) -> bytes`, `finish() -> bytes`; the bytes, joined, are one file or one stream.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, Protocol

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

MEDIA_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "pcm16": "audio/pcm",
}
UNKNOWN_LENGTH = 0xFFFFFFFF


class AudioWriter(Protocol):
    """`samples`: float32 [n] mono in -1..1."""

    def feed(self, samples: np.ndarray) -> bytes: ...
    def finish(self) -> bytes: ...


def open_writer(format: str, sample_rate: int) -> AudioWriter:
    if format == "pcm16":
        return Pcm16()
    if format == "wav":
        return StreamedWav(sample_rate)
    return Encoded(format, sample_rate)


def encode(format: str, samples: np.ndarray, sample_rate: int) -> bytes:
    """The whole file at once. A wav then has true lengths in its header, which a streamed one cannot have."""
    if format == "wav":
        pcm = to_pcm16(samples)
        return wav_header(sample_rate, len(pcm)) + pcm
    writer = open_writer(format, sample_rate)
    return writer.feed(samples) + writer.finish()


def to_pcm16(samples: np.ndarray) -> bytes:
    """int16 little-endian; full scale is 32767 on both sides, so no sample wraps around."""
    return np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()


def wav_header(sample_rate: int, size: int | None) -> bytes:
    """44 bytes before `size` bytes of mono 16-bit samples; `None` marks a stream, whose length nobody knows yet."""
    riff_size = UNKNOWN_LENGTH if size is None else 36 + size
    data_size = UNKNOWN_LENGTH if size is None else size
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, sample_rate * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE") + layout + struct.pack("<4sI", b"data", data_size)


class Pcm16:
    def feed(self, samples: np.ndarray) -> bytes:
        return to_pcm16(samples)

    def finish(self) -> bytes:
        return b""


class StreamedWav:
    def __init__(self, sample_rate: int) -> None:
        self._header = wav_header(sample_rate, None)

    def feed(self, samples: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + to_pcm16(samples)

    def finish(self) -> bytes:
        return self.feed(np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How FFmpeg makes one format. The options leave out whatever could only be written by seeking back."""

    container: str
    codec: str
    sample_format: str
    bit_rate: int | None
    options: dict[str, str]


RECIPES = {
    "mp3": Recipe("mp3", "libmp3lame", "fltp", 128_000, {"write_xing": "0", "id3v2_version": "0"}),
    "flac": Recipe("flac", "flac", "s16", None, {}),
    "opus": Recipe("ogg", "libopus", "flt", 64_000, {"page_duration": "20000"}),
    "aac": Recipe("adts", "aac", "fltp", 96_000, {}),
}


class _Outlet(io.RawIOBase):
    """What FFmpeg writes to; it cannot seek, so a container is written front to back."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece: object) -> int:
        view = memoryview(piece)  # type: ignore[arg-type]
        self.written += view
        return view.nbytes

    def take(self) -> bytes:
        taken, self.written = bytes(self.written), bytearray()
        return taken


class Encoded:
    """One of `RECIPES`, by PyAV."""

    def __init__(self, format: str, sample_rate: int) -> None:
        self._recipe = RECIPES[format]
        self._sample_rate = sample_rate
        self._outlet = _Outlet()
        # bitexact: no random serial numbers, so the same reply is the same file.
        options = {**self._recipe.options, "flush_packets": "1", "fflags": "+bitexact"}
        self._container = av.open(self._outlet, "w", format=self._recipe.container, container_options=options)
        stream = self._container.add_stream(self._recipe.codec, rate=sample_rate)
        assert isinstance(stream, AudioStream)
        stream.codec_context.layout = "mono"
        stream.codec_context.format = self._recipe.sample_format
        if self._recipe.bit_rate is not None:
            stream.codec_context.bit_rate = self._recipe.bit_rate
        self._stream = stream
        self._fed = 0  # samples, the clock of the stream

    def feed(self, samples: np.ndarray) -> bytes:
        if len(samples):
            for packet in self._stream.encode(self._frame(samples)):
                self._container.mux(packet)
        return self._outlet.take()

    def finish(self) -> bytes:
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._outlet.take()

    def _frame(self, samples: np.ndarray) -> AudioFrame:
        plane: Any
        if self._recipe.sample_format == "s16":
            plane = np.frombuffer(to_pcm16(samples), np.int16)[None]
        else:
            plane = np.clip(samples, -1.0, 1.0).astype(np.float32)[None]
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(plane), self._recipe.sample_format, "mono")
        frame.sample_rate = self._sample_rate
        frame.pts = self._fed
        self._fed += len(samples)
        return frame
