"""Step 7. Picture codes to a picture: feed collects the codes of one span, then it is drawn step by step. Usable alone.

decoder = ImageDecoder.from_pretrained("image_decoder")
span = decoder.open(DecodeOptions(ratio="4:3", seed=1))
span.feed(codes)
[picture] = span.finish()

Spans of one decoder advance together. Who wants to hear of steps, or to draw several, calls `advance` instead of `finish`.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from decoders.image.step_batcher import Drawing, Place, StepBatcher
from decoders.image.token_diffusion import TokenDiffusionPipeline

Folder = str | os.PathLike[str]
MOST_STEPS = 200
MOST_GUIDANCE = 2.0
MOST_PREVIEWS = 3
LONGEST_SIDE = 2048
LARGEST = 4  # times the pixels that the checkpoint draws by default
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CodesError(ValueError):
    """Codes or options that no picture can be made of."""


class HasSampler(Protocol):
    """All that `open` must be given; it takes the other fields of `DecodeOptions` too where the options have them."""

    @property
    def seed(self) -> int | None: ...

    @property
    def steps(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What one picture is made with; `None` is the checkpoint's own default."""

    ratio: str = "1:1"  # width to height, as in the checkpoint's ratio tokens
    size: tuple[int, int] | None = None  # width and height in pixels, in place of `ratio`
    seed: int | None = None  # the same seed gives the same picture; None draws one
    steps: int | None = None
    guidance: float | None = None
    previews: int = 0  # pictures on the way, at steps spread evenly; fewer where there are not as many steps


@dataclass(frozen=True, slots=True)
class Progress:
    """`step` of `steps` is done. `preview` is a guess at the picture, coarse and of its size, after the chosen steps."""

    step: int
    steps: int
    preview: Image.Image | None = None


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
        if not self.multiple <= min(sides) <= max(sides) <= LONGEST_SIDE:
            raise CodesError(f"ratio: expected sides of {self.multiple} to {LONGEST_SIDE} pixels, got `{ratio}`")
        return sides[0], sides[1]

    def check(self, size: tuple[int, int]) -> tuple[int, int]:
        """A width and height that were asked for."""
        shown = f"`{size[0]}x{size[1]}`"
        if any(not self.multiple <= side <= LONGEST_SIDE or side % self.multiple for side in size):
            raise CodesError(
                f"size: expected sides of {self.multiple} to {LONGEST_SIDE} pixels, multiples of {self.multiple}, got {shown}"
            )
        if size[0] * size[1] > LARGEST * self.pixels:
            raise CodesError(f"size: expected at most {LARGEST * self.pixels} pixels in all, got {shown}")
        return size


class ImageDecoder:
    """Shared by all spans, which it draws together; what one of them becomes does not depend on the others."""

    def __init__(self, pipeline: TokenDiffusionPipeline, sizes: Sizes, slots: int = 8) -> None:
        self.pipeline, self.sizes = pipeline, sizes
        self.batcher = StepBatcher(pipeline, slots)
        self.code_count: int = pipeline.token_embedder.config.token_length
        self.codebook_size: int = pipeline.token_embedder.config.vocab_size

    @classmethod
    def from_pretrained(cls, folder: Folder, precision: str = "float32", slots: int = 8) -> Self:
        """A diffusers folder with `decoder.json`: {"pixels", "multiple", "steps", "guidance"}. `precision` is that of the
        transformers; bfloat16 is faster and draws a slightly different picture. `slots` pictures are drawn at once."""
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got `{precision}`")
        sizes = Sizes(**json.loads((Path(folder) / "decoder.json").read_text(encoding="utf-8")))
        return cls(TokenDiffusionPipeline.from_folder(folder, PRECISIONS[precision]), sizes, slots)

    def open(self, options: HasSampler | None = None) -> "ImageSpan":
        """One picture to be; options that cannot be met are refused here, before any work."""
        if options is None or isinstance(options, DecodeOptions):
            return ImageSpan(self, options or DecodeOptions())
        given = {field.name: getattr(options, field.name) for field in fields(DecodeOptions) if hasattr(options, field.name)}
        return ImageSpan(self, DecodeOptions(**given))

    def check(self, codes: Sequence[int]) -> None:
        if len(codes) != self.code_count:
            raise CodesError(f"codes: expected `{self.code_count}` of them, got `{len(codes)}`")
        for place, code in enumerate(codes):
            if not 0 <= code < self.codebook_size:
                raise CodesError(f"codes[{place}]: expected 0 to {self.codebook_size - 1}, got `{code}`")


