"""Step 3. One modality's continuous encoder and discrete codebook side by side, in one lane, with a memory of what was met.

The memory is keyed by the medium's own digest: the same picture twice is encoded once, and carries the same key into the
engine's prefix cache.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

import numpy as np
import PIL.Image
import torch

from omni_server.breaker import STAGE_SECONDS, Breaker
from omni_server.decoding import SAMPLE_RATE
from omni_server.errors import EncodeFailed, OmniError
from omni_server.interfaces import Codebook, Encoder
from omni_server.lanes import Lane
from omni_server.types import Encoding, Modality, Picture, Speech, Video

Media = Picture | Speech | Video

MOST_BYTES = 256 << 20  # a picture of many pixels is a quarter of this to a large model


class Sense:
    """Turns a Picture or a Speech into an Encoding. At most `capacity` of them are remembered, and MOST_BYTES of them."""

    def __init__(
        self,
        modality: Modality,
        encoder: Encoder[Any],
        codebook: Codebook[Any] | None,
        capacity: int = 256,
        seconds: float = STAGE_SECONDS,
    ) -> None:
        """`seconds`: the limit of one call of the models."""
        self.breaker = Breaker(f"reading `{modality}`", Lane(f"encode-{modality}", seconds=seconds), self._probe)
        self.asked = 0
        self.encoded = 0  # how often the models really ran
        self._modality = modality
        self._encoder = encoder
        self._codebook = codebook
        self._capacity = capacity
        self._memory: OrderedDict[str, Encoding] = OrderedDict()  # the one used last comes last
        self._bytes = 0

    async def encode(self, media: Media) -> Encoding:
        self.asked += 1
        # The look-up runs in the lane too, so two requests with one new picture cannot both miss.
        try:
            return await self.breaker.run(self._remembered, media)
        except OmniError:
            raise
        except Exception as fault:
            raise EncodeFailed(f"the {self._modality} could not be encoded: {fault}") from fault

    def _remembered(self, media: Media) -> Encoding:
        known = self._memory.get(media.digest)
        if known is None:
            self.encoded += 1
            known = self._memory[media.digest] = self._checked(self._encode(media))
            self._bytes += _bytes_of(known)
            while len(self._memory) > self._capacity or self._bytes > MOST_BYTES:
                self._bytes -= _bytes_of(self._memory.popitem(last=False)[1])
            return known
        self._memory.move_to_end(media.digest)
        return known

    def _encode(self, media: Media) -> Encoding:
        match media:
            case Picture(image=image):
                plain: Any = image
                aspect, seconds = image.width / image.height, 0.0
            case Speech(waveform=waveform):
                plain, aspect, seconds = waveform, 1.0, media.seconds
            case _:
                raise TypeError(f"a sense of {self._modality} cannot take `{type(media).__name__}`")
        embeddings = self._encoder.encode(plain)  # [n, hidden]
        codes = self._codebook.encode(plain) if self._codebook is not None else ()
        return Encoding(self._modality, media.digest, embeddings, tuple(codes), aspect, seconds)

    def _checked(self, encoding: Encoding) -> Encoding:
        """What is remembered is given to every later request, so it is looked at once."""
        embeddings, size = encoding.embeddings, self._codebook.size if self._codebook is not None else 0
        if embeddings.ndim != 2 or not len(embeddings) or not torch.isfinite(embeddings).all():
            raise ValueError(f"the encoder made embeddings of shape `{tuple(embeddings.shape)}` or not of numbers")
        if encoding.codes and not 0 <= min(encoding.codes) <= max(encoding.codes) < size:
            raise ValueError(f"the codebook made codes that are not all in 0 to `{size - 1}`")
        return encoding

    def _probe(self, hung: bool) -> None:
        self._checked(self._encode(self._known()))

    def _known(self) -> Media:
        """What the models must be able to encode."""
        if self._modality is Modality.IMAGE:
            return Picture(PIL.Image.new("RGB", (64, 64)), "probe")
        return Speech(np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE, "probe")


def _bytes_of(encoding: Encoding) -> int:
    """What it keeps in memory: a tensor may be a part of a larger one."""
    return encoding.embeddings.untyped_storage().nbytes() + (_bytes_of(encoding.sound) if encoding.sound is not None else 0)


class FrameEncoder(Protocol):
    """Looks at frames; `pace` and `most_frames` are how many it wants to see."""

    pace: float
    most_frames: int

    def encode_video(self, frames: np.ndarray) -> torch.Tensor: ...


class Compressor(Protocol):
    def compress(self, frames: torch.Tensor) -> torch.Tensor: ...


class VideoSense(Sense):
    """Frames by the picture's encoder; the sound, where there are ears and a compressor for it, beside them."""

    def __init__(
        self,
        frames: FrameEncoder,
        ears: Encoder[Any] | None,
        compressor: Compressor | None,
        capacity: int = 16,
        seconds: float = STAGE_SECONDS,
    ) -> None:
        super().__init__(Modality.VIDEO, _Blind(), None, capacity, seconds)
        self.pace, self.most_frames = frames.pace, frames.most_frames
        self.hears = ears is not None and compressor is not None
        self._frames, self._ears, self._compressor = frames, ears, compressor

    def _known(self) -> Media:
        return Video(np.zeros((2, 64, 64, 3), np.uint8), self.pace, "probe")

    def _encode(self, media: Media) -> Encoding:
        if not isinstance(media, Video):
            raise TypeError(f"a sense of video cannot take `{type(media).__name__}`")
        sound = None
        if media.sound is not None and self._ears is not None and self._compressor is not None:
            compressed = self._compressor.compress(self._ears.encode(media.sound.waveform))  # [seconds, hidden]
            sound = Encoding(Modality.AUDIO, f"{media.digest}:sound", compressed, (), seconds=media.sound.seconds)
        embeddings = self._frames.encode_video(media.frames)  # [n, hidden]
        return Encoding(Modality.VIDEO, media.digest, embeddings, (), seconds=media.seconds, sound=sound)


class _Blind:
    """A video has no encoder of its own."""

    def encode(self, media: Any) -> torch.Tensor:
        raise TypeError("a video is encoded by its frames")
