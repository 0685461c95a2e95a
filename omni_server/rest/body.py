"""Steps 1 and 8. A body of bounded size, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi.requests import Request
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from omni_server.errors import MediaTooLarge, RequestError


async def read_body(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes. A little more than that is read and dropped, because a client that is still
    sending when the connection closes never sees the answer."""
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size <= limit:
                pieces.append(piece)
            elif size > 2 * limit:
                break
            else:
                pieces.clear()
    except ClientDisconnect:
        raise RequestError("The client went away before its body was complete") from None
    if size > limit:
        raise MediaTooLarge(f"The body holds more than `{limit}` bytes, the limit of this server")
    return b"".join(pieces)


async def unless_gone(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Runs `work` to its end, and cancels it when the client goes away; returns after its clean-up in both cases."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        working.cancel()  # without effect where it is done
        await asyncio.wait({working, watching})
    if not working.cancelled():
        working.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
