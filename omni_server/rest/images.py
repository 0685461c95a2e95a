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
from omni_server.types import DecodeOptions, Done, Failed, Message, Modality, Request, Sampling, SpanClosed, TextPart, Usage
from omni_server.wording import shown

FIELDS = {"messages": "prompt", "modalities": "model"}
SEEDS = 2**32
NO_STORE = "expected `b64_json`, because this server does not store pictures yet"
NO_PARTS = "expected 0, because the decoder shows a picture only when it is finished"
NO_CLEAR = "expected `opaque` or `auto`, because the decoder paints every pixel"


class ImageRequest(JsonFields):
    """Those after `output_compression` down to `safety_identifier` are accepted and have no effect. `seed` is not OpenAI's:
    picture k of a request has the seed `seed + k`."""

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
    partial_images: Annotated[int, Field(ge=0, le=3), only(0, because=NO_PARTS)] | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture, what it cost, and what makes it again."""

    image: PIL.Image.Image
    usage: Usage
    seed: int
    text: str  # what the model wrote beside it

    @property
    def size(self) -> str:
        return f"{self.image.width}x{self.image.height}"


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
                body = await _whole(asked, [drawing async for drawing in drawings])
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
            decode=DecodeOptions(seed=seed),
        )
        for seed in seeds
    ]


async def _drawings(door: Door, requests: Sequence[Request], size: str | None) -> AsyncGenerator[Drawing, None]:
    """All pictures are worked on at once and come in order; the first that fails ends the others."""
    tasks = [asyncio.create_task(_draw(door, request, size)) for request in requests]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()  # without effect where it is done
        await asyncio.gather(*tasks, return_exceptions=True)


async def _draw(door: Door, request: Request, size: str | None) -> Drawing:
    segments, usage = Segments(), Usage()
    async with played(door, request, FIELDS) as events:
        async for event in events:
            segments.feed(event)
            match event:
                case Failed(error=error):
                    raise error
                case SpanClosed(error=error) if error is not None:
                    raise error
                case Done():
                    usage = event.usage
                case _:
                    pass
    images = [segment.image for segment in segments.in_order() if segment.image is not None]
    if not images:
        raise RequestError(
            f"the model drew nothing and wrote {shown(segments.text)}; expected a `prompt` that it can draw", param="prompt"
        )
    drawing = Drawing(images[0], usage, request.decode.seed or 0, segments.text)
    # The decoder's sizes are its own and follow the ratio that the backbone chose, so only a picture can tell.
    if size not in (None, "auto", drawing.size):
        raise RequestError(f"`size` is `{size}`; expected `auto` or `{drawing.size}`, which is what is drawn", param="size")
    return drawing


async def _whole(asked: ImageRequest, drawings: list[Drawing]) -> Body:
    data = [
        {"b64_json": await _base64(asked, drawing), "omni": {"seed": drawing.seed, "text": drawing.text}}
        for drawing in drawings
    ]
    usage = usage_body([drawing.usage for drawing in drawings])
    return {"created": int(time.time()), "data": data, **_looks(asked, drawings[0]), "usage": usage}


async def _events(asked: ImageRequest, drawings: AsyncGenerator[Drawing, None]) -> AsyncGenerator[Body, None]:
    async with aclosing(drawings):
        async for drawing in drawings:
            yield {
                "type": "image_generation.completed",
                "b64_json": await _base64(asked, drawing),
                "created_at": int(time.time()),
                **_looks(asked, drawing),
                "usage": usage_body([drawing.usage]),
                "omni": {"seed": drawing.seed, "text": drawing.text},
            }


def _looks(asked: ImageRequest, drawing: Drawing) -> Body:
    """What the pictures are, not what was asked for: `quality` has no effect."""
    return {"background": "opaque", "output_format": asked.output_format or "png", "quality": "auto", "size": drawing.size}


async def _base64(asked: ImageRequest, drawing: Drawing) -> str:
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
