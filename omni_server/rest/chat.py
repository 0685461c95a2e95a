"""Steps 1 and 8. `POST /v1/chat/completions`: reads the body, plays it through the pipeline, writes the answer."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from omni_server import types
from omni_server.door import Door
from omni_server.errors import OmniError
from omni_server.rest.body import read_body, unless_gone
from omni_server.rest.chat_reply import ChatChunks, ChatMessageReply, Envelope
from omni_server.rest.chat_request import chat_request
from omni_server.rest.chat_wire import ChatRequest, read_chat
from omni_server.rest.errors import error_body

logger = logging.getLogger(__name__)

EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
# Making a PNG or an mp3 takes milliseconds to tens of them, too long for the event loop.
HEAVY = types.ImageReady | types.AudioDelta


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
            audio_format=chat.audio.format if chat.audio and types.Modality.AUDIO in asked.modalities else None,
            include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        )
        return ChatAnswer(door, asked, envelope, streamed=bool(chat.stream))

    return router


class ChatAnswer(Response):
    """Plays the request while it is being sent. The client's leaving leaves `respond`, which cancels the work."""

    def __init__(self, door: Door, request: types.Request, envelope: Envelope, *, streamed: bool) -> None:
        super().__init__()
        self._door = door
        self._request = request
        self._envelope = envelope
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(self._play(scope, receive, send), receive)

    async def _play(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What is wrong with the request is raised on entering: before the first byte, so it becomes a status.
        async with self._door.pipeline.respond(self._request) as events:
            if self._streamed:
                await self._stream(events, send)
                return
            body = await self._collect(events)
        await JSONResponse(body)(scope, receive, send)

    async def _collect(self, events: AsyncIterator[types.Event]) -> dict[str, Any]:
        reply = ChatMessageReply(self._envelope)
        async for event in events:
            reply.feed(event)
        return await asyncio.to_thread(reply.finish)

    async def _stream(self, events: AsyncIterator[types.Event], send: Send) -> None:
        chunks = ChatChunks(self._envelope)
        begun = False
        try:
            async for event in events:
                if not begun and not isinstance(event, types.Failed):
                    await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
                    begun = True
                heavy = isinstance(event, HEAVY)
                for chunk in await asyncio.to_thread(chunks.feed, event) if heavy else chunks.feed(event):
                    await _send_line(send, chunk)
        except OmniError as error:
            if not begun:
                raise
            logger.warning("reply %s failed midway: %s", self._envelope.id, error)
            await _send_line(send, error_body(error))
        except Exception:
            if not begun:
                raise
            logger.exception("reply %s failed midway", self._envelope.id)
            await _send_line(send, error_body(OmniError("The server failed midway through this reply.")))
        else:
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_line(send: Send, body: dict[str, Any]) -> None:
    line = f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
    await send({"type": "http.response.body", "body": line.encode(), "more_body": True})
