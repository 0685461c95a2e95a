"""Steps 1 and 8. `WS /v1/realtime`: a WebSocket's messages to a session, and what happens in it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from omni_server.door import Door
from omni_server.errors import OmniError
from omni_server.instruction import check_model
from omni_server.live_audio import open_reader
from omni_server.realtime.held import Body, held_at_first, session_body
from omni_server.realtime.ledger import Ledger, error_fields, told
from omni_server.realtime.reading import EventReader
from omni_server.realtime.socket import GOING_AWAY, accept, carry, leaving
from omni_server.realtime.wire import read_event
from omni_server.realtime.writing import EventWriter
from omni_server.rest.errors import error_response
from omni_server.session import Session
from omni_server.turns import ResponsePart
from omni_server.types import ImageReady
from omni_server.vad import Ears


def realtime_router(door: Door, ears: Ears) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        try:
            door.pipeline.drain.check()
            if model := socket.query_params.get("model"):
                check_model(door, model)
            held = held_at_first(door)
            session = Session(door, ears, held.settings, open_reader(held.sound_in.encoding, held.sound_in.sample_rate))
        except OmniError as error:
            await socket.send_denial_response(error_response(error))
            return
        async with session:
            await accept(socket)
            with door.pipeline.drain.told(leaving(session)):
                await converse(socket, session, Ledger(held), door)

    return router


async def converse(socket: WebSocket, session: Session, ledger: Ledger, door: Door) -> None:
    """Carries both directions until the client leaves, or the server must."""
    reader, writer = EventReader(session, ledger, door), EventWriter(ledger)

    async def events() -> AsyncGenerator[Body, None]:
        yield told("session.created", session=session_body(ledger.held, session.id, door))
        yield told("conversation.created", conversation={"id": ledger.conversation_id, "object": "realtime.conversation"})
        async for event in session.events():
            drawn = isinstance(event, ResponsePart) and isinstance(event.event, ImageReady)
            for body in await asyncio.to_thread(writer.feed, event) if drawn else writer.feed(event):
                yield body

    if await carry(socket, lambda given: reader.take(read_event(given)), refused, events()):
        with suppress(WebSocketDisconnect):  # the client was faster
            await socket.close(GOING_AWAY)


def refused(error: OmniError, event_id: str | None) -> Body:
    return told("error", **error_fields(error, event_id))
