"""Every limit of a key, on every wire: the same ledger, the same refusal, and no key in what the server writes."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import websockets
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from omni.v1 import content_pb2, converse_pb2, omni_service_pb2, omni_service_pb2_grpc
from omni_server.access import Access
from omni_server.app import build_app
from omni_server.checkpoint import Checkpoint
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.keys import KeyFile, Limits, add_key
from omni_server.metered import Metered
from omni_server.rpc import RpcServer
from omni_server.traces import SpanTracer
from omni_server.watch import Watch
from tests.doubles import HandClock, LoudEars, ScriptedBackbone, ScriptedPipeline
from tests.rest.scripts import done, picture, served, tone, voice, words
from tests.rpc.doors import error_info
from tests.test_pipeline import END, build, checkpoint, speech

__all__ = ["checkpoint"]

# Of one reply: more than what the limits below leave after it.
SCRIPT = (*words(0, "hi"), *voice(1, tone(1.0)), *picture(2), done())
LIMITS = {
    "requests_per_minute": Limits(requests_per_minute=1),
    "tokens_per_minute": Limits(tokens_per_minute=10),
    "audio_seconds_per_minute": Limits(audio_seconds_per_minute=0.1),
    "images_per_minute": Limits(images_per_minute=1),
    "concurrency": Limits(concurrency=1),
}


@dataclass
class Doors:
    """One server's, and one key to them."""

    url: str
    channel: grpc.aio.Channel
    key: str
    model: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@asynccontextmanager
async def doors(tmp_path: Path, limits: Limits, pipeline: Any = None) -> AsyncIterator[Doors]:
    path = tmp_path / "keys"
    key = add_key(path, "ann", limits)
    access = Access(KeyFile(path), HandClock())
    scripted, ears, settings = pipeline or ScriptedPipeline(*SCRIPT), LoudEars(), Settings(keys_file=path, shutdown_seconds=0)
    server = RpcServer(Door(Metered(scripted), settings, access), ears)
    await server.start(0)
    with served(scripted, app=build_app(scripted, settings, ears, access)) as url:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Doors(url, channel, key, scripted.checkpoint.name)
        await server.drain(0.0)
    ears.lane.close()


async def over_rest(doors: Doors) -> str:
    body: dict[str, Any] = {
        "model": doors.model,
        "messages": [{"role": "user", "content": "hi"}],
        "modalities": ["text", "image", "audio"],
    }
    body |= {"audio": {"voice": "mint", "format": "pcm16"}}
    async with httpx.AsyncClient(base_url=doors.url, headers=doors.headers, timeout=60) as client:
        reply = await client.post("/v1/chat/completions", json=body)
    return "served" if reply.status_code == 200 else f"{reply.status_code} {reply.json()['error']['code']}"


async def over_websocket(doors: Doors) -> str:
    """A call of its own for each answer."""
    try:
        async with websockets.connect(
            doors.url.replace("http", "ws", 1) + "/v1/realtime", additional_headers=doors.headers
        ) as socket:
            asked = {"type": "response.create", "response": {"instructions": "say hi", "output_modalities": ["audio", "image"]}}
            await socket.send(json.dumps(asked))
            while (event := json.loads(await socket.recv()))["type"] not in ("response.done", "error"):
                pass
    except websockets.InvalidStatus as refused:
        return f"{refused.response.status_code} {json.loads(refused.response.body)['error']['code']}"
    if event["type"] == "error":
        return f"429 {event['error']['code']}"
    error = ((event["response"].get("status_details") or {}).get("error") or {}).get("code")
    return f"429 {error}" if error else "served"


async def over_grpc(doors: Doors) -> str:
    modalities = (content_pb2.MODALITY_TEXT, content_pb2.MODALITY_IMAGE, content_pb2.MODALITY_AUDIO)
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="hi")])
    stub: Any = omni_service_pb2_grpc.OmniServiceStub(doors.channel)  # type: ignore[no-untyped-call]
    asked = omni_service_pb2.GenerateRequest(messages=[message], modalities=modalities)
    call = stub.Generate(asked, metadata=(("authorization", f"Bearer {doors.key}"),))
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError:
        code, _, info, retry = await error_info(call)
        assert retry is (code is grpc.StatusCode.RESOURCE_EXHAUSTED)
        return f"{429 if code is grpc.StatusCode.RESOURCE_EXHAUSTED else code.name} {info.reason.lower()}"
    return "served"


@asynccontextmanager
async def call_under_way(doors: Doors) -> AsyncIterator[None]:
    """A conversation over gRPC that waits for its speaker."""
    stub: Any = omni_service_pb2_grpc.OmniServiceStub(doors.channel)  # type: ignore[no-untyped-call]
    call = stub.Converse(metadata=(("authorization", f"Bearer {doors.key}"),))
    await call.write(converse_pb2.ConverseRequest(config=converse_pb2.ConverseConfig()))
    assert (await call.read()).HasField("ready")
    yield
    call.cancel()


WIRES: dict[str, Callable[[Doors], Awaitable[str]]] = {"rest": over_rest, "websocket": over_websocket, "grpc": over_grpc}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("limit", LIMITS)
async def test_each_limit_holds_on_each_wire(tmp_path: Path, limit: str, wire: str) -> None:
    """Catches a limit that one wire does not count or does not ask about, or that it refuses in its own words."""
    async with doors(tmp_path, LIMITS[limit]) as open_doors:
        if limit == "concurrency":
            async with call_under_way(open_doors):
                assert await WIRES[wire](open_doors) == "429 rate_limit_exceeded"
            return
        assert await over_grpc(open_doors) == "served"
        assert await WIRES[wire](open_doors) == "429 rate_limit_exceeded"


async def test_no_key_stands_in_logs_metrics_or_traces(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, checkpoint: Checkpoint
) -> None:
    """Catches a key, good or wrong, that whoever reads the server's own words could call with."""
    caplog.set_level(logging.DEBUG, logger="omni_server")  # libraries keep to warnings, as `logs.set_up` has it
    exporter = InMemorySpanExporter()
    tracer = SpanTracer(exporter, "mini")
    pipeline = build(checkpoint, ScriptedBackbone([104], speech(checkpoint, 1), [END]))
    pipeline._watch = Watch(pipeline.measures, tracer)
    async with doors(tmp_path, Limits(tokens_per_minute=10), pipeline) as open_doors:
        good, wrong = open_doors.key, "sk-omni-wrong-but-a-secret"
        for key in (good, wrong, good):
            open_doors.key = key
            for ask in WIRES.values():
                await ask(open_doors)
        async with httpx.AsyncClient(base_url=open_doors.url, headers={"authorization": f"Bearer {good}"}) as client:
            (await client.get("/metrics")).raise_for_status()
            metrics = (await client.get("/metrics", params={"api_key": wrong})).text
    tracer.close()
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "chat mini" in spans and caplog.text
    for written in (caplog.text, metrics, spans):
        assert good not in written and wrong not in written
