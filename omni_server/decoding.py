"""Step 2. Strangers' bytes become pixels, waveforms and frames, within limits. Knows no model, no network and no process.

Nothing is trusted: the kind of file is read from its bytes, never from its declared type, and a limit is checked before the
work that it limits.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import Protocol

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import soxr
from av.audio.frame import AudioFrame

from omni_server.config import MediaLimits
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.video import Frames, film_container, read_frames
from omni_server.wording import shown

SAMPLE_RATE = 16_000
SHORTEST_SECONDS = 0.1
MOST_CHANNELS = 32
# A picture may have few pixels, or it may have many in a file that shows it: a few hundred bytes can hold the largest one.
SMALL_PIXELS = 4_000_000
MOST_EXPANSION = 1_000  # bytes of pixels for each byte of the file
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# What Pillow's readers raise on damaged files, beside its own errors.
PICTURE_FAULTS = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


class Decoding(Protocol):
    """Each raises MediaError or MediaTooLarge, which name `param`."""

    def picture(self, data: bytes, param: str, limits: MediaLimits) -> PIL.Image.Image:
        """RGB, upright."""
        ...

    def speech(self, data: bytes, param: str, limits: MediaLimits) -> np.ndarray:
        """float32 [n] mono in -1..1 at SAMPLE_RATE."""
        ...

    def video(self, data: bytes, param: str, limits: MediaLimits, pace: float, most_frames: int, hears: bool) -> Frames:
        """At `pace` a second, `most_frames` at most, and the sound beside them where it is to be heard."""
        ...


class HereDecoding:
    """In this very process. What strangers send is decoded in a process of its own, which does it like this."""

    def picture(self, data: bytes, param: str, limits: MediaLimits) -> PIL.Image.Image:
        try:
            with PIL.Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as opened:
                pixels = opened.width * opened.height
                if pixels > limits.pixels:
                    raise MediaTooLarge(
                        f"`{param}` is a picture of `{opened.width}x{opened.height}` pixels; "
                        f"expected at most {limits.pixels} in all",
                        param=param,
                    )
                if pixels > max(SMALL_PIXELS, len(data) * MOST_EXPANSION // 3):
                    told = f"`{param}` is a picture of `{pixels}` pixels in `{len(data)}` bytes; expected less to come of less"
                    raise MediaTooLarge(told, param=param)
                opened.load()  # an animation stays at its first frame
                return _on_white(PIL.ImageOps.exif_transpose(opened))
        except PIL.UnidentifiedImageError:
            raise MediaError(
                f"`{param}` is not a picture that can be read; expected png, jpeg, webp, gif or bmp, "
                f"got bytes that begin with {shown(data[:12])}",
                param=param,
            ) from None
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            raise MediaTooLarge(f"`{param}` is a picture of more than {limits.pixels} pixels", param=param) from None
        except PICTURE_FAULTS as problem:
            raise MediaError(f"`{param}` is a damaged picture: {problem}", param=param) from None

    def speech(self, data: bytes, param: str, limits: MediaLimits) -> np.ndarray:
        try:
            with av.open(io.BytesIO(data), "r", format=_container_of(data, param)) as container:
                waveform, sample_rate = _samples(container, param, limits)
        except (av.error.FFmpegError, ValueError, UnicodeError) as problem:
            raise MediaError(f"`{param}` is damaged audio: {problem}", param=param) from None
        if not np.isfinite(waveform).all():
            raise MediaError(f"`{param}` holds samples that are not numbers", param=param)
        if len(waveform) < SHORTEST_SECONDS * sample_rate:
            raise MediaError(
                f"`{param}` holds `{len(waveform) / sample_rate:.3f}` seconds of audio; expected at least {SHORTEST_SECONDS}",
                param=param,
            )
        if sample_rate != SAMPLE_RATE:
            waveform = soxr.resample(waveform, sample_rate, SAMPLE_RATE)
        return np.clip(waveform, -1.0, 1.0).astype(np.float32)

    def video(self, data: bytes, param: str, limits: MediaLimits, pace: float, most_frames: int, hears: bool) -> Frames:
        film = read_frames(data, param, pace, most_frames, limits)
        if not hears or not film.sounds:
            return film
        return replace(film, sound=self.speech(data, param, limits))


def _samples(container: av.container.InputContainer, param: str, limits: MediaLimits) -> tuple[np.ndarray, int]:
    """The first audio stream as float32 [n] at its own rate. Stops as soon as the limit of seconds is passed."""
    if not container.streams.audio:
        raise MediaError(f"`{param}` holds no audio", param=param)
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise MediaError(f"`{param}` holds sound in a form that cannot be read", param=param)
    if (channels := stream.codec_context.channels) > MOST_CHANNELS:
        raise MediaTooLarge(f"`{param}` has `{channels}` channels; expected at most {MOST_CHANNELS}", param=param)
    sample_rate, size, pieces, good, bad = 0, 0, [np.zeros(0, np.float32)], 0, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
            good += packet.size > 0  # the last packet is empty and only flushes the decoder
        except av.error.InvalidDataError:  # cut recordings begin or end inside a packet
            bad += 1
            continue
        for frame in frames:
            sample_rate = sample_rate or _checked_rate(frame.sample_rate, param)
            if frame.sample_rate != sample_rate:
                raise MediaError(f"`{param}` changes its sample rate midway", param=param)
            pieces.append(_mono(frame))
            size += frame.samples
            if size > limits.seconds * sample_rate:
                raise MediaTooLarge(f"`{param}` is longer than {limits.seconds:g} seconds of audio", param=param)
    if bad and bad >= good:
        raise MediaError(f"`{param}` is damaged audio: {bad} of {bad + good} packets are unreadable", param=param)
    if size == 0:
        raise MediaError(f"`{param}` holds no samples; expected at least {SHORTEST_SECONDS} seconds", param=param)
    return np.concatenate(pieces), sample_rate


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    """RGB. Transparency lies on white; 16-bit greys keep their high byte, where Pillow's own conversion would clip."""
    if image.mode.startswith("I"):
        high_byte = np.asarray(image).astype(np.uint32) >> 8  # [height, width]
        image = PIL.Image.fromarray(high_byte.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return image.convert("RGB")


def _container_of(data: bytes, param: str) -> str:
    """FFmpeg's name of the container, from a short list as `film_container` is."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"fLaC":
        return "flac"
    if data[:4] == b"OggS":
        return "ogg"
    if (found := film_container(data)) is not None:
        return found
    if data[:3] == b"ID3":
        return "mp3"
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "aac" if data[1] & 0x06 == 0 else "mp3"  # the layer bits are 0 in AAC only
    raise MediaError(
        f"`{param}` is not audio that can be read; expected wav, mp3, flac, ogg, opus, webm, m4a or aac, "
        f"got bytes that begin with {shown(data[:12])}",
        param=param,
    )


def _checked_rate(sample_rate: int, param: str) -> int:
    if not 1_000 <= sample_rate <= 384_000:
        raise MediaError(f"`{param}` has a sample rate of `{sample_rate}`; expected 1000 to 384000", param=param)
    return sample_rate


def _mono(frame: AudioFrame) -> np.ndarray:
    """float32 [n]: the mean of the channels, whatever the frame's sample format."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    floats = samples.astype(np.float32).mean(axis=0)  # [n]
    if samples.dtype == np.uint8:
        floats = (floats - 128.0) / 128.0
    elif samples.dtype.kind == "i":
        floats = floats / (1 << (8 * samples.dtype.itemsize - 1))
    return np.asarray(floats, np.float32)
