"""Good requests on every wire, beside those that are not. Each raises where it is not answered as it should be."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import grpc
import httpx
import websockets

from omni.v1 import content_pb2, converse_pb2, omni_service_pb2, omni_service_pb2_grpc
from tests.fuzz.attacks import SECONDS
from tests.fuzz.near import packets
from tests.rest.scripts import png_url, wav_base64


async def good_chat(client: httpx.AsyncClient) -> None:
    parts = [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": png_url()}},
        {"type": "input_audio", "input_audio": {"data": wav_base64(), "format": "wav"}},
    ]
    model = (await client.get("/v1/models")).json()["data"][0]["id"]
    answer = await client.post(
        "/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 20}
    )
    assert answer.status_code == 200 and answer.json()["choices"], answer.text[:300]


async def good_call(channel: grpc.aio.Channel) -> None:
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="hi")])
    sampling = content_pb2.Sampling(max_tokens=20)
    stub = omni_service_pb2_grpc.OmniServiceStub(channel)  # type: ignore[no-untyped-call]
    call = stub.Generate(omni_service_pb2.GenerateRequest(messages=[message], sampling=sampling), timeout=SECONDS)
    events = [event async for event in call]
    assert events[-1].HasField("done")


async def good_talk(url: str) -> None:
    async with asyncio.timeout(SECONDS), websockets.connect(url.replace("http", "ws", 1) + "/v1/realtime") as socket:
        await socket.send(
            json.dumps({"type": "response.create", "response": {"output_modalities": ["text"], "instructions": "Say hi."}})
        )
        while (event := json.loads(await socket.recv()))["type"] != "response.done":
            assert event["type"] != "error", event
        assert event["response"]["status"] in ("completed", "incomplete"), event


async def good_session(url: str, model: str, voice: str) -> None:
    session = {"model": model, "audio": {"output": {"voice": voice}}}
    async with asyncio.timeout(SECONDS), websockets.connect(url.replace("http", "ws", 1) + "/v1/live/sessions") as live:
        await live.send(json.dumps({"type": "session.start", "session": session}))
        await live.send(json.dumps({"type": "session.input_audio.append", "audio": base64.b64encode(bytes(4800)).decode()}))
        await live.send(json.dumps({"type": "session.close"}))
        while (event := json.loads(await live.recv()))["type"] != "session.closed":
            assert event["type"] != "error", event


async def good_converse(channel: grpc.aio.Channel) -> None:
    """A turn in packets of Opus, answered in words."""
    config = converse_pb2.ConverseConfig(
        input_audio=content_pb2.AudioFormat(encoding=content_pb2.AUDIO_ENCODING_OPUS),
        modalities=[content_pb2.MODALITY_TEXT],
        sampling=content_pb2.Sampling(max_tokens=20),
        turn_detection=converse_pb2.TurnDetection(type=converse_pb2.TURN_DETECTION_TYPE_NONE),
    )
    frames = [converse_pb2.ConverseRequest(audio=converse_pb2.AudioFrame(audio=packet)) for packet in packets()]
    stub: Any = omni_service_pb2_grpc.OmniServiceStub(channel)  # type: ignore[no-untyped-call]
    call = stub.Converse(iter([converse_pb2.ConverseRequest(config=config), *frames]), timeout=SECONDS)
    endings = [event.response_done async for event in call if event.HasField("response_done")]
    assert [ending.status for ending in endings] in ([1], [2]), endings
