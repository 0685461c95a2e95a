"""Step 2. A client's bytes, data: URLs, base64 and URLs become pictures and 16 kHz waveforms, within limits.

Knows nothing about models, nor how bytes are decoded; what comes out is named by the digest of its content.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import unquote_to_bytes

import numpy as np

from omni_server.config import MediaLimits
from omni_server.decoding import SAMPLE_RATE, Decoding, HereDecoding
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.types import MediaSource, Picture, Speech, Video
from omni_server.wording import shown

Fetch = Callable[[str, str, int], Awaitable[bytes]]


class MediaLoader:
    """Reads media within `limits`. `fetch(url, param, limit)` brings the bytes of an http(s) URL; `decoding` reads them."""

    def __init__(self, limits: MediaLimits, fetch: Fetch, decoding: Decoding | None = None) -> None:
        self._limits = limits
        self._fetch = fetch
        self._decoding = decoding or HereDecoding()

    async def fetch(self, source: MediaSource) -> MediaSource:
        """Brings the bytes of an http(s) URL: the only part of loading that waits for a network."""
        if source.url is None or not source.url[:8].lower().startswith(("http://", "https://")):
            return source
        return replace(source, data=await self._fetch(source.url, source.param, self._limits.bytes), url=None)

    def picture(self, source: MediaSource) -> Picture:
        image = self._decoding.picture(self._bytes(source), source.param, self._limits)
        digest = hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()
        return Picture(image, digest)

    def speech(self, source: MediaSource) -> Speech:
        return _speech(self._decoding.speech(self._bytes(source), source.param, self._limits))

    def video(self, source: MediaSource, pace: float, most_frames: int, *, hears: bool) -> Video:
        """Frames at `pace` a second, `most_frames` at most, and the sound beside them where the model `hears` it."""
        film = self._decoding.video(self._bytes(source), source.param, self._limits, pace, most_frames, hears)
        sound = _speech(film.sound) if film.sound is not None else None
        digest = hashlib.sha256(np.ascontiguousarray(film.frames).data)
        digest.update(sound.digest.encode() if sound else b"")
        return Video(film.frames, film.pace, digest.hexdigest(), sound)

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


def _speech(waveform: np.ndarray) -> Speech:
    return Speech(waveform, SAMPLE_RATE, hashlib.sha256(np.ascontiguousarray(waveform).data).hexdigest())
