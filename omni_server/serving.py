"""Steps 1 and 8. The server process around both doors: when it is ready, and how it leaves."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from types import FrameType

import uvicorn

from omni_server.drain import Drain
from omni_server.rpc import RpcServer

LOOK_SECONDS = 0.1  # between two looks at whether anything is still open
LAST_SECONDS = 2.0  # for what has been told that the time is over to be written


def settle() -> None:
    """Once everything is loaded: the collector of rings looks no more at what stays for good. Looking at its million objects
    takes half a second, in which nobody is served, and comes only after a quarter as many new ones."""
    gc.collect()
    gc.freeze()


class Server(uvicorn.Server):
    """The first signal drains: both doors stay open and say that nothing new is taken. The second ends what is open, which
    is told; the third waits for nobody."""

    def __init__(self, config: uvicorn.Config, rpc: RpcServer, drain: Drain, seconds: float) -> None:
        super().__init__(config)
        self._rpc, self._drain, self._seconds = rpc, drain, seconds
        self._leaving: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            if self._rpc.port is not None:
                print(f"omni-server answers gRPC on {host}:{self._rpc.port}")
            print(f"omni-server is ready on {'https' if self.config.is_ssl else 'http'}://{host}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._leave)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.timeout_graceful_shutdown = round(LAST_SECONDS)
        await asyncio.gather(super().shutdown(sockets), self._rpc.drain(LAST_SECONDS))

    def _leave(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._left())
        elif not self.should_exit:
            self._drain.end()
            self.should_exit = True
        else:
            self.force_exit = True

    async def _left(self) -> None:
        self._drain.begin(self._seconds)
        until = time.monotonic() + self._seconds
        while time.monotonic() < until and (self.server_state.tasks or self._rpc.busy):
            await asyncio.sleep(LOOK_SECONDS)
        self._drain.end()
        self.should_exit = True
