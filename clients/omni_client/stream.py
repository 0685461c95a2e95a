"""A reply while it is being made: events in order, the whole of it at the end. Leaving the block stops the server's work."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType

import httpx

from omni_client.chat_events import ChatEvents
from omni_client.connection import Connection, answered_id
from omni_client.errors import APIError, OmniError
from omni_client.events import AudioDelta, Event, TextDelta
from omni_client.reply import Reply, ReplyBuilder

NOT_OPEN = "the stream is not open; expected `with client.stream(...) as stream:`"


class ReplyReader:
    """Bytes in, events out, and what has arrived. State without I/O; the two streams below read the bytes for it."""

    def __init__(self, connection: Connection) -> None:
        self.request_id = ""
        self._connection = connection
        self._chat = ChatEvents()
        self._builder = ReplyBuilder()
        self._waiting: deque[Event] = deque()
        self._problem: APIError | None = None
        self.complete = False

    def begin(self, request_id: str) -> None:
        self.request_id = request_id
        self._chat = ChatEvents(request_id)

    def feed(self, item: bytes | None) -> None:
        """`None` is the end of the body."""
        try:
            self._waiting += self._chat.finish() if item is None else self._chat.feed(item)
        except APIError as problem:
            self._problem = problem
        self.complete = self.complete or item is None

    def broke(self, fault: httpx.RequestError) -> None:
        """A connection that breaks after the last event has broken nothing."""
        if self._chat.ended:
            self.complete = True
        else:
            self._problem = self._connection.broken(fault, self.request_id)

    def take(self) -> Event | None:
        """The next event that is here. Raises, and goes on raising, what ended the reply badly."""
        if self._waiting:
            event = self._waiting.popleft()
            self._builder.feed(event)
            return event
        if self._problem is not None:
            raise self._problem
        return None

    def snapshot(self) -> Reply:
        return self._builder.reply(id=self._chat.id, model=self._chat.model, request_id=self.request_id)


class ReplyStream:
    """One pass over a reply: iterate it for events, or `text` or `audio` for those pieces alone; each goes on where the one
    before it stopped. Raises ReplyFailedError, StreamBrokenError or APITimeoutError where the reply ends badly.
    """

    def __init__(self, open: Callable[[], tuple[httpx.Response, str]], connection: Connection) -> None:
        self._open = open
        self._reader = ReplyReader(connection)
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] | None = None

    def __enter__(self) -> ReplyStream:
        """Sends the request. What is wrong with it is raised here."""
        self._response, request_id = self._open()
        self._reader.begin(answered_id(self._response, request_id))
        self._pieces = self._response.iter_bytes()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while True:
            event = self._reader.take()
            if event is not None:
                return event
            if self._reader.complete:
                raise StopIteration
            if self._pieces is None:
                raise OmniError(NOT_OPEN)
            try:
                self._reader.feed(next(self._pieces, None))
            except httpx.RequestError as fault:
                self._reader.broke(fault)

    @property
    def text(self) -> Iterator[str]:
        """The words, piece by piece."""
        return (event.text for event in self if isinstance(event, TextDelta))

    @property
    def audio(self) -> Iterator[bytes]:
        """The voice, piece by piece: 16-bit little-endian mono samples, 24,000 a second."""
        return (event.pcm for event in self if isinstance(event, AudioDelta))

    def final(self) -> Reply:
        """Reads to the end and returns the whole reply, also what was read before."""
        for _ in self:
            pass
        return self._reader.snapshot()

    @property
    def snapshot(self) -> Reply:
        """What has been read so far, also after an error."""
        return self._reader.snapshot()

    @property
    def request_id(self) -> str:
        """What the server's log calls this request."""
        return self._reader.request_id

    def close(self) -> None:
        """Stops the reply on the server, where it still goes on. Leaving the block does the same."""
        self._pieces = None
        if self._response is not None:
            self._response.close()


class AsyncReplyStream:
    """ReplyStream for asyncio: the same names; iterate with `async for`, await `final()` and `close()`."""

    def __init__(self, open: Callable[[], Awaitable[tuple[httpx.Response, str]]], connection: Connection) -> None:
        self._open = open
        self._reader = ReplyReader(connection)
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> AsyncReplyStream:
        """Sends the request. What is wrong with it is raised here."""
        self._response, request_id = await self._open()
        self._reader.begin(answered_id(self._response, request_id))
        self._pieces = self._response.aiter_bytes()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while True:
            event = self._reader.take()
            if event is not None:
                return event
            if self._reader.complete:
                raise StopAsyncIteration
            if self._pieces is None:
                raise OmniError(NOT_OPEN.replace("with", "async with"))
            try:
                self._reader.feed(await anext(self._pieces, None))
            except httpx.RequestError as fault:
                self._reader.broke(fault)

    @property
    def text(self) -> AsyncIterator[str]:
        """The words, piece by piece."""
        return (event.text async for event in self if isinstance(event, TextDelta))

    @property
    def audio(self) -> AsyncIterator[bytes]:
        """The voice, piece by piece: 16-bit little-endian mono samples, 24,000 a second."""
        return (event.pcm async for event in self if isinstance(event, AudioDelta))

    async def final(self) -> Reply:
        """Reads to the end and returns the whole reply, also what was read before."""
        async for _ in self:
            pass
        return self._reader.snapshot()

    @property
    def snapshot(self) -> Reply:
        """What has been read so far, also after an error."""
        return self._reader.snapshot()

    @property
    def request_id(self) -> str:
        """What the server's log calls this request."""
        return self._reader.request_id

    async def close(self) -> None:
        """Stops the reply on the server, where it still goes on. Leaving the block does the same."""
        self._pieces = None
        if self._response is not None:
            await self._response.aclose()
