"""Steps 1 and 8. `WS /v1/realtime`: a WebSocket's messages to a session, and what happens in it back."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from omni_server.door import Door
from omni_server.errors import OmniError
from omni_server.instruction import check_model
from omni_server.live_audio import open_reader
from omni_server.realtime.held import Body, held_at_first, session_body
from omni_server.realtime.ledger import Ledger, error_fields, told
from omni_server.realtime.reading import EventReader
from omni_server.realtime.wire import read_event, read_object
from omni_server.realtime.writing import EventWriter
from omni_server.rest.errors import error_response
from omni_server.session import Session
from omni_server.turns import ResponsePart
from omni_server.types import ImageReady
from omni_server.vad import Ears

_log = logging.getLogger(__name__)

PROTOCOL = "realtime"  # a browser, which cannot send headers, names it beside its key
LONG = 1 << 16  # letters of a message that take too long to read for the event loop


def realtime_router(door: Door, ears: Ears) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        try:
            check(socket, door)
            held = held_at_first(door)
            session = Session(door, ears, held.settings, open_reader(held.sound_in.encoding, held.sound_in.sample_rate))
        except OmniError as error:
            await socket.send_denial_response(error_response(error))
            return
        async with session:
            await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
            await converse(socket, session, Ledger(held), door)

    return router


def check(socket: WebSocket, door: Door) -> None:
    """Raises what is wrong with the call before it is taken; then it ends as an HTTP answer."""
    if model := socket.query_params.get("model"):
        check_model(door, model)


async def converse(socket: WebSocket, session: Session, ledger: Ledger, door: Door) -> None:
    """Carries both directions until the client leaves."""
    reader, writer = EventReader(session, ledger, door), EventWriter(ledger)

    async def send(events: list[Body]) -> None:
        for event in events:
            await socket.send_text(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

    async def listen() -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await send(await answered(message.get("text") or message.get("bytes") or "", reader))

    async def speak() -> None:
        async for event in session.events():
            drawn = isinstance(event, ResponsePart) and isinstance(event.event, ImageReady)
            await send(await asyncio.to_thread(writer.feed, event) if drawn else writer.feed(event))

    first = {"id": ledger.conversation_id, "object": "realtime.conversation"}
    try:
        await send(
            [
                told("session.created", session=session_body(ledger.held, session.id, door)),
                told("conversation.created", conversation=first),
            ]
        )
    except WebSocketDisconnect:
        return
    tasks = [asyncio.create_task(listen()), asyncio.create_task(speak())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except WebSocketDisconnect:
        pass  # while something was being sent
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def answered(text: str | bytes, reader: EventReader) -> list[Body]:
    """What is told at once of one message. Whatever is wrong with it, the call goes on."""
    given: dict[str, Any] = {}
    try:
        given = await asyncio.to_thread(read_object, text) if len(text) > LONG else read_object(text)
        return await reader.take(read_event(given))
    except OmniError as error:
        fault = error
    except Exception:  # noqa: BLE001 - one message must not end a conversation
        _log.exception("a message of %s failed", reader.session.id)
        fault = OmniError("The server failed at this message; its log tells more.")
    event_id = given.get("event_id")
    return [told("error", **error_fields(fault, event_id if isinstance(event_id, str) else None))]
