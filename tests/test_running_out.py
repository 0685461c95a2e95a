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

import numpy as np
import pytest

from omni_server.audio_format import encode
from omni_server.config import Settings
from omni_server.types import AudioDelta, Modality, SpanOpened
from tests.doubles import Forever, ScriptedPipeline
from tests.realtime.doors import calling
from tests.rest.scripts import done, door, served, words
from tests.rest.worded import worded
from tests.rpc.doors import rpc_client
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