class ImageSpan:
    """One picture: codes in pieces of any size, one picture at the end."""

    def __init__(self, decoder: ImageDecoder, options: DecodeOptions) -> None:
        sizes = decoder.sizes
        self._size = sizes.resolution(options.ratio) if options.size is None else sizes.check(options.size)
        self._steps = sizes.steps if options.steps is None else options.steps
        self._guidance = sizes.guidance if options.guidance is None else options.guidance
        if not 1 <= self._steps <= MOST_STEPS:
            raise CodesError(f"steps: expected 1 to {MOST_STEPS}, got `{self._steps}`")
        if not 0 <= self._guidance <= MOST_GUIDANCE:
            raise CodesError(f"guidance: expected 0 to {MOST_GUIDANCE:g}, got `{self._guidance}`")
        if not 0 <= options.previews <= MOST_PREVIEWS:
            raise CodesError(f"previews: expected 0 to {MOST_PREVIEWS}, got `{options.previews}`")
        self._decoder, self._options = decoder, options
        self._codes: list[int] = []
        self._place: Place | None = None
        self._closed = False

    def feed(self, item: Sequence[int]) -> list[Image.Image]:
        """Collects; a picture needs all of its codes."""
        self._codes.extend(item)
        return []

    def finish(self) -> list[Image.Image]:
        """Draws the one picture of this span to its end, and whatever else is being drawn along with it."""
        drawn: list[Image.Image] = []
        while (outputs := self.advance()) is not None:
            drawn += [output for output in outputs if isinstance(output, Image.Image)]
        return drawn

    def advance(self) -> list[Progress | Image.Image] | None:
        """What is new of this picture, after one more step of all pictures where that is needed; None when nothing more
        will come. The last output is the picture."""
        if self._place is None:
            self._place = self._decoder.batcher.join(self._drawing())
        place = self._place
        place.left = place.left or self._closed  # closed while it joined
        self._decoder.batcher.advance(place)
        outputs: list[Progress | Image.Image] = []
        while place.news:
            new = place.news.popleft()
            preview = None if new.preview is None else _picture(new.preview).resize(self._size, Image.Resampling.BILINEAR)
            outputs.append(Progress(new.step, new.steps, preview))
            if new.pixels is not None:
                outputs.append(_picture(new.pixels))
        if place.fault is not None:
            raise place.fault
        return None if place.over and not outputs else outputs

    def close(self) -> None:
        """Nobody wants this picture any more: its slot is free at the next step. May be called from any thread."""
        self._closed = True
        if self._place is not None:
            self._place.left = True

    def _drawing(self) -> Drawing:
        self._decoder.check(self._codes)
        pipeline, options = self._decoder.pipeline, self._options
        size = (self._size[1] // pipeline.scale_factor, self._size[0] // pipeline.scale_factor)
        # The noise has a generator of its own: pictures of other spans and torch's global state do not change it.
        generator = torch.Generator()
        if options.seed is None:
            generator.seed()
        else:
            generator.manual_seed(options.seed)
        noise = pipeline.noise(1, size, generator)[0].flatten(1).t()  # [positions, channels]
        previews = frozenset(round(part * self._steps / (options.previews + 1)) for part in range(1, options.previews + 1))
        return Drawing(torch.tensor([self._codes]), size, noise, self._steps, self._guidance, previews)


def _picture(pixels: Tensor) -> Image.Image:
    """[3, height, width] -> RGB; truncated, as the 8B's own decoder does."""
    levels = (pixels.float().clamp(-1, 1) / 2 + 0.5).mul(255).byte()
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy()))
