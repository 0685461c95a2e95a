"""Step 7. One modality's decoder in its lane, watched: what it makes is checked, and where it hung it is loaded anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from omni_server.breaker import STAGE_SECONDS, Breaker
from omni_server.interfaces import Decoder, Incremental, PictureStep, Stepwise
from omni_server.lanes import Lane
from omni_server.types import DecodeOptions, Modality

PROBE_UNITS = 8  # of speech


class Maker:
    """Spans are opened here; `made` runs one call of an open span."""

    def __init__(
        self,
        modality: Modality,
        decoder: Decoder[Any],
        picture_codes: int = 0,
        load: Callable[[], Decoder[Any]] | None = None,
        seconds: float = STAGE_SECONDS,
    ) -> None:
        """`picture_codes`: how many a picture has. `load` makes the decoder once more; `seconds` is the limit of one call."""
        self._modality, self._decoder, self._load = modality, decoder, load
        self._codes = picture_codes if modality is Modality.IMAGE else PROBE_UNITS
        self.spans_at_once = int(getattr(decoder, "spans_at_once", 1))
        lane = Lane(f"decode-{modality}", workers=self.spans_at_once, seconds=seconds)
        self.breaker = Breaker(f"making `{modality}`", lane, self._probe)

    async def open(self, options: DecodeOptions) -> Incremental[Sequence[int], Any]:
        return await self.breaker.run(lambda: self._decoder.open(options))

    async def made(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self.breaker.run(self._checked, work, *arguments)

    def _checked(self, work: Callable[..., Any], *arguments: Any) -> Any:
        outputs = work(*arguments)
        for output in outputs or ():
            if self._modality is Modality.AUDIO and not np.isfinite(output).all():
                raise ValueError("the vocoder made samples that are not numbers")
            if self._modality is Modality.IMAGE and not isinstance(output, PictureStep) and 0 in output.size:
                raise ValueError("the decoder made a picture without pixels")
        return outputs

    def _probe(self, hung: bool) -> None:
        if hung and self._load is not None:
            self._decoder = self._load()  # the thread that was given up may hold what the next one would wait for
        span = self._decoder.open(DecodeOptions(seed=0, steps=1))
        self._checked(span.feed, [0] * self._codes)
        if not isinstance(span, Stepwise):
            self._checked(span.finish)
            return
        try:
            while self._checked(span.advance) is not None:
                pass
        finally:
            span.close()
