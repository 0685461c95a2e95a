"""OpenAI's Live wire, with the stock client: sound up all the time, sound down at its own pace."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import websockets

from omni_server.types import AudioPart, TextPart
from tests.doubles import Forever, ScriptedCheckpoint, ScriptedPipeline
from tests.realtime.doors import MODEL, SECOND, TURN, loudness, served, spoken


class Session:
    """A connection, and every event that came over it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[Any] = []

    async def until(self, type: str) -> Any:
        async with asyncio.timeout(30):
            while True:
                event = await self.connection.recv()
                self.events.append(event)
                if event.type == type:
                    return event
                assert event.type != "error", event.error

    async def hear(self, sound: bytes) -> None:
        for at in range(0, len(sound), 4800):
            await self.send("session.input_audio.append", audio=base64.b64encode(sound[at : at + 4800]).decode())

    async def send(self, type: str, **fields: Any) -> None:
        await self.connection.send({"type": type, **fields})

    def sound(self) -> list[Any]:
        return [event for event in self.events if event.type == "session.output_audio.delta"]


@asynccontextmanager
async def connected(pipeline: ScriptedPipeline) -> AsyncIterator[Session]:
    async with (
        served(pipeline) as url,
        openai.AsyncOpenAI(base_url=url, api_key="none") as client,
        client.live.connect() as connection,
    ):
        yield Session(connection)


@asynccontextmanager
async def started(pipeline: ScriptedPipeline, **session: Any) -> AsyncIterator[Session]:
    async with connected(pipeline) as live:
        await live.send("session.start", event_id="e0", session={"model": MODEL, **session})
        yield live


async def test_a_spoken_turn_and_the_end() -> None:
    """Would catch an event that the stock client does not know, a time that does not grow, or a session that never ends."""
    pipeline = ScriptedPipeline(*spoken("one two", SECOND))
    pipeline.checkpoint = ScriptedCheckpoint(prompts={"transcription": {"en": "write down"}})
    history: Any = [{"role": "developer", "content": [{"text": "be kind"}]}, {"role": "user", "content": [{"text": "hello"}]}]
    async with started(pipeline, instructions="be brief", input=history) as live:
        begun = await live.until("session.started")
        assert (begun.client_event_id, begun.session.model, begun.session.audio.format.rate) == ("e0", MODEL, 24_000)
        await live.hear(TURN)
        usage = await live.until("session.usage.updated")
        await live.send("session.close", event_id="bye")
        closed = await live.until("session.closed")
    assert sum(len(base64.b64decode(event.delta)) for event in live.sound()) == 48_000
    times = [(event.start_ms, event.end_ms) for event in live.sound()]
    assert all(end - start == pytest.approx(100, abs=1) for start, end in times)
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]
    words = [event.delta for event in live.events if event.type == "session.output_transcript.delta"]
    assert "".join(words) == "one two"
    (heard,) = [event for event in live.events if event.type == "session.input_transcript.delta"]
    assert heard.delta == "one two" and (heard.start_ms, heard.end_ms) == (
        pytest.approx(100, abs=40),
        pytest.approx(1000, abs=40),
    )
    assert usage.usage.seconds > 1.5 and usage.context_window.usage_ratio == pytest.approx(17 / 4096, abs=1e-4)
    assert (closed.reason, closed.client_event_id, closed.usage.seconds) == ("close_requested", "bye", usage.usage.seconds)
    said = [(m.role, part.text) for m in pipeline.requests[0].messages for part in m.parts if isinstance(part, TextPart)]
    assert said == [("system", "be brief"), ("system", "be kind"), ("user", "hello")]


async def test_what_is_interrupted_was_never_sent() -> None:
    """Would catch sound that a client plays on because it has it already: this wire has no event to take it back."""
    pipeline = ScriptedPipeline(*spoken("one two three four", *[SECOND] * 4)[:-1], Forever())
    async with started(pipeline) as live:
        await live.until("session.started")
        await live.hear(TURN)
        await live.until("session.output_audio.delta")
        await live.hear(loudness((0.5, 0.6)))
        await live.until("session.usage.updated")
        await live.send("session.close")
        await live.until("session.closed")
    assert len(live.sound()) < 40 and pipeline.running == 0


