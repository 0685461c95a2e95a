"""What is known of the call that work is done for, on whichever wire it came: every log line and every stage can ask."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from omni_server.errors import DeadlineExceeded, RequestError
from omni_server.timeline import Timeline
from omni_server.wording import shown

REPLIES_KEPT = 16  # of one call; a live conversation has more, and its last ones are told
# Headers over REST, metadata over gRPC.
TIMEOUT, FIRST_AUDIO = "x-request-timeout-ms", "x-first-audio-by-ms"
LONGEST_MS = 24 * 3600 * 1000


def seconds_of(header: str, given: str | None) -> float | None:
    """How long the client waits, by one of the two headers; None where it does not say."""
    if not given:
        return None
    if not given.isascii() or not given.isdigit() or not 0 < int(given[:10]) <= LONGEST_MS:
        raise RequestError(f"`{header}` is {shown(given)}; expected a whole number from 1 to {LONGEST_MS}", param=header)
    return int(given) / 1000


@dataclass(frozen=True, slots=True)
class Call:
    """`traceparent` is the W3C header of the client's own trace; `began` and `deadline`, when the client stops waiting, are
    on the monotonic clock. `first_audio_within`, in seconds, is how long it wants to wait for the first sound of a reply, and
    `plans` are how that is to be met. A call for several pictures has several replies."""

    request_id: str
    traceparent: str | None = None
    deadline: float | None = None
    began: float = field(default_factory=time.monotonic)
    first_audio_within: float | None = None
    plans: set[str] = field(default_factory=set)
    replies: deque[Timeline] = field(default_factory=lambda: deque(maxlen=REPLIES_KEPT))

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    def server_timing(self) -> str:
        """The stages that have worked so far, as the `Server-Timing` header has them, in the order they began."""
        stages = [stage for reply in self.replies for stage in reply.stages.items()]
        return ", ".join(
            f"{name};dur={stage.worked * 1000:.1f};start={stage.start * 1000:.1f}"
            for name, stage in sorted(stages, key=lambda named: named[1].start)
        )


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """None in work that no client waits for."""
    return _current.get()


@contextmanager
def under(call: Call) -> Iterator[None]:
    """Everything inside, and every task begun inside, belongs to this call."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """What is inside is cancelled at the client's deadline, where there is one, and becomes DeadlineExceeded."""
    call = current_call()
    try:
        async with asyncio.timeout_at(call.deadline if call is not None else None) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded("the time that the client gave is over; expected a longer deadline, or less to do") from None
