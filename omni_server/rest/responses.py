"""Steps 1 and 8. `/v1/responses`: chat's replies in OpenAI's newer shape, kept, so that a later one goes on from them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.types import Receive, Scope, Send

from omni_server.door import Door
from omni_server.errors import RequestError, ResponseNotFound
from omni_server.rest.body import read_body
from omni_server.rest.fields import read_form, read_json
from omni_server.rest.pages import Page, page, query_of
from omni_server.rest.playing import Answer, played, send_events
from omni_server.rest.response_reply import ResponseReply
from omni_server.rest.response_request import called_tools, conversation, input_items, replied, response_request
from omni_server.rest.response_store import Kept, ResponseStore
from omni_server.rest.response_wire import ResponseRequest
from omni_server.segments import Body
from omni_server.types import AudioDelta, Done, ImagePreview, ImageReady, Modality, Request
from omni_server.wording import shown

# What the pipeline calls the fields of a conversation, and what they are called here.
FIELDS = {"messages": "input", "response_format": "text.format"}
# Making a PNG or an mp3 takes milliseconds to tens of them, too long for the event loop.
HEAVY = ImageReady | ImagePreview | AudioDelta | Done


class ItemsPage(Page):
    """`include` is without effect: nothing of an item is left out."""

    order: Literal["asc", "desc"] = "desc"
    include: Annotated[Any, Field(json_schema_extra={"type": "array", "items": {"type": "string"}})] = None


def responses_router(door: Door, store: ResponseStore) -> APIRouter:
    router = APIRouter(prefix="/v1/responses", tags=["responses"])
    schema = {"content": {"application/json": {"schema": ResponseRequest.model_json_schema()}}, "required": True}

    @router.post("", openapi_extra={"requestBody": schema})
    async def create_response(request: HttpRequest) -> Response:
        asked = read_json(ResponseRequest, await read_body(request, door.settings.max_body_bytes))
        before = _before(store, asked.previous_response_id)
        wanted = response_request(asked, f"resp_{uuid.uuid4().hex}", door, before)
        reply = _reply(asked, wanted)

        def keep() -> None:
            if asked.store is not False:
                _keep(store, asked, before, reply.body)

        async def write(scope: Scope, receive: Receive, send: Send) -> None:
            events = _events(door, wanted, reply, keep)
            if asked.stream:
                await send_events(send, events, named=True)
                return
            async with aclosing(events):
                async for event in events:
                    if event["type"] == "response.failed":
                        raise reply.failure
            await JSONResponse(reply.body)(scope, receive, send)

        return Answer(write)

    @router.get("/{response_id}")
    async def retrieve_response(response_id: str, request: HttpRequest) -> Response:
        if request.query_params.get("stream") == "true":
            raise RequestError("`stream` is `true`; expected a whole response, which is all that is kept", param="stream")
        return JSONResponse(store.find(response_id).body)

    @router.get("/{response_id}/input_items", openapi_extra={"parameters": query_of(ItemsPage)})
    async def list_input_items(response_id: str, request: HttpRequest) -> Body:
        query = request.query_params
        include = [*query.getlist("include"), *query.getlist("include[]")]
        asked = read_form(ItemsPage, {**query, "include": include} if include else dict(query))
        items = store.find(response_id).items
        return page(items if asked.order == "asc" else items[::-1], asked, "an item")

    @router.post("/{response_id}/cancel")
    async def cancel_response(response_id: str) -> Body:
        status = store.find(response_id).body["status"]
        raise RequestError(
            f"response {shown(response_id)} is `{status}`; expected one that is made in the background, of which this server "
            "has none: to stop a response, close the connection on which it comes",
            param="response_id",
        )

    @router.delete("/{response_id}")
    async def delete_response(response_id: str) -> Body:
        store.delete(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    return router


async def _events(door: Door, wanted: Request, reply: ResponseReply, keep: Callable[[], None]) -> AsyncGenerator[Body, None]:
    async with played(door, wanted, FIELDS) as events:
        async for event in events:
            heavy = isinstance(event, HEAVY)
            news = await asyncio.to_thread(reply.feed, event) if heavy else reply.feed(event)
            if isinstance(event, Done):
                keep()  # before the client knows of the end, and goes on from it
            for told in news:
                yield told


def _before(store: ResponseStore, response_id: str | None) -> Kept | None:
    if response_id is None:
        return None
    try:
        return store.find(response_id)
    except ResponseNotFound as error:
        raise RequestError(f"`previous_response_id`: {error.message}", param="previous_response_id") from None


def _keep(store: ResponseStore, asked: ResponseRequest, before: Kept | None, body: Body) -> None:
    calls = {item["call_id"]: item["name"] for item in body["output"] if item["type"] == "function_call"}
    try:
        messages = (*conversation(asked, before), *replied(body["output"]))
    except RequestError:
        return  # the model has called a tool with arguments that are no JSON: no conversation can go on from that
    items = (*(before.items if before is not None else ()), *_previous(before), *input_items(asked, body["id"]))
    store.keep(Kept(body, messages, {**called_tools(asked, before), **calls}, items))


def _previous(before: Kept | None) -> list[Body]:
    return list(before.body["output"]) if before is not None else []


def _reply(asked: ResponseRequest, wanted: Request) -> ResponseReply:
    """The response at its beginning: it repeats what was asked for."""
    said = asked.model_dump(mode="json", by_alias=True, exclude_none=True)
    body = {
        "id": wanted.request_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": None, "summary": None, **said.get("reasoning", {})},
        "service_tier": "default",
        "store": asked.store is not False,
        "temperature": asked.temperature,
        "text": {"format": {"type": "text"}, **said.get("text", {})},
        "tool_choice": said.get("tool_choice", "auto"),
        "tools": said.get("tools", []),
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": "disabled",
        "usage": None,
    }
    aloud = asked.audio is not None and Modality.AUDIO in wanted.modalities
    picture = asked.image_tool
    return ResponseReply(
        body,
        audio_format=asked.audio.format if aloud and asked.audio is not None else None,
        picture_format=(picture and picture.output_format) or "png",
        picture_quality=100 if picture is None or picture.output_compression is None else picture.output_compression,
    )
