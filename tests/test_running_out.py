"""What runs out: a client's wish to read, and the disk. Real sockets; the outcomes that docs/operations.md states."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
import websockets

from omni.v1 import converse_pb2, omni_service_pb2_grpc
from omni_server.audio_format import encode
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.drain import Drain
from omni_server.rpc import RpcServer
from omni_server.types import AudioDelta, Modality, SpanOpened
from omni_server.vad import SileroEars
from tests.doubles import Forever, ScriptedPipeline
from tests.realtime.doors import calling, served as live_door
from tests.rest.scripts import done, door, served, words
from tests.rest.worded import worded
from tests.rpc.doors import error_info, rpc_client
from tests.rpc.test_service import asked

# Tens of megabytes: more than all buffers between the server and a client that does not read.
NOISE = np.random.default_rng(0).uniform(-1, 1, 240_000).astype(np.float32)
LONG = (SpanOpened(0, Modality.AUDIO), *(AudioDelta(0, NOISE, 24_000) for _ in range(60)), Forever())


async def until_left(pipeline: ScriptedPipeline) -> None:
    async with asyncio.timeout(30):
        while not pipeline.left:
            await asyncio.sleep(0.05)


def posted(**more: Any) -> bytes:
    """A streamed request as it goes over the socket."""
    wanted = {"model": "omni-scripted", "messages": [{"role": "user", "content": "hi"}], "stream": True} | more
    body = json.dumps(wanted).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )


async def test_a_client_of_rest_that_stops_reading_is_given_up() -> None:
    """Would catch a client that keeps a place in the engine for as long as it likes, by asking and not reading."""
    pipeline = ScriptedPipeline(*LONG)
    spoken = posted(modalities=["text", "audio"], audio={"voice": "mint", "format": "pcm16"})
    with (
        served(pipeline, Settings(reader_seconds=0.5)) as url,
        closing(socket.create_connection((urlsplit(url).hostname, urlsplit(url).port))) as client,
    ):
        client.sendall(spoken)
        await asyncio.to_thread(client.recv, 100)
        await until_left(pipeline)
        assert pipeline.running == 0


async def test_a_client_of_grpc_that_stops_reading_is_given_up() -> None:
    """Would catch the same on the other wire, where flow control holds the writer back without a word."""
    pipeline = ScriptedPipeline(*LONG)
    async with rpc_client(pipeline, Settings(shutdown_seconds=0, reader_seconds=0.5)) as client:
        call: Any = client.stub.Generate(asked(modalities=[1, 3]))
        await call.read()
        await until_left(pipeline)
        assert pipeline.running == 0


async def test_a_live_client_that_stops_reading_is_given_up() -> None:
    """Would catch a conversation over a WebSocket that nobody hears, and that holds its answer's place for ever."""
    pipeline = ScriptedPipeline(*LONG)
    async with calling(pipeline, settings=Settings(reader_seconds=0.5)) as call:
        await call.say("hi")
        await call.connection.response.create()
        await until_left(pipeline)
        assert pipeline.running == 0
        call.connection._connection.transport.abort()  # its closing words would wait behind what it has not read


async def test_a_conversation_over_grpc_that_nobody_reads_is_given_up() -> None:
    """Would catch a call whose half that is sent goes on for ever because the half that is read does not."""
    pipeline = ScriptedPipeline(*LONG)
    async with rpc_client(pipeline, Settings(shutdown_seconds=0, reader_seconds=0.5)) as client:
        call: Any = client.stub.Converse()
        await call.write(converse_pb2.ConverseRequest(config=converse_pb2.ConverseConfig()))
        await call.write(converse_pb2.ConverseRequest(text="hi"))
        await call.write(converse_pb2.ConverseRequest(end_turn=converse_pb2.EndTurn()))
        await call.read()
        await until_left(pipeline)
        assert pipeline.running == 0


async def test_a_client_that_reads_slowly_gets_everything() -> None:
    """Would catch a limit on the whole answer where there should be one on each write."""
    pipeline = ScriptedPipeline(*words(0, *("word " * 20).split()), done())
    with served(pipeline, Settings(reader_seconds=0.5)) as url:
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        writer.write(posted())
        answer = b""
        while piece := await reader.read(400):
            answer += piece
            await asyncio.sleep(0.05)
        writer.close()
    assert b"data: [DONE]" in answer


async def test_a_recording_needs_no_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Would catch an upload that is first written to a disk that is full: the form's parser spools above a megabyte."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    async with door(worded(*words(0, "heard"), done())) as client:
        recording = {"file": ("long.wav", encode("wav", np.zeros(1_000_000, np.float32), 16_000), "audio/wav")}
        answer = await client.post("/v1/audio/transcriptions", data={"model": "omni-scripted"}, files=recording)
    assert answer.status_code == 200, answer.text


async def test_live_calls_are_bounded_on_every_door() -> None:
    """Would catch calls without number, each of which holds a network that listens, and a place that is never given back."""
    pipeline, ears = ScriptedPipeline(*words(0, "hi"), done()), SileroEars(most=1)
    server = RpcServer(Door(pipeline, Settings(shutdown_seconds=0)), ears)  # type: ignore[arg-type]
    await server.start(0)
    config = converse_pb2.ConverseRequest(config=converse_pb2.ConverseConfig())
    async with live_door(pipeline, Settings(), ears) as url, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = omni_service_pb2_grpc.OmniServiceStub(channel)  # type: ignore[no-untyped-call]
        held = stub.Converse()
        await held.write(config)
        assert (await held.read()).HasField("ready")
        over: Any = stub.Converse(iter([config]))
        with pytest.raises(grpc.aio.AioRpcError):
            await over.read()
        code, _, info, retry = await error_info(over)
        assert (code, info.reason, retry) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", True)
        web = url.replace("http", "ws", 1)
        with pytest.raises(websockets.InvalidStatus, match="503"):
            await websockets.connect(web + "/realtime")
        async with websockets.connect(web + "/live/sessions") as live:
            await live.send(json.dumps({"type": "session.start", "session": {"model": "omni-scripted"}}))
            told = json.loads(await live.recv())
            assert (told["type"], told["error"]["code"]) == ("error", "overloaded")
        held.cancel()
        await server.drain(0.0)
        pipeline.drain = Drain()  # of that door alone
        async with websockets.connect(web + "/realtime") as realtime:
            assert json.loads(await realtime.recv())["type"] == "session.created"
    ears.lane.close()
