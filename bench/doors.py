"""Part of bench/speech.py: what the doors themselves cost for a second of sound, gRPC over REST, without any model."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import numpy as np
import uvicorn

from omni_server.config import Settings
from omni_server.door import Door
from omni_server.rest import create_app
from omni_server.rpc import RpcServer
from omni_server.types import AudioDelta, Done, Modality, SpanClosed, SpanOpened, TextDelta, Usage
from omni_server.vad import SileroEars

SECONDS_OF_SOUND = 60


async def doors() -> None:
    """The same reply of one minute of sound through both doors, without any model; the client is a process of its own."""
    from tests.doubles import ScriptedPipeline

    piece = (np.sin(np.arange(4800) / 20) * 0.5).astype(np.float32)
    deltas = [AudioDelta(1, piece, 24_000)] * (SECONDS_OF_SOUND * 5)
    words = [SpanOpened(0, Modality.TEXT), TextDelta(0, "a"), SpanClosed(0)]
    sound = [SpanOpened(1, Modality.AUDIO), *deltas, SpanClosed(1)]
    pipeline = ScriptedPipeline(*words, *sound, Done("stop", Usage()))
    settings = Settings(shutdown_seconds=0)
    rpc = RpcServer(Door(pipeline, settings), SileroEars())
    await rpc.start(0)
    config = uvicorn.Config(create_app(pipeline, settings), host="127.0.0.1", port=0, log_level="warning")
    rest = uvicorn.Server(config)
    task = asyncio.create_task(rest.serve())
    while not rest.started:
        await asyncio.sleep(0.01)
    ports = {"rest": rest.servers[0].sockets[0].getsockname()[1], "grpc": rpc.port}
    sizes, seconds = {}, {}
    for kind, port in ports.items():
        await listen(kind, port, 1)
        begun = time.process_time()
        sizes[kind] = await listen(kind, port, 5)
        seconds[kind] = time.process_time() - begun
    rest.should_exit = True
    await task
    await rpc.drain(0.0)
    print(f"bytes per second of sound, gRPC over REST: {sizes['grpc'] / sizes['rest']:.2f}")
    print(f"CPU of the door per second of sound, gRPC over REST: {seconds['grpc'] / seconds['rest']:.2f}")


async def listen(kind: str, port: Any, times: int) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.listener", kind, str(port), str(times), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return int(json.loads(out)["bytes"])
