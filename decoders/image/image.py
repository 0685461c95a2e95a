"""Step 7. Picture codes to a picture: feed collects the codes of one span, finish renders them. Usable alone.

decoder = ImageDecoder.from_pretrained("image_decoder")
span = decoder.open(DecodeOptions(ratio="4:3", seed=1))
span.feed(codes)
[picture] = span.finish()
"""

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from PIL import Image

from decoders.image.token_diffusion import TokenDiffusionPipeline

Folder = str | os.PathLike[str]


class CodesError(ValueError):
    """Codes or options that no picture can be made of."""


class HasSampler(Protocol):
    """All that `open` must be given; it takes `ratio`, `guidance` and `progress` too where the options have them."""

    @property
    def seed(self) -> int | None: ...

    @property
    def steps(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What one picture is made with; `None` is the checkpoint's own default. `progress` hears (step just done, steps)."""

    ratio: str = "1:1"  # width to height, as in the checkpoint's ratio tokens
    seed: int | None = None  # the same seed gives the same picture; None draws one
    steps: int | None = None
    guidance: float | None = None
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Facts of one image decoder, from its decoder.json."""

    pixels: int  # pixels of a picture, about, at any ratio
    multiple: int  # sides are multiples of this
    steps: int
    guidance: float

    def resolution(self, ratio: str) -> tuple[int, int]:
        """Width and height of a picture: the given ratio, about `pixels` in all, rounded down to `multiple`."""
        match = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", ratio)
        if match is None:
            raise CodesError(f"ratio: expected width:height such as `1:1` or `4:3`, got `{ratio}`")
        width, height = int(match[1]), int(match[2])
        # Whole numbers throughout: 9:16 is exact and must not be rounded down by a float.
        sides = [
            math.isqrt(self.pixels * part // other) // self.multiple * self.multiple
            for part, other in ((width, height), (height, width))
        ]
        if min(sides) == 0:
            raise CodesError(f"ratio: expected sides of at least {self.multiple} pixels, got `{ratio}`")
        return sides[0], sides[1]


class ImageDecoder:
    """Shared by all spans. Rendering is synchronous; nothing of one span is seen by another."""

    def __init__(self, pipeline: TokenDiffusionPipeline, sizes: Sizes) -> None:
        self.pipeline, self.sizes = pipeline, sizes
        self.code_count: int = pipeline.token_embedder.config.token_length
        self.codebook_size: int = pipeline.token_embedder.config.vocab_size

    @classmethod
    def from_pretrained(cls, folder: Folder) -> Self:
        """A diffusers folder with `decoder.json`: {"pixels", "multiple", "steps", "guidance"}."""
        sizes = Sizes(**json.loads((Path(folder) / "decoder.json").read_text(encoding="utf-8")))
        return cls(TokenDiffusionPipeline.from_folder(folder), sizes)

    def open(self, options: HasSampler | None = None) -> "ImageSpan":
        """One picture to be; options that cannot be met are refused here, before any work."""
        if options is None or isinstance(options, DecodeOptions):
            return ImageSpan(self, options or DecodeOptions())
        given = {field.name: getattr(options, field.name) for field in fields(DecodeOptions) if hasattr(options, field.name)}
        return ImageSpan(self, DecodeOptions(**given))

    def render(self, codes: Sequence[int], options: DecodeOptions) -> Image.Image:
        """Exactly one grid of codes -> an RGB picture."""
        self.check(codes)
        width, height = self.sizes.resolution(options.ratio)
        # The noise has a generator of its own: pictures of other spans and torch's global state do not change it.
        generator = torch.Generator()
        if options.seed is None:
            generator.seed()
        else:
            generator.manual_seed(options.seed)
        pixels = self.pipeline(
            torch.tensor([list(codes)]),
            height,
            width,
            self.sizes.steps if options.steps is None else options.steps,
            self.sizes.guidance if options.guidance is None else options.guidance,
            generator=generator,
            progress=options.progress,
        )[0]  # [3, height, width]
        levels = (pixels.clamp(-1, 1) / 2 + 0.5).mul(255).byte()  # truncated, as the 8B's own decoder does
        return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy()))

    def check(self, codes: Sequence[int]) -> None:
        if len(codes) != self.code_count:
            raise CodesError(f"codes: expected `{self.code_count}` of them, got `{len(codes)}`")
        for place, code in enumerate(codes):
            if not 0 <= code < self.codebook_size:
                raise CodesError(f"codes[{place}]: expected 0 to {self.codebook_size - 1}, got `{code}`")


class ImageSpan:
    """One picture: codes in pieces of any size, one picture at the end."""

    def __init__(self, decoder: ImageDecoder, options: DecodeOptions) -> None:
        decoder.sizes.resolution(options.ratio)
        if options.steps is not None and not 1 <= options.steps <= 200:
            raise CodesError(f"steps: expected 1 to 200, got `{options.steps}`")
        if options.guidance is not None and not 0 <= options.guidance <= 2:
            raise CodesError(f"guidance: expected 0 to 2, got `{options.guidance}`")
        self._decoder, self._options = decoder, options
        self._codes: list[int] = []

    def feed(self, item: Sequence[int]) -> list[Image.Image]:
        """Collects; a picture needs all of its codes."""
        self._codes.extend(item)
        return []

    def finish(self) -> list[Image.Image]:
        """Renders the one picture of this span."""
        return [self._decoder.render(self._codes, self._options)]
