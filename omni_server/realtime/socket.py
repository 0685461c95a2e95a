"""Steps 1 and 8. Carries both directions of a live wire's WebSocket until either ends. Knows no event by name."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from omni_server.errors import OmniError
from omni_server.realtime.held import Body
from omni_server.realtime.wire import read_object
from omni_server.session import Session
from omni_server.tasks import side_by_side

_log = logging.getLogger(__name__)

LONG = 1 << 16  # letters of a message that take too long to read for the event loop
GOING_AWAY = 1001  # the code of a close that is the server's own leaving
PROTOCOL = "realtime"  # a browser, which cannot send headers, names it beside its key


async def accept(socket: WebSocket) -> None:
    await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)


def leaving(session: Session) -> Callable[[float], None]:
    """What is done when the server begins to stop: the client is told, and what is open is the last."""

    def leave(seconds: float) -> None:
        session.go_away(seconds)
        session.finish()

    return leave


async def carry(
    socket: WebSocket,
    take: Callable[[Body], Awaitable[list[Body]]],
    fault: Callable[[OmniError, str | None], Body],
    events: AsyncGenerator[Body, None],
) -> bool:
    """`take` answers one message at once, `fault` says what is wrong with one, `events` go down as they come. Returns when
    the client leaves, or after the last event: whether it was that, and the client is still there."""

    async def send(event: Body) -> None:
        await socket.send_text(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

    async def listen() -> None:
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            for event in await answered(message.get("text") or message.get("bytes") or "", take, fault):
                await send(event)

    async def speak() -> None:
        async with aclosing(events):
            async for event in events:
                await send(event)

    try:
        left, _ = await side_by_side(listen(), speak(), until=asyncio.FIRST_COMPLETED)
    except WebSocketDisconnect:  # while something was being sent
        return False
    return not left


async def answered(
    text: str | bytes, take: Callable[[Body], Awaitable[list[Body]]], fault: Callable[[OmniError, str | None], Body]
) -> list[Body]:
    """What is told at once of one message. Whatever is wrong with it, the call goes on."""
    given: dict[str, Any] = {}
    try:
        given = await asyncio.to_thread(read_object, text) if len(text) > LONG else read_object(text)
        return await take(given)
    except OmniError as error:
        problem = error
    except Exception:  # noqa: BLE001 - one message must not end a conversation
        _log.exception("a message of a live conversation failed")
        problem = OmniError("The server failed at this message; its log tells more.")
    return [fault(problem, event_id_of(given))]


def event_id_of(given: Body) -> str | None:
    """A client's own id for its message, if it has one."""
    id = given.get("event_id")
    return id if isinstance(id, str) else None
