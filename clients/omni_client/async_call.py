"""A live conversation for asyncio: the same names as `call.py`, awaited. A test holds the two together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from omni_client.call_events import CallEvent, Ready
from omni_client.call_setup import CALL_NOT_OPEN, CallSetup, Source, connect_error, grpc_module, paced, wire_module
from omni_client.connection import CONNECT_TIMEOUT
from omni_client.content import picture
from omni_client.errors import OmniError, StreamBrokenError
from omni_client.sound import Frames

if TYPE_CHECKING:
    from omni_client.content import Drawn


class AsyncCall:
    """Call for asyncio: the same names; iterate with `async for`, await everything that sends.

    The source may be an async iterator too; another one is read in a thread.
    """

    def __init__(self, setup: CallSetup, source: Source | None) -> None:
        self._setup = setup
        self._source: Any = paced(source)
        self._waiting: deque[CallEvent] = deque()
        self._lock = asyncio.Lock()  # gRPC takes one message at a time
        self._sequence = 0
        self._over = False  # nothing more can be sent
        self._problem: OmniError | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._channel: Any = None
        self._call: Any = None
        self.ready: Ready | None = None

    async def __aenter__(self) -> AsyncCall:
        """Connects, and waits until the conversation may begin. What is wrong with the wishes is raised here."""
        self._grpc, self._wire = grpc_module(), wire_module()
        self._channel = self._setup.channel(self._grpc.aio)
        try:
            try:
                await asyncio.wait_for(self._channel.channel_ready(), CONNECT_TIMEOUT)
            except TimeoutError:
                raise connect_error(self._setup) from None
            self._events = self._wire.CallEvents()
            self._frames = Frames(self._setup.sample_rate)
            self._call = self._setup.stub(self._channel).Converse(metadata=self._setup.metadata)
            await self._put(self._setup.first_request(self._wire))
            while self.ready is None:
                if not await self._read():
                    raise StreamBrokenError("the server ended the conversation at once", request_id=self.request_id)
            if self._source is not None:
                self._feeder = asyncio.create_task(self._feed())
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[CallEvent]:
        return self

    async def __anext__(self) -> CallEvent:
        if self._call is None:
            raise OmniError(CALL_NOT_OPEN.replace("with", "async with"))
        while not self._waiting:
            if not await self._read():
                raise StopAsyncIteration
        return self._waiting.popleft()

    async def send(self, pcm: bytes) -> None:
        """The next sound: 16-bit little-endian mono samples at `ready.input_sample_rate`, cut anywhere."""
        for frame in self._frames.feed(pcm):
            self._sequence += 1
            await self._put(self._wire.audio_request(frame, self._sequence))

    async def send_text(self, text: str) -> None:
        """Words that belong to the person's turn; they are answered when it ends."""
        await self._put(self._wire.text_request(text))

    async def send_picture(self, given: Drawn) -> None:
        """A picture that belongs to the person's turn: a Picture, a path, bytes or a PIL image."""
        await self._put(self._wire.picture_request(picture(given)))

    async def send_tool_result(self, call_id: str, output: str) -> None:
        """What a tool answered: `call_id` is the `id` of its ToolCalled. Once every call of an answer has its result, the model
        goes on by itself."""
        await self._put(self._wire.tool_result_request(call_id, output))

    async def end_turn(self) -> None:
        """The person's turn ends here, whatever the server thinks."""
        await self._put(self._wire.end_turn_request())

    async def interrupt(self, response_id: str = "") -> None:
        """Stops an answer, the one under way by default, but not the conversation."""
        await self._put(self._wire.cancel_request(response_id))

    async def truncate(self, response_id: str, heard: float) -> None:
        """The person heard only `heard` seconds of an answer; its words in the conversation are cut there."""
        await self._put(self._wire.truncate_request(response_id, heard))

    async def played(self, response_id: str, heard: float) -> None:
        """How many seconds of an answer have been heard so far, for a better guess at an interruption. Without effect after
        `finish()`: an answer that is heard then cannot be interrupted."""
        if not self._over:
            await self._put(self._wire.playback_request(response_id, heard))

    async def finish(self) -> None:
        """Nothing more will be sent. The open turn is ended and answered, and then the events end."""
        if not self._over:
            self._over = True
            async with self._lock:
                await self._call.done_writing()

    @property
    def request_id(self) -> str:
        """What the server's log calls this conversation."""
        return self._setup.request_id

    async def close(self) -> None:
        """Ends the conversation at once. Leaving the block does the same."""
        self._over = True
        if self._feeder is not None:
            self._feeder.cancel()
            with suppress(asyncio.CancelledError):
                await self._feeder
        if self._call is not None:
            self._call.cancel()
        if self._channel is not None:
            await self._channel.close()

    async def _put(self, request: Any) -> None:
        if self._over:
            raise OmniError("the conversation is over; nothing more can be sent")
        async with self._lock:
            try:
                await self._call.write(request)
            except (self._grpc.RpcError, asyncio.InvalidStateError):
                self._over = True  # why, the reader is told

    async def _feed(self) -> None:
        """The source, in a task of its own."""
        try:
            async for piece in _pieces(self._source):
                if self._over:
                    return
                await self.send(piece)
            await self.finish()
        except Exception as problem:  # noqa: BLE001 - raised where the events are read
            if not self._over:
                self._problem = problem if isinstance(problem, OmniError) else OmniError(f"the source failed: {problem}")
                self._problem.__cause__ = problem
                self._call.cancel()

    async def _read(self) -> bool:
        """Whether there was another message."""
        try:
            message = await self._call.read()
        except self._grpc.RpcError as fault:
            self._over = True
            self._problem = self._problem or self._setup.error(fault, begun=self.ready is not None)
            raise self._problem from fault
        except asyncio.CancelledError:
            # gRPC raises this also where not the reader was cancelled, but the call.
            if self._problem is not None and self._call.cancelled():
                raise self._problem from None
            raise
        if message is self._grpc.aio.EOF:
            self._over = True
            return False
        self._waiting += self._events.feed(message)
        self.ready = self._events.ready
        return True


async def _pieces(source: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(source, AsyncIterable):
        async for sent in source:
            yield sent
        return
    iterator: Iterator[bytes | None] = iter(source)
    while (piece := await asyncio.to_thread(next, iterator, None)) is not None:
        yield piece
