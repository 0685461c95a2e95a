"""Steps 2 and 8. Live sound: frames of bytes to samples, and samples to frames of bytes. No sockets, no clock.

A frame is what one message of a live wire carries: samples, or one packet of Opus.
"""

from __future__ import annotations

from typing import Literal, Protocol

import av
import numpy as np
import soxr
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

from omni_server.audio_format import RECIPES, AudioWriter, open_writer, to_pcm16
from omni_server.errors import MediaError, RequestError

Encoding = Literal["pcm16", "opus_packets", "mulaw", "alaw", "wav", "mp3", "flac", "opus", "aac"]

LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000
LONGEST_FRAME_SECONDS = 1.0
G711_RATE = 8_000
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
OPUS_BIT_RATE = 32_000
OPUS_FRAMES_PER_SECOND = 50


def check_rate(sample_rate: int, param: str) -> int:
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise RequestError(f"`{param}` is `{sample_rate}`; expected {LOWEST_RATE} to {HIGHEST_RATE}", param=param)
    return sample_rate


class FrameReader(Protocol):
    """Bytes of one frame to int16 [n] mono samples at `sample_rate`."""

    sample_rate: int

    def feed(self, frame: bytes) -> np.ndarray: ...


class PcmReader:
    """Signed 16-bit little-endian samples."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def feed(self, frame: bytes) -> np.ndarray:
        if len(frame) % 2:
            raise MediaError(f"`audio` holds `{len(frame)}` bytes; expected whole samples of 2 bytes each", param="audio")
        if len(frame) > LONGEST_FRAME_SECONDS * self.sample_rate * 2:
            raise MediaError(
                f"`audio` holds `{len(frame) / self.sample_rate / 2:.2f}` seconds; "
                f"expected frames of 0.02 to 0.06 seconds, at most {LONGEST_FRAME_SECONDS:g}",
                param="audio",
            )
        return np.frombuffer(frame, "<i2")


class OpusReader:
    """One packet of Opus a frame. Strangers' packets are read in a process of their own (packets.py), like this."""

    sample_rate = 48_000

    def __init__(self) -> None:
        codec = av.CodecContext.create("opus", "r")
        assert isinstance(codec, AudioCodecContext)
        self._codec = codec
        self._codec.layout = "mono"
        self._codec.sample_rate = self.sample_rate

    def feed(self, frame: bytes) -> np.ndarray:
        if not frame:
            return np.zeros(0, np.int16)  # an empty packet would tell FFmpeg that the stream is over
        try:
            decoded = self._codec.decode(av.Packet(frame))
        except av.error.FFmpegError as problem:
            raise MediaError(f"`audio` is not a packet of Opus: {problem}", param="audio") from None
        pieces = [piece.to_ndarray().mean(axis=0) for piece in decoded]  # float planar [channels, n]
        joined = np.concatenate([np.zeros(0, np.float32), *pieces])
        return np.round(np.clip(joined, -1.0, 1.0) * 32767.0).astype(np.int16)


class G711Reader:
    """One byte a sample, by the law of America and Japan (`mulaw`) or of the rest of the world (`alaw`)."""

    sample_rate = G711_RATE

    def __init__(self, law: Encoding) -> None:
        self._codec = _g711(law, "r")
        self._pcm = PcmReader(self.sample_rate)

    def feed(self, frame: bytes) -> np.ndarray:
        decoded = self._codec.decode(av.Packet(frame)) if frame else []
        return self._pcm.feed(b"".join(piece.to_ndarray().astype("<i2").tobytes() for piece in decoded))


def open_reader(encoding: Encoding, sample_rate: int) -> FrameReader:
    """Of sound that is plain: a table of 256 samples at most is all that is needed to read it."""
    return G711Reader(encoding) if encoding in ("mulaw", "alaw") else PcmReader(sample_rate)


class Resampler:
    """float32 [n] at one rate to float32 [m] at another; the pieces, joined, are one waveform."""

    def __init__(self, sample_rate: int, wanted: int) -> None:
        self._stream = soxr.ResampleStream(sample_rate, wanted, 1, dtype="float32") if sample_rate != wanted else None

    def feed(self, samples: np.ndarray) -> np.ndarray:
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def finish(self) -> np.ndarray:
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)


