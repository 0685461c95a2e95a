"""What the tests of the REST door share: scripts of a reply, a server on loopback, and media made on the spot."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import httpx
import numpy as np
import PIL.Image
import uvicorn
from starlette.types import ASGIApp

from omni_server.access import Access
from omni_server.audio_format import encode
from omni_server.cli import rest_config
from omni_server.config import Settings
from omni_server.rest import create_app
from omni_server.types import (
    AudioDelta,
    Done,
    Event,
    ImageReady,
    Modality,
    SpanClosed,
    SpanOpened,
    TextDelta,
    Usage,
)
from tests.doubles import ScriptedPipeline

SAMPLE_RATE = 24_000


def tone(seconds: float, pitch: float = 440.0, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """float32 [n]: a sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * sample_rate)) / sample_rate)).astype(np.float32)


def words(index: int, *pieces: str) -> list[Event]:
    return [SpanOpened(index, Modality.TEXT), *(TextDelta(index, piece) for piece in pieces), SpanClosed(index)]


def voice(index: int, samples: np.ndarray, cuts: int = 4) -> list[Event]:
    deltas = [AudioDelta(index, piece, SAMPLE_RATE) for piece in np.array_split(samples, cuts)]
    return [SpanOpened(index, Modality.AUDIO), *deltas, SpanClosed(index)]


def picture(index: int, colour: str = "red") -> list[Event]:
    image = PIL.Image.new("RGB", (8, 6), colour)
    return [SpanOpened(index, Modality.IMAGE), ImageReady(index, image), SpanClosed(index)]


def done(finish_reason: str = "stop") -> Done:
    return Done(finish_reason, Usage(30, 9, 5, 4, 70, 16, 40), {"total": 0.5})


def png_url(colour: str = "blue") -> str:
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def wav_base64(seconds: float = 0.5) -> str:
    return base64.b64encode(encode("wav", tone(seconds), SAMPLE_RATE)).decode()


@asynccontextmanager
async def door(
    pipeline: ScriptedPipeline, settings: Settings | None = None, access: Access | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """The app in this process, no socket between."""
    transport = httpx.ASGITransport(create_app(pipeline, settings or Settings(), access), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        yield client


@contextmanager
def served(pipeline: ScriptedPipeline, settings: Settings | None = None, app: ASGIApp | None = None) -> Iterator[str]:
    """The app behind a real server on loopback, in a thread; gives its URL."""
    settings = replace(settings or Settings(), port=0, shutdown_seconds=1)
    server = uvicorn.Server(rest_config(app or create_app(pipeline, settings), settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"{'https' if settings.tls_cert else 'http'}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def ask(content: object = "hello", **fields: object) -> dict[str, object]:
    return {"model": "omni-scripted", "messages": [{"role": "user", "content": content}], **fields}
