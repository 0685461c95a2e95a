"""A whole pipeline with a stage that fails, behind every door: what goes on, what is told, and what health says."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.config import Settings
from omni_server.errors import DecodeFailed, ModalityDown
from omni_server.pipeline import Pipeline
from omni_server.rest import create_app
from omni_server.types import Done, ImageReady, Modality, SpanClosed, TextDelta
from tests.doubles import FaultyDecoder, ScriptedBackbone
from tests.facts import write_checkpoint
from tests.rpc.doors import rpc_client
from tests.test_pipeline import END, build, collect, picture, request, speech


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("mini")
    write_checkpoint(root)
    return read_checkpoint(root)


def with_voice(checkpoint: Checkpoint, vocoder: FaultyDecoder) -> Pipeline:
    """Says a word, draws, speaks, and says a word again."""
    spoken = [[104, 105], picture(checkpoint), speech(checkpoint, 1, 2), [104, END]]
    return build(checkpoint, ScriptedBackbone(*spoken), audio=vocoder, image=FaultyDecoder(Modality.IMAGE))


def rest(pipeline: Pipeline) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(pipeline, Settings()), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def until_ready(pipeline: Pipeline, modalities: dict[str, bool]) -> None:
    async with asyncio.timeout(20):
        while await pipeline.ready() != modalities:
            await asyncio.sleep(0.01)


async def test_a_broken_vocoder_takes_only_the_voice(checkpoint: Checkpoint) -> None:
    """Would catch a reply that fails as a whole because its voice cannot be made, a voice that is missing without a word, and
    a server that leaves rotation, or stays in full health, with one stage down."""
    vocoder = FaultyDecoder(Modality.AUDIO)
    vocoder.error = RuntimeError("no vocoder")
    pipeline = with_voice(checkpoint, vocoder)
    for error in (DecodeFailed, ModalityDown):
        events = await collect(pipeline, request())
        assert [type(event.error) for event in events if isinstance(event, SpanClosed) and event.error] == [error]
        assert isinstance(events[-1], Done)
        assert {TextDelta, ImageReady} <= {type(event) for event in events}
        await until_ready(pipeline, {"text": True, "image": True, "audio": False})
    vocoder.error = None
    await until_ready(pipeline, {"text": True, "image": True, "audio": True})
    events = await collect(pipeline, request())
    assert not [event for event in events if isinstance(event, SpanClosed) and event.error]
    await pipeline.close()


async def test_every_door_tells_that_the_voice_is_down(checkpoint: Checkpoint) -> None:
    """Would catch a door that hides the missing voice, or health of which orchestrators hear nothing."""
    vocoder = FaultyDecoder(Modality.AUDIO)
    vocoder.error = RuntimeError("no vocoder")
    pipeline = with_voice(checkpoint, vocoder)
    await collect(pipeline, request())
    await until_ready(pipeline, {"text": True, "image": True, "audio": False})
    body: Any = {"model": checkpoint.name, "messages": [{"role": "user", "content": "hi"}], "modalities": ["text", "audio"]}
    async with rest(pipeline) as http, rpc_client(pipeline) as client:
        reply = await http.post("/v1/chat/completions", json=body | {"audio": {"voice": checkpoint.voices[0], "format": "wav"}})
        assert reply.status_code == 200, reply.text
        segments = reply.json()["choices"][0]["message"]["omni"]["segments"]
        assert [segment["error"]["code"] for segment in segments if segment.get("error")] == ["modality_down"]
        whole, voice = await http.get("/ready"), await http.get("/ready/audio")
        assert (whole.status_code, whole.json()["status"], voice.status_code) == (200, "degraded", 503)
        stub = health_pb2_grpc.HealthStub(client.channel)  # type: ignore[no-untyped-call]
        states = {}
        for name in ("", "modality/text", "modality/audio"):
            async with asyncio.timeout(20):
                async for update in stub.Watch(health_pb2.HealthCheckRequest(service=name)):
                    states[name] = update.status
                    if update.status != health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
                        break
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert states == {"": serving, "modality/text": serving, "modality/audio": not_serving}
    await pipeline.close()