class FrameWriter:
    """float32 [n] samples of one voice at `sample_rate` to frames of bytes in the format that was asked for."""

    def __init__(self, encoding: Encoding, sample_rate: int, wanted_rate: int) -> None:
        self._resampler = Resampler(sample_rate, wanted_rate)
        self._packets = OpusPackets(wanted_rate) if encoding == "opus_packets" else None
        self._writer: AudioWriter | None = None
        if self._packets is None:
            self._writer = G711Writer(encoding) if encoding in ("mulaw", "alaw") else open_writer(encoding, wanted_rate)

    def feed(self, samples: np.ndarray) -> list[bytes]:
        return self._written(self._resampler.feed(samples))

    def finish(self) -> list[bytes]:
        frames = self._written(self._resampler.finish())
        last = self._packets.finish() if self._packets is not None else [self._writer.finish()] if self._writer else []
        return [*frames, *(frame for frame in last if frame)]

    def _written(self, samples: np.ndarray) -> list[bytes]:
        if self._packets is not None:
            return self._packets.feed(samples)
        assert self._writer is not None
        data = self._writer.feed(samples)
        return [data] if data else []


class G711Writer:
    """Samples to one byte each."""

    def __init__(self, law: Encoding) -> None:
        self._codec = _g711(law, "w")

    def feed(self, samples: np.ndarray) -> bytes:
        if not len(samples):
            return b""
        frame = AudioFrame.from_ndarray(np.frombuffer(to_pcm16(samples), "<i2")[None], format="s16", layout="mono")
        frame.sample_rate = G711_RATE
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))

    def finish(self) -> bytes:
        return b""


def _g711(law: Encoding, direction: Literal["r", "w"]) -> AudioCodecContext:
    codec = av.CodecContext.create(f"pcm_{law}", direction)
    assert isinstance(codec, AudioCodecContext)
    codec.layout = "mono"
    codec.format = "s16"
    codec.sample_rate = G711_RATE
    return codec


class OpusPackets:
    """Samples to packets of 20 ms."""

    def __init__(self, sample_rate: int) -> None:
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        self._codec = codec
        self._codec.layout = "mono"
        self._codec.format = "s16"
        self._codec.sample_rate = sample_rate
        self._codec.bit_rate = OPUS_BIT_RATE
        self._size = sample_rate // OPUS_FRAMES_PER_SECOND
        self._waiting = np.zeros(0, np.float32)
        self._sent = 0

    def feed(self, samples: np.ndarray) -> list[bytes]:
        self._waiting = np.concatenate([self._waiting, samples])
        packets: list[bytes] = []
        while len(self._waiting) >= self._size:
            packets += self._encode(self._waiting[: self._size])
            self._waiting = self._waiting[self._size :]
        return packets

    def finish(self) -> list[bytes]:
        """The rest, filled up with silence to a whole packet."""
        packets: list[bytes] = []
        if len(self._waiting):
            packets = self._encode(np.pad(self._waiting, (0, self._size - len(self._waiting))))
            self._waiting = self._waiting[:0]
        return packets + [bytes(packet) for packet in self._codec.encode(None)]

    def _encode(self, samples: np.ndarray) -> list[bytes]:
        frame = AudioFrame.from_ndarray(np.frombuffer(to_pcm16(samples), "<i2")[None], format="s16", layout="mono")
        frame.sample_rate = self._codec.sample_rate
        frame.pts = self._sent
        self._sent += len(samples)
        return [bytes(packet) for packet in self._codec.encode(frame)]


def rates_of(encoding: Encoding) -> tuple[int, ...]:
    """The only rates that this encoding has, upwards; of one that has all, none."""
    if encoding == "opus_packets":
        return OPUS_RATES
    recipe = RECIPES.get(encoding)
    known = (av.Codec(recipe.codec, "w").audio_rates or ()) if recipe is not None else ()
    return tuple(sorted(rate for rate in known if LOWEST_RATE <= rate <= HIGHEST_RATE))


def output_rate(encoding: Encoding, wanted: int, own: int, param: str) -> int:
    """The rate at which sound is sent: as wished, or the model's own, or the highest where the encoding has not that."""
    rates = rates_of(encoding)
    if wanted:
        check_rate(wanted, param)
        if rates and wanted not in rates:
            known = ", ".join(str(rate) for rate in rates)
            raise RequestError(f"`{param}` is `{wanted}`; expected one of {known} with {encoding.split('_')[0]}", param=param)
        return wanted
    return own if not rates or own in rates else HIGHEST_RATE
