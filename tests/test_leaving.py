"""A client that leaves a live conversation midway, at every live door: what was said in it goes with it."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
import websockets

from omni.v1 import converse_pb2
from omni_server.answering import Answering
from omni_server.listening import Recording
from omni_server.session import Session
from tests.doubles import Forever, ScriptedPipeline
from tests.freed import freed
from tests.realtime.doors import MODEL, SECOND, TURN, served, spoken
from tests.rpc.test_converse import TURN as MESSAGES, door

SAID = spoken("one two", *[SECOND] * 70)[:-2]  # more than waits for a reader


async def leave_grpc(client: Any) -> None:
    call = client.stub.Converse()
    await call.write(converse_pb2.ConverseRequest(config=converse_pb2.ConverseConfig()))
    for message in MESSAGES:
        await call.write(message)
    async for reply in call:
        if reply.HasField("audio_delta"):
            break
    call.cancel()


async def test_a_grpc_call_that_is_left() -> None:
    """Would catch a ring of call, task and fault that keeps a conversation, 6 MB of sound, until the collector comes."""
    async with door(ScriptedPipeline(*SAID, Forever())) as (client, _):
        await leave_grpc(client)  # what is made once for all stays
        async with freed(Session, Answering, Recording), asyncio.timeout(30):
            await leave_grpc(client)


async def leave_socket(url: str, start: dict[str, Any], sound: str, until: str) -> None:
    async with websockets.connect(url) as socket:
        if start:
            await socket.send(json.dumps(start))
        for at in range(0, len(TURN), 4800):
            await socket.send(json.dumps({"type": sound, "audio": base64.b64encode(TURN[at : at + 4800]).decode()}))
        while (event := json.loads(await socket.recv()))["type"] != until:
            assert event["type"] != "error", event


@pytest.mark.parametrize(
    ("path", "start", "sound", "until"),
    [
        ("realtime", {}, "input_audio_buffer.append", "response.output_audio.delta"),
        (
            "live/sessions",
            {"type": "session.start", "session": {"model": MODEL}},
            "session.input_audio.append",
            "session.output_audio.delta",
        ),
    ],
)
async def test_a_websocket_that_is_left(path: str, start: dict[str, Any], sound: str, until: str) -> None:
    """Would catch the same ring at the doors of WebSockets, and a task that waits for the next event for ever."""
    async with served(ScriptedPipeline(*SAID, Forever())) as url:
        address = f"ws{url[4:]}/{path}"
        await leave_socket(address, start, sound, until)
        async with freed(Session, Answering, Recording), asyncio.timeout(30):
            await leave_socket(address, start, sound, until)
        assert [task for task in asyncio.all_tasks() if "_paced" in str(task.get_coro())] == []
