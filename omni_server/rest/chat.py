"""Steps 1 and 8. `POST /v1/chat/completions`: reads the body, plays it through the pipeline, writes the answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from omni_server.door import Door
from omni_server.rest.body import read_body
from omni_server.rest.chat_chunks import ChatChunks, usage_chunk
from omni_server.rest.chat_reply import ChatChoice, Envelope, usage_body
from omni_server.rest.chat_request import chat_request
from omni_server.rest.chat_wire import ChatRequest, read_chat
from omni_server.rest.choices import choices_of, played_choices, usage_of
from omni_server.rest.playing import DONE, Answer, send_events
from omni_server.segments import Body
from omni_server.types import AudioDelta, Done, ImageReady, Modality, Request

# Making a PNG or an mp3 takes milliseconds to tens of them, too long for the event loop.
HEAVY = ImageReady | AudioDelta


def chat_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["chat"])
    schema = {"content": {"application/json": {"schema": ChatRequest.model_json_schema()}}, "required": True}

    @router.post("/v1/chat/completions", openapi_extra={"requestBody": schema})
    async def create_chat_completion(request: HttpRequest) -> Response:
        chat = read_chat(await read_body(request, door.settings.max_body_bytes))
        completion_id = f"chatcmpl-{uuid.uuid4().hex}"
        asked = chat_request(chat, completion_id, door)
        envelope = Envelope(
            id=completion_id,
            model=chat.model,
            created=int(time.time()),
            keep_transcript=door.transcripts.keep,
            audio_format=chat.audio.format if chat.audio and Modality.AUDIO in asked.modalities else None,
            include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
            scored=bool(chat.logprobs),
        )
        requests = choices_of(asked, chat.n or 1)

        async def write(scope: Scope, receive: Receive, send: Send) -> None:
            if chat.stream:
                await send_events(send, _chunks(door, requests, envelope), DONE)
                return
            body = await _whole(door, requests, envelope)
            await JSONResponse(body)(scope, receive, send)

        return Answer(write)

    return router


async def _whole(door: Door, requests: Sequence[Request], envelope: Envelope) -> Body:
    choices = [ChatChoice(envelope, place) for place in range(len(requests))]
    endings: list[Done] = []
    async with aclosing(played_choices(door, requests, {})) as events:
        async for place, event in events:
            choices[place].feed(event)
            endings += [event] if isinstance(event, Done) else []
    bodies = [await asyncio.to_thread(choice.finish) for choice in choices]
    return envelope.wrap("chat.completion", choices=bodies, usage=usage_body(usage_of(endings, len(endings))))


async def _chunks(door: Door, requests: Sequence[Request], envelope: Envelope) -> AsyncGenerator[Body, None]:
    choices = [ChatChunks(envelope, place) for place in range(len(requests))]
    endings: list[Done] = []
    async with aclosing(played_choices(door, requests, {})) as events:
        async for place, event in events:
            feed = choices[place].feed
            for chunk in await asyncio.to_thread(feed, event) if isinstance(event, HEAVY) else feed(event):
                yield chunk
            endings += [event] if isinstance(event, Done) else []
    if envelope.include_usage:
        yield usage_chunk(envelope, usage_of(endings, len(endings)), endings[0].seconds)
