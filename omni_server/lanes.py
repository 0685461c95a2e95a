"""Steps 2, 3 and 7. The one boundary between async and sync: a lane is a worker thread owned by one model.

The threads are daemons: one that hangs in a model is given up, and must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from omni_server.errors import OutOfMemory, Stalled

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Lane:
    """Runs calls one after another (`workers` at once) off the event loop, in the order they came."""

    def __init__(self, name: str, workers: int = 1, seconds: float | None = None) -> None:
        """`seconds`: how long one call may work; its time in the queue does not count."""
        self.workers = workers
        self._name, self._seconds = name, seconds
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._open = 0  # calls that wait or work, in threads that are waited for
        self._closed = False
        self.lost = 0  # threads that were given up and have not come back

    async def run(self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The function's result. A caller that is cancelled leaves at once; a call that has begun runs to its end.
        Raises Stalled where it takes too long."""
        if self._closed:
            raise RuntimeError(f"the lane `{self._name}` is closed")
        result: Result = await self._enter(function, *args, **kwargs).future
        return result

    def post(self, function: Callable[Arguments, object], /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        """Behind what was asked for before. Nobody waits for it, so nobody who leaves can undo it; nothing in a closed lane."""
        if not self._closed:
            self._enter(function, *args, **kwargs)

    def close(self) -> None:
        """Calls that wait are cancelled; those that work go on without anybody waiting."""
        self._closed = True
        with suppress(Empty):
            while True:
                if (call := self._calls.get_nowait()) is not None:
                    call.future.cancel()
        for _ in self._threads:
            self._calls.put(None)

    def join(self, seconds: float) -> None:
        """Waits, after `close`, until the threads are out of the model, at most so long."""
        until = time.monotonic() + seconds
        for thread in list(self._threads):
            thread.join(max(0.0, until - time.monotonic()))

    def _enter(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> _Call:
        context = contextvars.copy_context()
        call = _Call(lambda: context.run(function, *args, **kwargs), self._settle)
        self._open += 1
        self._calls.put(call)
        if len(self._threads) < min(self._open, self.workers):
            self._hire()
        if self._seconds is not None:
            call.timer = call.loop.call_later(self._seconds, self._look, call, self._seconds)
        return call

    def _hire(self) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Whether to go on. A call that is over, and its medium, must not be kept while the next is waited for."""
        call = self._calls.get()
        return call is not None and call.work()

    def _settle(self, call: _Call) -> None:
        """In the event loop, once a call's thread is done with it."""
        if call.given_up:
            self.lost -= 1
            return
        self._open -= 1
        if call.timer is not None:
            call.timer.cancel()
        call.tell()

    def _look(self, call: _Call, seconds: float) -> None:
        """Gives up a call that has worked for `seconds`, and its thread; another takes the thread's place."""
        worked = 0.0 if call.began is None else time.monotonic() - call.began
        if worked < seconds:
            call.timer = call.loop.call_later(seconds - worked, self._look, call, seconds)
        elif call.give_up():
            self._open -= 1
            self.lost += 1
            self._threads.discard(call.thread)
            call.stop(Stalled(f"step `{self._name}` has not come back within `{seconds:g}` seconds"))
            if not self._closed and self._open:
                self._hire()


class _Call:
    def __init__(self, function: Callable[[], Any], settle: Callable[[_Call], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.began: float | None = None
        self.given_up = False
        self.timer: asyncio.TimerHandle | None = None
        self.thread = threading.current_thread()
        self._function, self._settle = function, settle
        self._result: Any = None
        self._fault: BaseException | None = None
        self._over = False
        self._lock = threading.Lock()  # between the thread that ends the call and the loop that gives it up

    def work(self) -> bool:
        """In a thread of the lane, which goes on unless this is false."""
        if not self.future.cancelled():
            self.thread, self.began = threading.current_thread(), time.monotonic()
            try:
                self._result = self._function()
            except BaseException as fault:  # noqa: BLE001 - raised where it is waited for
                self._fault = fault
        with self._lock:
            self._over = True
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(self._settle, self)
        return not self.given_up

    def give_up(self) -> bool:
        """False where it has just ended."""
        with self._lock:
            self.given_up = not self._over
        return self.given_up

    def stop(self, error: Stalled) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def tell(self) -> None:
        if self.future.done():
            return
        if self._fault is not None and _no_memory(self._fault):
            self.future.set_exception(OutOfMemory(f"there is no memory for this: {self._fault}"))
        elif isinstance(self._fault, StopIteration):  # which no future can hold
            self.future.set_exception(RuntimeError("a call raised StopIteration"))
        elif self._fault is not None:
            self.future.set_exception(self._fault)
        else:
            self.future.set_result(self._result)


def _no_memory(fault: BaseException) -> bool:
    """Python's own error, or torch's: an OutOfMemoryError of a device, a plain RuntimeError of a CPU."""
    return (
        isinstance(fault, MemoryError)
        or type(fault).__name__ == "OutOfMemoryError"
        or (isinstance(fault, RuntimeError) and "can't allocate memory" in str(fault))
    )
