"""Steps 3 and 7. One model in its lane, watched: a failure is followed by a probe, which says whether the model is down.

So a request that no model could serve takes nothing from the others, and a model that is broken is found broken at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from omni_server.backoff import Backoff
from omni_server.errors import ModalityDown, OmniError, Stalled
from omni_server.lanes import Lane

_log = logging.getLogger(__name__)

MOST_LOST = 8  # threads that may hang in one model beside those that met its fault first; each probe would add another
STAGE_SECONDS = 120.0  # that one call may take where the deployment does not say

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Breaker:
    """`name` is what users are told, `probe` works the model on something known to be good; it is told whether it hung."""

    def __init__(self, name: str, lane: Lane, probe: Callable[[bool], object]) -> None:
        self.lane, self.up = lane, True
        self._name, self._probe = name, probe
        self._hung = False
        self._due = 0.0
        self._examiner: asyncio.Task[None] | None = None

    async def run(self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The function's result. Raises ModalityDown where the model is down or hangs in it, else what the function raised."""
        if not self.up:
            raise self._down()
        try:
            return await self.lane.run(function, *args, **kwargs)
        except Stalled as stalled:
            _log.error("%s is down: its model has not come back from a call", self._name)
            self.up, self._hung = False, True
            self._examine()
            raise self._down() from stalled
        except OmniError:
            raise  # the request's own fault
        except Exception:
            self._examine()
            raise

    def close(self) -> None:
        if self._examiner is not None:
            self._examiner.cancel()
        self.lane.close()

    def _examine(self) -> None:
        if self._examiner is None or self._examiner.done():
            self._examiner = asyncio.create_task(self._examined())

    async def _examined(self) -> None:
        """Probes until the model works: at once, then with longer and longer pauses."""
        clock, backoff = asyncio.get_running_loop().time, Backoff()
        while True:
            wait = backoff.failed()
            self._due = clock() + wait
            await asyncio.sleep(wait)
            if self.lane.lost >= self.lane.workers + MOST_LOST:
                continue
            try:
                await self.lane.run(self._probe, self._hung)
            except Exception as fault:  # noqa: BLE001 - whatever it is, the model does not work
                if self.up:
                    _log.exception("%s is down: its model fails on what it should know", self._name)
                self.up = False
                self._hung = self._hung or isinstance(fault, Stalled)
            else:
                if not self.up:
                    _log.warning("%s is up again", self._name)
                self.up, self._hung = True, False
                return

    def _down(self) -> ModalityDown:
        left = max(1.0, self._due - asyncio.get_running_loop().time())
        return ModalityDown(f"{self._name} is out of order, and probed until it works again", retry_after=left)
