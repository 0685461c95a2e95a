"""Steps 1 and 8. A request on its way through the pipeline, and an answer that is written while the pipeline works."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from omni_server.door import Door
from omni_server.errors import OmniError
from omni_server.rest.body import unless_gone
from omni_server.rest.errors import error_body
from omni_server.types import Event, Request

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]
EVENT_STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
DONE = b"data: [DONE]\n\n"  # how a stream of chunks ends; streams of typed events end with their last event


class Answer(Response):
    """An answer that `write` sends. The client's leaving cancels it, and with it the work in the pipeline."""

    def __init__(self, write: Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]) -> None:
        super().__init__()
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(self._write(scope, receive, send), receive)


@asynccontextmanager
async def played(door: Door, request: Request, fields: Mapping[str, str]) -> AsyncIterator[AsyncIterator[Event]]:
    """The pipeline's events. Its errors name the fields of a conversation; `fields` says what this resource calls them."""
    try:
        async with door.pipeline.respond(request) as events:
            yield events
    except OmniError as error:
        error.param = fields.get(error.param or "", error.param)
        raise


async def send_stream(send: Send, pieces: AsyncGenerator[bytes, None], headers: Callable[[], Headers]) -> None:
    """Begins at the first piece, so what goes wrong before is a status. What goes wrong later breaks the connection off:
    a client that reads bytes has no other way to learn that they are not all."""
    begun = False
    async with aclosing(pieces):
        async for piece in pieces:
            if not begun:
                await send({"type": "http.response.start", "status": 200, "headers": headers()})
                begun = True
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_events(
    send: Send, bodies: AsyncGenerator[dict[str, Any], None], ending: bytes = b"", *, named: bool = False
) -> None:
    """Server-sent events, and `ending` after them where all went well. What goes wrong midway is the last event. `named`: the
    type of each stands before it too."""
    await send_stream(send, _lines(bodies, ending, named=named), lambda: EVENT_STREAM)


async def _lines(bodies: AsyncGenerator[dict[str, Any], None], ending: bytes, *, named: bool) -> AsyncGenerator[bytes, None]:
    begun = False
    try:
        async with aclosing(bodies):
            async for body in bodies:
                yield (f"event: {body['type']}\n".encode() if named else b"") + _line(body)
                begun = True
        if ending:
            yield ending
    except OmniError as error:
        if not begun:
            raise
        logger.warning("a reply failed midway: %s", error)
        yield _line(error_body(error))
    except Exception:
        if not begun:
            raise
        logger.exception("a reply failed midway")
        yield _line(error_body(OmniError("The server failed midway through this reply.")))


def _line(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
