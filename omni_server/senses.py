"""Step 3. One modality's continuous encoder and discrete codebook side by side, in one lane, with a memory of what was met.

The memory is keyed by the medium's own digest: the same picture twice is encoded once, and carries the same key into the
engine's prefix cache.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from omni_server.interfaces import Codebook, Encoder
from omni_server.lanes import Lane
from omni_server.types import Encoding, Modality, Picture, Speech


class Sense:
    """Turns a Picture or a Speech into an Encoding. `capacity` is how many encodings are remembered."""

    def __init__(self, modality: Modality, encoder: Encoder[Any], codebook: Codebook[Any], capacity: int = 256) -> None:
        self.lane = Lane(f"encode-{modality}")
        self.encoded = 0  # how often the models really ran
        self._modality = modality
        self._encoder = encoder
        self._codebook = codebook
        self._capacity = capacity
        self._memory: OrderedDict[str, Encoding] = OrderedDict()

    async def encode(self, media: Picture | Speech) -> Encoding:
        # The look-up runs in the lane too, so two requests with one new picture cannot both miss.
        return await self.lane.run(self._remembered, media)

    def _remembered(self, media: Picture | Speech) -> Encoding:
        known = self._memory.get(media.digest)
        if known is None:
            known = self._memory[media.digest] = self._encode(media)
            if len(self._memory) > self._capacity:
                self._memory.popitem(last=False)
        self._memory.move_to_end(media.digest)
        return known

    def _encode(self, media: Picture | Speech) -> Encoding:
        self.encoded += 1
        match media:
            case Picture(image=image):
                plain: Any = image
                aspect = image.width / image.height
            case Speech(waveform=waveform):
                plain, aspect = waveform, 1.0
        embeddings = self._encoder.encode(plain)  # [n, hidden]
        codes = self._codebook.encode(plain)
        return Encoding(self._modality, media.digest, embeddings, tuple(codes), aspect)
