"""A live conversation over gRPC: sound goes up while the person speaks, and comes down while the model speaks.

Only entering a call imports gRPC. Leaving the block, at any moment, ends the call and the work on the server.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
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

WAITING_REQUESTS = 64
CLOSING_SECONDS = 1.0


class Call:
    """A live conversation, between `with client.converse(...) as call:` and the end of that block. Iterate it for events; it
    ends when the server has answered everything after `finish()`, or after the end of the source.

    `ready` says what holds. Sending is safe from any thread, also while another iterates.
    """

    def __init__(self, setup: CallSetup, source: Source | None) -> None:
        self._setup = setup
        self._source: Iterable[bytes] | None = paced(source)  # type: ignore[assignment]
        self._requests: queue.Queue[Any] = queue.Queue(WAITING_REQUESTS)
        self._waiting: deque[CallEvent] = deque()
        self._lock = threading.Lock()
        self._sequence = 0
        self._over = threading.Event()  # nothing more can be sent
        self._problem: OmniError | None = None
        self._feeder: threading.Thread | None = None
        self._channel: Any = None
        self._call: Any = None
        self.ready: Ready | None = None

    def __enter__(self) -> Call:
        """Connects, and waits until the conversation may begin. What is wrong with the wishes is raised here."""
        grpc, self._wire = grpc_module(), wire_module()
        self._channel = self._setup.channel(grpc)
        try:
            try:
                grpc.channel_ready_future(self._channel).result(CONNECT_TIMEOUT)
            except grpc.FutureTimeoutError:
                raise connect_error(self._setup) from None
            self._events = self._wire.CallEvents()
            self._frames = Frames(self._setup.sample_rate)
            self._put(self._setup.first_request(self._wire))
            self._call = self._setup.stub(self._channel).Converse(iter(self._requests.get, None), metadata=self._setup.metadata)
            while self.ready is None:
                self._read()
            if self._source is not None:
                self._feeder = threading.Thread(target=self._feed, daemon=True)
                self._feeder.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[CallEvent]:
        return self

    def __next__(self) -> CallEvent:
        if self._call is None:
            raise OmniError(CALL_NOT_OPEN)
        while not self._waiting:
            self._read()
        return self._waiting.popleft()

    def send(self, pcm: bytes) -> None:
        """The next sound: 16-bit little-endian mono samples at `ready.input_sample_rate`, cut anywhere."""
        with self._lock:
            for frame in self._frames.feed(pcm):
                self._sequence += 1
                self._put(self._wire.audio_request(frame, self._sequence))

    def send_text(self, text: str) -> None:
        """Words that belong to the person's turn; they are answered when it ends."""
        self._put(self._wire.text_request(text))

    def send_picture(self, given: Drawn) -> None:
        """A picture that belongs to the person's turn: a Picture, a path, bytes or a PIL image."""
        self._put(self._wire.picture_request(picture(given)))

    def send_tool_result(self, call_id: str, output: str) -> None:
        """What a tool answered: `call_id` is the `id` of its ToolCalled. Once every call of an answer has its result, the model
        goes on by itself."""
        self._put(self._wire.tool_result_request(call_id, output))

    def end_turn(self) -> None:
        """The person's turn ends here, whatever the server thinks."""
        self._put(self._wire.end_turn_request())

    def interrupt(self, response_id: str = "") -> None:
        """Stops an answer, the one under way by default, but not the conversation."""
        self._put(self._wire.cancel_request(response_id))

    def truncate(self, response_id: str, heard: float) -> None:
        """The person heard only `heard` seconds of an answer; its words in the conversation are cut there."""
        self._put(self._wire.truncate_request(response_id, heard))

    def played(self, response_id: str, heard: float) -> None:
        """How many seconds of an answer have been heard so far, for a better guess at an interruption. Without effect after
        `finish()`: an answer that is heard then cannot be interrupted."""
        if not self._over.is_set():
            self._put(self._wire.playback_request(response_id, heard))

    def finish(self) -> None:
        """Nothing more will be sent. The open turn is ended and answered, and then the events end."""
        if not self._over.is_set():
            self._put(None)
            self._over.set()

    @property
    def request_id(self) -> str:
        """What the server's log calls this conversation."""
        return self._setup.request_id

    def close(self) -> None:
        """Ends the conversation at once. Leaving the block does the same."""
        self._over.set()
        if self._call is not None:
            self._call.cancel()
        with contextlib.suppress(queue.Full):
            self._requests.put_nowait(None)  # lets gRPC's own thread end
        if self._channel is not None:
            self._channel.close()
        if self._feeder is not None:
            self._feeder.join(CLOSING_SECONDS)

    def _put(self, request: Any) -> None:
        """Waits where the network is slower than the sound; gives up where the conversation is over."""
        while not self._over.is_set():
            with contextlib.suppress(queue.Full):
                self._requests.put(request, timeout=0.1)
                return
        raise OmniError("the conversation is over; nothing more can be sent")

    def _feed(self) -> None:
        """The source, in a thread of its own."""
        assert self._source is not None
        try:
            for piece in self._source:
                if self._over.is_set():
                    return
                self.send(piece)
            self.finish()
        except Exception as problem:  # noqa: BLE001 - raised where the events are read
            if not self._over.is_set():
                self._problem = problem if isinstance(problem, OmniError) else OmniError(f"the source failed: {problem}")
                self._problem.__cause__ = problem
                self._call.cancel()

    def _read(self) -> None:
        grpc = grpc_module()
        try:
            message = next(self._call)
        except StopIteration:
            self._over.set()
            if self.ready is None:
                raise StreamBrokenError("the server ended the conversation at once", request_id=self.request_id) from None
            raise
        except grpc.RpcError as fault:
            self._over.set()
            if self._problem is None:
                self._problem = self._setup.error(fault, begun=self.ready is not None)
            raise self._problem from fault
        self._waiting += self._events.feed(message)
        self.ready = self._events.ready
