"""Step 2. A client's bytes, data: URLs, base64 and URLs become pictures and 16 kHz waveforms, within limits.

Knows nothing about models. Nothing is trusted: the kind of file is read from its bytes, never from its declared type,
and a limit is checked before the work that it limits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import struct
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import unquote_to_bytes

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import soxr
from av.audio.frame import AudioFrame

from omni_server.config import MediaLimits
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.types import MediaSource, Picture, Speech, Video
from omni_server.video import holds_sound, read_video
from omni_server.wording import shown

SAMPLE_RATE = 16_000
SHORTEST_SECONDS = 0.1
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# What Pillow's readers raise on damaged files, beside its own errors.
PICTURE_FAULTS = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)

Fetch = Callable[[str, str, int], Awaitable[bytes]]


class MediaLoader:
    """Reads media within `limits`. `fetch(url, param, limit)` brings the bytes of an http(s) URL."""

    def __init__(self, limits: MediaLimits, fetch: Fetch) -> None:
        self._limits = limits
        self._fetch = fetch

    async def fetch(self, source: MediaSource) -> MediaSource:
        """Brings the bytes of an http(s) URL: the only part of loading that waits for a network."""
        if source.url is None or not source.url[:8].lower().startswith(("http://", "https://")):
            return source
        return replace(source, data=await self._fetch(source.url, source.param, self._limits.bytes), url=None)

    def picture(self, source: MediaSource) -> Picture:
        data = self._bytes(source)
        param = source.param
        try:
            with PIL.Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as opened:
                if opened.width * opened.height > self._limits.pixels:
                    raise MediaTooLarge(
                        f"`{param}` is a picture of `{opened.width}x{opened.height}` pixels; "
                        f"expected at most {self._limits.pixels} in all",
                        param=param,
                    )
                opened.load()  # an animation stays at its first frame
                image = _on_white(PIL.ImageOps.exif_transpose(opened))
        except PIL.UnidentifiedImageError:
            raise MediaError(
                f"`{param}` is not a picture that can be read; expected png, jpeg, webp, gif or bmp, "
                f"got bytes that begin with {shown(data[:12])}",
                param=param,
            ) from None
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            raise MediaTooLarge(f"`{param}` is a picture of more than {self._limits.pixels} pixels", param=param) from None
        except PICTURE_FAULTS as problem:
            raise MediaError(f"`{param}` is a damaged picture: {problem}", param=param) from None
        digest = hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()
        return Picture(image, digest)

    def speech(self, source: MediaSource) -> Speech:
        data = self._bytes(source)
        param = source.param
        try:
            with av.open(io.BytesIO(data), "r", format=_container_of(data, param)) as container:
                waveform, sample_rate = self._decode(container, param)
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
        waveform = np.clip(waveform, -1.0, 1.0).astype(np.float32)
        return Speech(waveform, SAMPLE_RATE, hashlib.sha256(waveform.tobytes()).hexdigest())

    def video(self, source: MediaSource, pace: float, most_frames: int, *, hears: bool) -> Video:
        """Frames at `pace` a second, `most_frames` at most, and the sound beside them where the model `hears` it."""
        data = self._bytes(source)
        sound = None
        if hears and holds_sound(data, source.param):
            sound = self.speech(MediaSource(source.param, data=data))
        return read_video(data, source.param, pace, most_frames, self._limits, sound)

    def _decode(self, container: av.container.InputContainer, param: str) -> tuple[np.ndarray, int]:
        """The first audio stream as float32 [n] at its own rate. Stops as soon as the limit of seconds is passed."""
        if not container.streams.audio:
            raise MediaError(f"`{param}` holds no audio", param=param)
        stream = container.streams.audio[0]
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
                if size > self._limits.seconds * sample_rate:
                    raise MediaTooLarge(f"`{param}` is longer than {self._limits.seconds:g} seconds of audio", param=param)
        if bad and bad >= good:
            raise MediaError(f"`{param}` is damaged audio: {bad} of {bad + good} packets are unreadable", param=param)
        if size == 0:
            raise MediaError(f"`{param}` holds no samples; expected at least {SHORTEST_SECONDS} seconds", param=param)
        return np.concatenate(pieces), sample_rate

    def _bytes(self, source: MediaSource) -> bytes:
        """The file itself. `source.url` is a data: URL or bare base64 by now; http(s) went through `fetch`."""
        data = source.data if source.data is not None else self._from_text(source.url or "", source.param)
        if not data:
            raise MediaError(f"`{source.param}` is empty; expected a file, a data: URL or base64", param=source.param)
        self._check_size(len(data), source.param)
        return data

    def _from_text(self, text: str, param: str) -> bytes:
        payload, is_base64 = text, True
        if text[:5].lower() == "data:":
            header, comma, payload = text.partition(",")
            is_base64 = header.lower().endswith(";base64")
            if not comma:
                raise MediaError(f"`{param}`: expected `data:…;base64,…`, got {shown(text)}", param=param)
        elif "://" in text[:32]:
            raise MediaError(f"`{param}`: expected a data:, http: or https: URL, got {shown(text)}", param=param)
        self._check_size(len(payload) * 3 // 4 - 2, param)
        if not is_base64:
            return unquote_to_bytes(payload)
        return _from_base64(payload, param)

    def _check_size(self, size: int, param: str) -> None:
        if size > self._limits.bytes:
            raise MediaTooLarge(f"`{param}` holds `{size}` bytes; expected at most {self._limits.bytes}", param=param)


def _from_base64(text: str, param: str) -> bytes:
    """Plain or URL-safe base64, with or without padding and line breaks."""
    letters = "".join(text.split()).replace("-", "+").replace("_", "/").replace("%3D", "=").rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise MediaError(f"`{param}`: expected base64, a data: URL or an http(s) URL, got {shown(text)}", param=param) from None


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
    """FFmpeg's name of the container. Chosen from a short list: playlist formats would make FFmpeg open other files."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"fLaC":
        return "flac"
    if data[:4] == b"OggS":
        return "ogg"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[4:8] == b"ftyp":
        return "mov"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    if data[:3] == b"FLV":
        return "flv"
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
