"""Step 8. How long the server waits for a client that does not read: every write on every answer has its time."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omni_server.errors import ReaderStalled

_log = logging.getLogger(__name__)


class Patience:
    """Gives up an answer of which one write takes longer than `seconds`: its work ends, and its connection is closed."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stalled: ReaderStalled | None = None

        async def send_in_time(message: Message) -> None:
            nonlocal stalled
            if stalled is not None:  # what would tell the client of it cannot be written either
                raise stalled
            try:
                async with asyncio.timeout(self._seconds):
                    await send(message)
            except TimeoutError:
                stalled = ReaderStalled(f"the client has read nothing for `{self._seconds:g}` seconds")
                raise stalled from None

        try:
            await self._app(scope, receive, send_in_time)
        except Exception:
            if stalled is None:
                raise
            _log.warning("an answer was given up: %s", stalled)
