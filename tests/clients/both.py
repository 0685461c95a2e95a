"""Every test of the clients runs twice: `Both` gives the sync client and the async one the same face."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx

from omni_client import AsyncOmniClient, Event, OmniClient, Reply


class Both:
    """`call` a method; `stream` a reply: its events and the whole of it, or the error in their midst."""

    def __init__(
        self, kind: str, url: str, handler: Callable[[httpx.Request], httpx.Response] | None = None, **given: Any
    ) -> None:
        transport = httpx.MockTransport(handler) if handler is not None else None
        self.kind = kind
        self.client: Any
        if kind == "sync":
            self.client = OmniClient(url, http_client=httpx.Client(transport=transport), **given)
        else:
            self.client = AsyncOmniClient(url, http_client=httpx.AsyncClient(transport=transport), **given)

    async def call(self, method: str, *given: Any, **named: Any) -> Any:
        if self.kind == "sync":
            return await asyncio.to_thread(getattr(self.client, method), *given, **named)
        return await getattr(self.client, method)(*given, **named)

    async def stream(self, *given: Any, **wishes: Any) -> tuple[list[Event], Reply, Exception | None]:
        """All events, what has arrived, and how it ended badly, if it did."""
        return await (
            asyncio.to_thread(self._sync_stream, given, wishes) if self.kind == "sync" else self._stream(given, wishes)
        )

    def _sync_stream(self, given: Any, wishes: Any) -> tuple[list[Event], Reply, Exception | None]:
        events: list[Event] = []
        with self.client.stream(*given, **wishes) as stream:
            try:
                for event in stream:
                    events.append(event)
                return events, stream.final(), None
            except Exception as problem:  # noqa: BLE001 - the test looks at it
                return events, stream.snapshot, problem

    async def _stream(self, given: Any, wishes: Any) -> tuple[list[Event], Reply, Exception | None]:
        events: list[Event] = []
        async with self.client.stream(*given, **wishes) as stream:
            try:
                async for event in stream:
                    events.append(event)
                return events, await stream.final(), None
            except Exception as problem:  # noqa: BLE001 - the test looks at it
                return events, stream.snapshot, problem


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        await asyncio.sleep(0.01)
