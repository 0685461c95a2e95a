"""drain.py and serving.py: a server that is told to stop, by real signals, with work open on both wires."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from omni.v1 import omni_service_pb2_grpc
from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.cli import rest_config
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.pipeline import Pipeline
from omni_server.rest import create_app
from omni_server.rpc import RpcServer
from omni_server.serving import Server
from tests.doubles import GatedBackbone
from tests.facts import write_checkpoint
from tests.rpc.doors import EARS, error_info
from tests.rpc.test_service import asked
from tests.test_pipeline import END, build


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = Path(tmp_path_factory.mktemp("mini"))
    write_checkpoint(root)
    return read_checkpoint(root)


@dataclass(frozen=True, slots=True)
class Stopping:
    """A server that runs until it is told to stop, its clients, and what its model waits for."""

    pipeline: Pipeline
    backbone: GatedBackbone
    http: httpx.AsyncClient
    stub: Any
    over: asyncio.Task[None]

    async def ask(self) -> httpx.Response:
        body = {"model": self.pipeline.checkpoint.name, "messages": [{"role": "user", "content": "hi"}]}
        return await self.http.post("/v1/chat/completions", json=body)

    async def call(self) -> tuple[grpc.StatusCode, str, bool]:
        """Code and reason of the ending, and whether it may be tried again."""
        call = self.stub.Generate(asked("hi"))
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError:
            code, _, info, retry = await error_info(call)
            return code, info.reason, retry
        return await call.code(), "", False

    async def open_work(self) -> tuple[asyncio.Task[httpx.Response], asyncio.Task[Any]]:
        before = self.backbone.unfinished
        tasks = asyncio.create_task(self.ask()), asyncio.create_task(self.call())
        while self.backbone.unfinished < before + 2:
            await asyncio.sleep(0.01)
        return tasks

    async def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not self.pipeline.drain.leaving:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def stopping(checkpoint: Checkpoint, seconds: float) -> AsyncIterator[Stopping]:
    backbone = GatedBackbone([104, END])
    pipeline, settings = build(checkpoint, backbone), Settings(port=0)
    rpc = RpcServer(Door(pipeline, settings), EARS)
    await rpc.start(0)
    server = Server(rest_config(create_app(pipeline, settings), settings), rpc, pipeline.drain, seconds)
    over = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with (
        asyncio.timeout(30),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{rpc.port}") as channel,
    ):
        stub = omni_service_pb2_grpc.OmniServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            yield Stopping(pipeline, backbone, http, stub, over)
            await over
        finally:
            pipeline.drain.end()
            server.should_exit = True
            await over
            await pipeline.close()


async def test_open_work_ends_well_and_new_work_is_refused(checkpoint: Checkpoint) -> None:
    """Would catch listeners that close at the signal, so that clients see a broken connection and not a 503 that says when to
    come back; open work that is cut off; and readiness that does not fall."""
    async with stopping(checkpoint, seconds=600) as server:
        reply, call = await server.open_work()
        await server.stop()
        refused = await server.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
        assert int(refused.headers["retry-after"]) >= 1
        assert await server.call() == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING", True)
        assert (await server.http.get("/ready")).status_code == 503
        assert (await server.http.get("/health")).status_code == 200
        assert not server.over.done()
        server.backbone.gate.set()
        assert (await reply).json()["choices"][0]["finish_reason"] == "stop"
        assert await call == (grpc.StatusCode.OK, "", False)


async def test_what_is_not_done_in_time_is_told(checkpoint: Checkpoint) -> None:
    """Would catch a server that never stops because one reply never ends, or one that stops without a word to its client."""
    async with stopping(checkpoint, seconds=0.3) as server:
        reply, call = await server.open_work()
        await server.stop()
        assert (await reply).json()["error"]["code"] == "server_stopping"
        assert await call == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING", True)


async def test_a_second_signal_waits_for_nothing(checkpoint: Checkpoint) -> None:
    """Would catch an operator who has to wait out, or to kill, a server that drains for ten minutes."""
    async with stopping(checkpoint, seconds=600) as server:
        reply, call = await server.open_work()
        await server.stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await reply).json()["error"]["code"] == "server_stopping"
        assert (await call)[0] is grpc.StatusCode.UNAVAILABLE


async def test_an_idle_server_stops_at_once(checkpoint: Checkpoint) -> None:
    """Would catch a server that waits for work which is not there: `over` is awaited with 600 seconds to go."""
    async with stopping(checkpoint, seconds=600) as server:
        await server.stop()
