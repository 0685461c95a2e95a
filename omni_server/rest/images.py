"""Steps 1 and 8. `POST /v1/images/generations`: a description becomes a request for a picture, once per picture wanted."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import PIL.Image
from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.types import Receive, Scope, Send

from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.instruction import check_model, instruction
from omni_server.rest.body import read_body
from omni_server.rest.fields import JsonFields, Words, only, read_json
from omni_server.rest.playing import Answer, played, send_events
from omni_server.segments import Body, Segments
from omni_server.types import (
    DecodeOptions,
    Done,
    Failed,
    ImagePreview,
    Message,
    Modality,
    Request,
    Sampling,
    SpanClosed,
    TextPart,
    Usage,
)
from omni_server.wording import shown

FIELDS = {"messages": "prompt", "modalities": "model"}
SEEDS = 2**32
NO_STORE = "expected `b64_json`, because this server does not store pictures yet"
NO_CLEAR = "expected `opaque` or `auto`, because the decoder paints every pixel"


class ImageRequest(JsonFields):
    """Those after `output_compression` down to `safety_identifier` are accepted and have no effect. `seed` is not OpenAI's:
    picture k of a request has the seed `seed + k`. `partial_images` are for a stream; a picture of few steps has fewer."""

    prompt: Annotated[Words, Field(max_length=32_000)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=4)] | None = None
    size: Annotated[str, Field(pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] | None = None
    stream: bool | None = None
    output_format: Literal["png", "webp", "jpeg"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"] | None = None
    moderation: Literal["low", "auto"] | None = None
    style: Literal["vivid", "natural"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    response_format: Annotated[Literal["url", "b64_json"], only("b64_json", because=NO_STORE)] | None = None
    background: Annotated[Literal["transparent", "opaque", "auto"], only("opaque", "auto", because=NO_CLEAR)] | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None


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


def images_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["images"])
    schema = {"content": {"application/json": {"schema": ImageRequest.model_json_schema()}}, "required": True}

    @router.post("/v1/images/generations", openapi_extra={"requestBody": schema})
    async def create_image(request: HttpRequest) -> Response:
        asked = read_json(ImageRequest, await read_body(request, door.settings.max_body_bytes))
        requests = image_requests(asked, door)

        async def write(scope: Scope, receive: Receive, send: Send) -> None:
            if asked.stream:
                await send_events(send, _events(asked, _drawings(door, requests, asked.size)))
                return
            async with aclosing(_drawings(door, requests, asked.size)) as drawings:
                body = await _whole(asked, [drawing async for drawing in drawings if isinstance(drawing, Drawing)])
            await JSONResponse(body)(scope, receive, send)

        return Answer(write)

    return router


def image_requests(asked: ImageRequest, door: Door) -> list[Request]:
    if asked.model is not None:
        check_model(door, asked.model)
    if asked.output_compression not in (None, 100) and asked.output_format in (None, "png"):
        raise RequestError(
            f"`output_compression` is `{asked.output_compression}`; expected `output_format` webp or jpeg with it, "
            "because a png loses nothing",
            param="output_compression",
        )
    message = Message("user", (TextPart(instruction(door, "picture", asked.prompt)),))
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


async def _drawings(door: Door, requests: Sequence[Request], size: str | None) -> AsyncGenerator[Sketch | Drawing, None]:
    """All pictures are worked on at once and come in order, each after its sketches; the first that fails ends the others."""
    sketches: list[asyncio.Queue[Sketch | None]] = [asyncio.Queue() for _ in requests]
    tasks = [asyncio.create_task(_draw(door, *each, size)) for each in zip(requests, sketches, strict=True)]
    try:
        for task, waiting in zip(tasks, sketches, strict=True):
            while (sketch := await waiting.get()) is not None:
                yield sketch
            yield await task
    finally:
        for task in tasks:
            task.cancel()  # without effect where it is done
        await asyncio.gather(*tasks, return_exceptions=True)


async def _draw(door: Door, request: Request, sketches: asyncio.Queue[Sketch | None], size: str | None) -> Drawing:
    """One picture; `sketches` gets those on the way, and None at the end, however it ends."""
    segments, usage, number = Segments(), Usage(), 0
    try:
        async with played(door, request, FIELDS) as events:
            async for event in events:
                segments.feed(event)
                match event:
                    case ImagePreview(image=image):
                        sketches.put_nowait(Sketch(_fitting(image, size), number))
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
            f"the model drew nothing and wrote {shown(segments.text)}; expected a `prompt` that it can draw", param="prompt"
        )
    return Drawing(_fitting(images[0], size), usage, request.decode.seed or 0, segments.text)


def _fitting(image: PIL.Image.Image, size: str | None) -> PIL.Image.Image:
    """The decoder's sizes are its own and follow the ratio that the backbone chose, so only a picture can tell."""
    if size not in (None, "auto", _size(image)):
        raise RequestError(f"`size` is `{size}`; expected `auto` or `{_size(image)}`, which is what is drawn", param="size")
    return image


def _size(image: PIL.Image.Image) -> str:
    return f"{image.width}x{image.height}"


async def _whole(asked: ImageRequest, drawings: list[Drawing]) -> Body:
    data = [
        {"b64_json": await _base64(asked, drawing), "omni": {"seed": drawing.seed, "text": drawing.text}}
        for drawing in drawings
    ]
    usage = usage_body([drawing.usage for drawing in drawings])
    return {"created": int(time.time()), "data": data, **_looks(asked, drawings[0]), "usage": usage}


async def _events(asked: ImageRequest, drawings: AsyncGenerator[Sketch | Drawing, None]) -> AsyncGenerator[Body, None]:
    async with aclosing(drawings):
        async for drawing in drawings:
            body = {
                "b64_json": await _base64(asked, drawing),
                "created_at": int(time.time()),
                **_looks(asked, drawing),
            }
            if isinstance(drawing, Sketch):
                yield {"type": "image_generation.partial_image", **body, "partial_image_index": drawing.number}
            else:
                extras = {"usage": usage_body([drawing.usage]), "omni": {"seed": drawing.seed, "text": drawing.text}}
                yield {"type": "image_generation.completed", **body, **extras}


def _looks(asked: ImageRequest, drawing: Sketch | Drawing) -> Body:
    """What the pictures are, not what was asked for: `quality` has no effect."""
    format, size = asked.output_format or "png", _size(drawing.image)
    return {"background": "opaque", "output_format": format, "quality": "auto", "size": size}


async def _base64(asked: ImageRequest, drawing: Sketch | Drawing) -> str:
    compression = 100 if asked.output_compression is None else asked.output_compression
    file = await asyncio.to_thread(picture_file, drawing.image, asked.output_format or "png", compression)
    return base64.b64encode(file).decode("ascii")


def picture_file(image: PIL.Image.Image, format: str, quality: int) -> bytes:
    """`quality` is OpenAI's `output_compression`: 100 loses least. Metadata are left out."""
    file = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 1} if format == "png" else {"quality": quality}
    image.save(file, format.upper(), **options)
    return file.getvalue()


def usage_body(usages: Sequence[Usage]) -> Body:
    asked = sum(usage.prompt_tokens for usage in usages)
    answered = sum(usage.completion_tokens for usage in usages)
    shown_tokens = sum(usage.prompt_image_tokens for usage in usages)
    drawn = sum(usage.completion_image_tokens for usage in usages)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"image_tokens": shown_tokens, "text_tokens": asked - shown_tokens},
        "output_tokens": answered,
        "output_tokens_details": {"image_tokens": drawn, "text_tokens": answered - drawn},
        "total_tokens": asked + answered,
    }
