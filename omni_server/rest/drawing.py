"""Steps 1 and 8. One request of the pipeline for each picture that is wanted, all at once; what they draw comes in order."""

from __future__ import annotations

import asyncio
import io
import random
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image
import PIL.ImageOps

from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.instruction import check_model
from omni_server.rest.image_fields import SEEDS, Looks, check_looks, size_of
from omni_server.rest.playing import played
from omni_server.segments import Segments
from omni_server.types import (
    DecodeOptions,
    Done,
    Failed,
    ImagePreview,
    Message,
    Modality,
    Part,
    Request,
    Sampling,
    SpanClosed,
    Usage,
)
from omni_server.wording import shown


@dataclass(frozen=True, slots=True)
class Sketch:
    """A picture on the way, the `number`th of its own."""

    image: PIL.Image.Image
    number: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture, what it cost, and what makes it again."""

    image: PIL.Image.Image
    usage: Usage
    seed: int
    text: str  # what the model wrote beside it


def image_requests(asked: Looks, door: Door, parts: Sequence[Part]) -> list[Request]:
    if asked.model is not None:
        check_model(door, asked.model)
    check_looks(asked)
    message = Message("user", tuple(parts))
    # Seeds are always named, so that any picture can be made again.
    first = random.randrange(SEEDS) if asked.seed is None else asked.seed
    seeds = [(first + place) % SEEDS for place in range(asked.n or 1)]
    return [
        Request(
            request_id=f"image-{uuid.uuid4().hex}",
            messages=(message,),
            modalities=frozenset({Modality.TEXT, Modality.IMAGE}),
            sampling=Sampling(seed=seed),
            decode=DecodeOptions(seed=seed, previews=(asked.partial_images or 0) if asked.stream else 0),
        )
        for seed in seeds
    ]


class Draughtsman:
    """Draws `requests` in the size that `asked` says. `fields` says what the resource calls the fields of a conversation."""

    def __init__(self, door: Door, asked: Looks, requests: Sequence[Request], fields: Mapping[str, str]) -> None:
        self._door = door
        self._size = size_of(asked)
        self._requests = requests
        self._fields = fields

    async def drawings(self) -> AsyncGenerator[Sketch | Drawing, None]:
        """All pictures are worked on at once and come in order, each after its sketches; the first that fails ends the
        others."""
        sketches: list[asyncio.Queue[Sketch | None]] = [asyncio.Queue() for _ in self._requests]
        tasks = [asyncio.create_task(self._draw(*each)) for each in zip(self._requests, sketches, strict=True)]
        try:
            for task, waiting in zip(tasks, sketches, strict=True):
                while (sketch := await waiting.get()) is not None:
                    yield sketch
                yield await task
        finally:
            for task in tasks:
                task.cancel()  # without effect where it is done
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _draw(self, request: Request, sketches: asyncio.Queue[Sketch | None]) -> Drawing:
        """One picture; `sketches` gets those on the way, and None at the end, however it ends."""
        segments, usage, number = Segments(), Usage(), 0
        try:
            async with played(self._door, request, self._fields) as events:
                async for event in events:
                    segments.feed(event)
                    match event:
                        case ImagePreview(image=image):
                            sketches.put_nowait(Sketch(await asyncio.to_thread(sized, image, self._size), number))
                            number += 1
                        case Failed(error=error):
                            raise error
                        case SpanClosed(error=error) if error is not None:
                            raise error
                        case Done():
                            usage = event.usage
                        case _:
                            pass
        finally:
            sketches.put_nowait(None)
        images = [segment.image for segment in segments.in_order() if segment.image is not None]
        if not images:
            raise RequestError(
                f"the model drew nothing and wrote {shown(segments.text)}; expected a request that it can draw",
                param=self._fields["messages"],
            )
        image = await asyncio.to_thread(sized, images[0], self._size)
        return Drawing(image, usage, request.decode.seed or 0, segments.text)


def sized(image: PIL.Image.Image, size: tuple[int, int] | None) -> PIL.Image.Image:
    """Nothing is stretched: what overhangs after scaling is cut off evenly on both sides."""
    if size in (None, image.size):
        return image
    return PIL.ImageOps.fit(image, size, PIL.Image.Resampling.LANCZOS)


def picture_file(image: PIL.Image.Image, format: str, quality: int) -> bytes:
    """`quality` is OpenAI's `output_compression`: 100 loses least. Metadata are left out."""
    file = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 1} if format == "png" else {"quality": quality}
    image.save(file, format.upper(), **options)
    return file.getvalue()
