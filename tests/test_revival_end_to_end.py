"""An engine of its own, killed under load: every open request is told, on both wires, and the server serves again by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterable
from typing import Any

import grpc
import httpx
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from omni.v1 import content_pb2, omni_service_pb2
from omni_server.config import Settings
from omni_server.rpc.server import NOT_SERVING, SERVING
from omni_server.types import Modality
from tests.conftest import RealServer, serving
from tests.doubles import FaultyDecoder
from tests.rest.scripts import png_url
from tests.rpc.doors import Client, rpc_client

# Hot sampling makes replies that are under way when the engine dies.
BODY: dict[str, Any] = {
    "model": "omni-tiny",
    "messages": [{"role": "user", "content": "say everything"}],
    "temperature": 2.0,
    "top_p": 1.0,
    "max_completion_tokens": 600,
}


def engine_processes() -> set[int]:
    return {child.pid for child in psutil.Process().children() if "EngineCore" in named(child)}


def named(process: psutil.Process) -> str:
    """Nothing of one that has just died."""
    try:
        return " ".join((process.name(), *process.cmdline()))
    except psutil.Error:
        return ""


async def plain(http: httpx.AsyncClient, begun: asyncio.Semaphore, body: dict[str, Any]) -> str:
    begun.release()
    reply = await http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 503 and int(reply.headers["retry-after"]) >= 1
    return str(reply.json()["error"]["code"])


async def streamed(http: httpx.AsyncClient, begun: asyncio.Semaphore, body: dict[str, Any]) -> str:
    endings = []
    async with http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as reply:
        async for line in reply.aiter_lines():
            begun.release()
            if '"error"' in line or "[DONE]" in line:
                endings.append(line)
    (ending,) = endings
    return str(json.loads(ending.removeprefix("data: "))["error"]["code"])


async def called(client: Client, begun: asyncio.Semaphore) -> str:
    part = content_pb2.Part(text="say everything")
    call: Any = client.stub.Generate(
        omni_service_pb2.GenerateRequest(
            messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[part])],
            sampling=content_pb2.Sampling(temperature=2.0, top_p=1.0, max_tokens=600),
        )
    )
    try:
        async for _ in call:
            begun.release()
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "whole"


async def answered(http: httpx.AsyncClient) -> bool:
    reply = await http.post("/v1/chat/completions", json=BODY | {"max_completion_tokens": 4})
    return reply.status_code == 200


async def killed_under_load(http: httpx.AsyncClient, client: Client, engines: set[int], ends: Iterable[int]) -> None:
    """`ends` are ruled out, so that what REST asks for is still open; a call may be over already."""
    begun = asyncio.Semaphore(0)
    body = BODY | {"logit_bias": {str(end): -100 for end in ends}}
    asked = [work for _ in range(2) for work in (plain(http, begun, body), streamed(http, begun, body), called(client, begun))]
    tasks = [asyncio.create_task(work) for work in asked]
    for _ in range(12):  # a draft makes several tokens at a time, and calls must not be over yet
        await begun.acquire()
    (engine,) = engines
    os.kill(engine, signal.SIGKILL)
    endings = await asyncio.gather(*tasks)
    assert endings.count("engine_unavailable") == 4 and "UNAVAILABLE" in endings
    assert set(endings) <= {"engine_unavailable", "UNAVAILABLE", "whole"}
    assert (await http.get("/ready")).status_code == 503
    while (await http.get("/ready")).status_code != 200:
        assert not await answered(http)
        await asyncio.sleep(0.2)
    assert await answered(http)


async def test_an_engine_that_is_killed_comes_back() -> None:
    """Would catch a request without an end, a server that stays in rotation with a dead engine, one that a human must
    restart, and an old engine that leaves its sockets or its process behind."""
    others = engine_processes()  # of the server that other tests share
    async with (
        serving(Settings(port=0, threads=1)) as server,
        rpc_client(server.pipeline) as client,
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        asyncio.timeout(240),
    ):
        assert await answered(http)
        before, handles = engine_processes(), psutil.Process().num_fds()
        await killed_under_load(http, client, before - others, server.pipeline._end_of_turn)
        assert len(engine_processes()) == len(before)
        assert psutil.Process().num_fds() <= handles + 20  # the clients' own connections are among them


async def test_a_broken_lane_falls_and_comes_back_on_both_wires(server: RealServer) -> None:
    """Would catch health that stays up, or down, while a real vocoder is out of order, and words that fall with it."""
    maker = server.pipeline._makers[Modality.AUDIO]
    good = maker._decoder
    spoken = BODY | {"modalities": ["text", "audio"], "audio": {"voice": "heart", "format": "wav"}, "max_completion_tokens": 60}
    async with (
        rpc_client(server.pipeline) as client,
        httpx.AsyncClient(base_url=server.url, timeout=120) as http,
        asyncio.timeout(240),
    ):
        health: Any = health_pb2_grpc.HealthStub(client.channel)  # type: ignore[no-untyped-call]

        async def state(modality: str) -> tuple[int, int]:
            status = await health.Check(health_pb2.HealthCheckRequest(service=f"modality/{modality}"))
            return (await http.get(f"/ready/{modality}")).status_code, status.status

        async def until(modality: str, wanted: tuple[int, int]) -> None:
            while await state(modality) != wanted:
                await asyncio.sleep(0.2)

        await until("audio", (200, SERVING))
        broken = FaultyDecoder(Modality.AUDIO)
        broken.error = RuntimeError("no vocoder")
        maker._decoder = broken
        try:
            reply = await http.post("/v1/audio/speech", json={"model": "omni-tiny", "input": "hello", "response_format": "wav"})
            assert reply.status_code in (500, 503), reply.text
            await until("audio", (503, NOT_SERVING))
            assert await state("text") == (200, SERVING) and (await http.get("/ready")).json()["status"] == "degraded"
            assert await answered(http)
            assert (await http.post("/v1/chat/completions", json=spoken)).status_code == 200
        finally:
            maker._decoder = good
        await until("audio", (200, SERVING))
        reply = await http.post("/v1/audio/speech", json={"model": "omni-tiny", "input": "hello", "response_format": "wav"})
        assert reply.status_code == 200 and reply.content[:4] == b"RIFF"


async def test_decoders_that_are_killed_under_load_cost_at_most_their_own_request(server: RealServer) -> None:
    """Would catch a killed decoder that takes others with it, is not replaced, or leaves a request without an end."""
    quarantine: Any = server.pipeline._loader._decoding
    asked = [{"type": "image_url", "image_url": {"url": png_url(colour)}} for colour in ("red", "green", "blue", "white") * 3]
    begun = asyncio.Semaphore(0)

    async def looked_at(http: httpx.AsyncClient, picture: dict[str, Any]) -> int:
        begun.release()
        messages = [{"role": "user", "content": [picture, {"type": "text", "text": "what is this"}]}]
        reply = await http.post("/v1/chat/completions", json=BODY | {"messages": messages, "max_completion_tokens": 8})
        assert reply.status_code == 200 or reply.json()["error"]["code"] == "invalid_media", reply.text
        return reply.status_code

    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http, asyncio.timeout(240):
        before = [worker.process for worker in quarantine._idle.queue]
        tasks = [asyncio.create_task(looked_at(http, picture)) for picture in asked]
        await begun.acquire()
        for process in before:
            process.kill()
        statuses = await asyncio.gather(*tasks)
        assert statuses.count(400) <= len(before), statuses
        assert await looked_at(http, asked[0]) == 200