async def test_a_muted_session_hears_nothing() -> None:
    """Would catch a microphone that is open although its owner has shut it."""
    pipeline = ScriptedPipeline(*spoken())
    async with started(pipeline, audio={"format": {"type": "audio/pcm", "rate": 24_000}, "output": {"voice": "sage"}}) as live:
        await live.until("session.started")
        await live.send("session.input_audio.mute", event_id="m")
        assert (await live.until("session.input_audio.muted")).client_event_id == "m"
        await live.hear(TURN)
        await live.send("session.input_audio.unmute")
        await live.until("session.input_audio.unmuted")
        assert pipeline.requests == []
        await live.hear(TURN)
        await live.until("session.usage.updated")
    (request,) = pipeline.requests
    assert request.decode.voice == "sage" and isinstance(request.messages[-1].parts[0], AudioPart)


async def test_what_the_application_says_in_between() -> None:
    """Would catch instructions that never reach the model, or a comment that is not spoken."""
    pipeline = ScriptedPipeline(*spoken("hi", SECOND))
    async with started(pipeline, instructions="be brief") as live:
        await live.until("session.started")
        await live.send("session.commentary.append", content="dinner is ready", event_id="c")
        assert (await live.until("session.commentary.appended")).client_event_id == "c"
        await live.until("session.usage.updated")
        await live.send("session.instructions.append", content="be loud")
        await live.until("session.instructions.appended")
        await live.send("response.create")
        await live.until("session.usage.updated")
        await live.send("session.update", session={"delegation": None})
        assert (await live.until("session.updated")).session.instructions == "be brief\nbe loud"
    told = [request.messages[0].parts[0] for request in pipeline.requests]
    assert told == [TextPart("be brief\ndinner is ready"), TextPart("be brief\nbe loud")]


async def test_who_talks_hears_that_the_server_stops() -> None:
    """Would catch a session that ends in the middle of a word."""
    pipeline = ScriptedPipeline(*spoken())
    async with started(pipeline) as live:
        await live.until("session.started")
        pipeline.drain.begin(5.0)
        told = await live.connection.recv()
        assert (told.type, told.error.code) == ("error", "server_stopping") and "`5` seconds" in told.error.message
        assert (await live.until("session.closed")).reason == "expired"
        with pytest.raises(websockets.ConnectionClosedOK) as over:
            await live.connection.recv()
        assert over.value.rcvd is not None and over.value.rcvd.code == 1001


@pytest.mark.parametrize(
    ("message", "param", "ends"),
    [
        ({"type": "session.input_audio.append", "audio": "AAAA"}, "type", True),
        ({"type": "session.start", "session": {"model": "gpt-live-1"}}, "model", True),
        ({"type": "session.start", "session": {"model": MODEL, "store": True}}, "session.store", True),
        ({"type": "session.thinking.append", "content": "x"}, "type", False),
        ({"type": "session.update", "session": {"delegation": {"type": "client"}}}, "session.delegation", False),
        ({"type": "session.input_audio.append", "audio": "?"}, "audio", False),
        ({"type": "session.start", "session": {"model": MODEL}}, "type", False),
    ],
)
async def test_what_is_wrong_is_told(message: dict[str, Any], param: str, ends: bool) -> None:
    """Would catch a session that starts as nobody wished, or one that a bad message ends."""
    async with connected(ScriptedPipeline(*spoken())) as live:
        if not ends:
            await live.send("session.start", session={"model": MODEL})
            await live.until("session.started")
        await live.send(**{**message, "event_id": "e"})
        error = await live.connection.recv()
        assert (error.type, error.error.param, error.client_event_id) == ("error", param, "e")
        if ends:
            with pytest.raises(websockets.ConnectionClosedOK):
                await live.connection.recv()
        else:
            await live.send("session.close")
            await live.until("session.closed")


async def test_a_first_message_of_bytes_is_read_as_any_other() -> None:
    """Would catch a session that ends without a word because its first message came in a binary frame."""
    async with served(ScriptedPipeline(*spoken())) as url:
        for first, type in (
            (b'{"type": "session.start", "session": {"model": "%b"}}' % MODEL.encode(), "session.started"),
            (b"\xff", "error"),
        ):
            async with websockets.connect(url.replace("http", "ws", 1) + "/live/sessions") as socket:
                await socket.send(first)
                assert json.loads(await socket.recv())["type"] == type
