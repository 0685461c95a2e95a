"""What is known of the call that work is done for, on whichever wire it came: every log line and every stage can ask."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from omni_server.timeline import Timeline

REPLIES_KEPT = 16  # of one call; a live conversation has more, and its last ones are told


@dataclass(frozen=True, slots=True)
class Call:
    """`traceparent` is the W3C header of the client's own trace. A call for several pictures has several replies."""

    request_id: str
    traceparent: str | None = None
    replies: deque[Timeline] = field(default_factory=lambda: deque(maxlen=REPLIES_KEPT))

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
