"""The realtime door on a free port of loopback, and the stock `openai` client of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai
import uvicorn

from omni_server.app import build_app
from omni_server.config import Settings
from omni_server.types import AudioDelta, Done, Event, Modality, SpanClosed, SpanOpened, TextDelta, Usage
from tests.doubles import LoudEars, ScriptedPipeline

RATE = 24_000
SECOND = np.full(RATE, 0.25, np.float32)
MODEL = "omni-scripted"


def spoken(words: str = "one two", *sounds: np.ndarray, finish: str = "stop") -> tuple[Event, ...]:
    """The script of an answer: words, and the sound that says them."""
    return (
        SpanOpened(0, Modality.TEXT),
        *(TextDelta(0, word) for word in words.split(maxsplit=0)),
        SpanClosed(0),
        SpanOpened(1, Modality.AUDIO),
        *(AudioDelta(1, sound, RATE) for sound in sounds or (SECOND,)),
        SpanClosed(1),
        Done(finish, Usage(prompt_tokens=9, prompt_audio_tokens=4, completion_tokens=8, completion_audio_tokens=5)),
    )


def loudness(*levels: tuple[float, float], rate: int = RATE) -> bytes:
    """(level, seconds) as samples."""
    return np.concatenate([np.full(round(seconds * rate), level * 32767, "<i2") for level, seconds in levels]).tobytes()


TURN = loudness((0.0, 0.4), (0.5, 0.6), (0.0, 0.8))


@dataclass
class Call:
    """The client's connection, and every event that it has got."""

    connection: Any
    pipeline: Any
    events: list[Any] = field(default_factory=list)

    async def until(self, type: str) -> Any:
        """The next event of this type; an error is not waited over."""
        async with asyncio.timeout(60):
            while True:
                event = await self.connection.recv()
                self.events.append(event)
                if event.type == type:
                    return event
                assert event.type != "error", event.error

    async def hear(self, sound: bytes, size: int = 4800) -> None:
        for at in range(0, len(sound), size):
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + size]).decode())

    async def update(self, **session: Any) -> Any:
        await self.connection.session.update(session={"type": "realtime", **session})
        return (await self.until("session.updated")).session

    async def say(self, text: str, **fields: Any) -> Any:
        part = {"type": "input_text", "text": text}
        await self.connection.conversation.item.create(item={"type": "message", "role": "user", "content": [part]}, **fields)
        return (await self.until("conversation.item.done")).item

    def types(self, without: Sequence[str] = ()) -> list[str]:
        return [event.type for event in self.events if event.type not in without]

    def only(self, type: str) -> list[Any]:
        return [event for event in self.events if event.type == type]

    def sound(self) -> bytes:
        return b"".join(base64.b64decode(event.delta) for event in self.only("response.output_audio.delta"))


@asynccontextmanager
async def served(pipeline: Any, settings: Settings | None = None, ears: Any = None) -> AsyncIterator[str]:
    """The whole HTTP app; its URL."""
    own = LoudEars()
    app = build_app(pipeline, settings or Settings(), ears or own)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await task
        assert own.opened == 0
        own.lane.close()


@asynccontextmanager
async def connected(url: str, pipeline: Any, model: str = MODEL) -> AsyncIterator[Call]:
    async with (
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client,
        client.realtime.connect(model=model) as connection,
    ):
        yield Call(connection, pipeline)


@asynccontextmanager
async def calling(*script: Any, settings: Settings | None = None, **session: Any) -> AsyncIterator[Call]:
    """A call of a scripted server; `session` is what its first `session.update` says."""
    pipeline = script[0] if script and isinstance(script[0], ScriptedPipeline) else ScriptedPipeline(*script)
    async with served(pipeline, settings) as url, connected(url, pipeline) as call:
        await call.until("conversation.created")
        if session:
            await call.update(**session)
        yield call
