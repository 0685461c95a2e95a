"""Steps 1 and 8. `POST /v1/images/generations`, `/edits` and `/variations`: words, or pictures and words, become pictures."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.instruction import instruction
from omni_server.rest.body import read_body
from omni_server.rest.drawing import Draughtsman, Drawing, Sketch, image_requests, picture_file
from omni_server.rest.fields import read_form, read_json
from omni_server.rest.form import FORM_TYPE, content_type, read_files_form
from omni_server.rest.image_fields import (
    MOST_IMAGES,
    NO_PLACES,
    EditRequest,
    ImageRequest,
    JsonEditRequest,
    Looks,
    VariationRequest,
)
from omni_server.rest.media import media_url
from omni_server.rest.playing import Answer, send_events
from omni_server.segments import Body
from omni_server.types import ImagePart, MediaSource, Part, TextPart, Usage

DRAWN = {"messages": "prompt", "modalities": "model"}
REDRAWN = {"messages": "image", "modalities": "model"}
JSON_TYPE = "application/json"
# `mask` and `markup` are read so that their refusal can say why.
EDIT_FILES = {"image": MOST_IMAGES, "mask": 1, "markup": 1}


def images_router(door: Door) -> APIRouter:
    router = APIRouter(prefix="/v1/images", tags=["images"])
    schema = {"content": {"application/json": {"schema": ImageRequest.model_json_schema()}}, "required": True}

    @router.post("/generations", openapi_extra={"requestBody": schema})
    async def create_image(request: HttpRequest) -> Response:
        asked = read_json(ImageRequest, await read_body(request, door.settings.max_body_bytes))
        words = TextPart(instruction(door, "picture", asked.prompt))
        return _answer(door, request, asked, [words], DRAWN, "image_generation")

    @router.post("/edits", openapi_extra={"requestBody": _forms(EditRequest, JsonEditRequest)})
    async def create_image_edit(request: HttpRequest) -> Response:
        # The prompt is put to the model as it is: how pictures are to change is said in too many ways for one wording.
        if content_type(request) == JSON_TYPE:
            told = read_json(JsonEditRequest, await read_body(request, door.settings.max_body_bytes))
            urls = [MediaSource(f"images[{k}].image_url", url=image.image_url) for k, image in enumerate(told.images)]
            return _answer(door, request, told, [*map(ImagePart, urls), TextPart(told.prompt)], DRAWN, "image_edit")
        files, fields = await read_files_form(request, door.settings.max_body_bytes, EDIT_FILES)
        asked = read_form(EditRequest, fields)
        for name in ("mask", "markup"):
            if name in files:
                raise RequestError(f"`{name}` is not supported by this server: {NO_PLACES}", param=name)
        return _answer(door, request, asked, [*_pictures(files), TextPart(asked.prompt)], DRAWN, "image_edit")

    @router.post("/variations", openapi_extra={"requestBody": _forms(VariationRequest)})
    async def create_image_variation(request: HttpRequest) -> Response:
        files, fields = await read_files_form(request, door.settings.max_body_bytes, {"image": 1})
        asked = read_form(VariationRequest, fields)
        words = TextPart(instruction(door, "variation"))
        return _answer(door, request, asked, [*_pictures(files), words], REDRAWN, "image_edit")

    return router


def _forms(form: type[BaseModel], body: type[BaseModel] | None = None) -> Body:
    schema = form.model_json_schema()
    schema["properties"]["image"] = {"type": "string", "format": "binary"}
    schema["required"] = ["image", *schema.get("required", [])]
    content = {FORM_TYPE: {"schema": schema}}
    if body is not None:
        content[JSON_TYPE] = {"schema": body.model_json_schema()}
    return {"content": content, "required": True}


def _pictures(files: Mapping[str, Sequence[bytes]]) -> list[Part]:
    if "image" not in files:
        raise RequestError("`image` is missing; it is required, as a part with a `filename`", param="image")
    return [ImagePart(MediaSource("image", data=file)) for file in files["image"]]


def _answer(
    door: Door, request: HttpRequest, asked: Looks, parts: Sequence[Part], fields: Mapping[str, str], events: str
) -> Response:
    """`events` is how the names of a stream's events begin."""
    draughtsman = Draughtsman(door, asked, image_requests(asked, door, parts), fields)

    async def write(scope: Scope, receive: Receive, send: Send) -> None:
        if asked.stream:
            await send_events(send, _events(asked, draughtsman.drawings(), events))
            return
        async with aclosing(draughtsman.drawings()) as drawings:
            drawn = [drawing async for drawing in drawings if isinstance(drawing, Drawing)]
        data = [await _item(door, request, asked, drawing) for drawing in drawn]
        usage = usage_body([drawing.usage for drawing in drawn])
        body = {"created": int(time.time()), "data": data, **_looks(asked, drawn[0]), "usage": usage}
        await JSONResponse(body)(scope, receive, send)

    return Answer(write)


async def _item(door: Door, request: HttpRequest, asked: Looks, drawing: Drawing) -> Body:
    file = await _file(asked, drawing)
    omni = {"omni": {"seed": drawing.seed, "text": drawing.text}}
    if asked.response_format == "url":
        url = await media_url(door, request, file, f"image/{asked.format}", asked.format, "response_format")
        return {"url": url, **omni}
    return {"b64_json": _base64(file), **omni}


async def _events(asked: Looks, drawings: AsyncGenerator[Sketch | Drawing, None], name: str) -> AsyncGenerator[Body, None]:
    async with aclosing(drawings):
        async for drawing in drawings:
            body = {
                "b64_json": _base64(await _file(asked, drawing)),
                "created_at": int(time.time()),
                **_looks(asked, drawing),
            }
            if isinstance(drawing, Sketch):
                yield {"type": f"{name}.partial_image", **body, "partial_image_index": drawing.number}
            else:
                extras = {"usage": usage_body([drawing.usage]), "omni": {"seed": drawing.seed, "text": drawing.text}}
                yield {"type": f"{name}.completed", **body, **extras}


def _looks(asked: Looks, drawing: Sketch | Drawing) -> Body:
    """What the pictures are, not what was asked for: `quality` has no effect."""
    size = f"{drawing.image.width}x{drawing.image.height}"
    return {"background": "opaque", "output_format": asked.format, "quality": "auto", "size": size}


async def _file(asked: Looks, drawing: Sketch | Drawing) -> bytes:
    return await asyncio.to_thread(picture_file, drawing.image, asked.format, asked.compression)


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")


def usage_body(usages: Sequence[Usage]) -> dict[str, Any]:
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
