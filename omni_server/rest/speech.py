"""Steps 1 and 8. `POST /v1/audio/speech`: words to read aloud become a request for a voice, its samples a file that streams."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import Response
from pydantic import Field
from starlette.types import Receive, Scope, Send

from omni_server.audio_format import MEDIA_TYPES, AudioWriter, open_writer
from omni_server.door import Door
from omni_server.errors import ContextOverflow, RequestError
from omni_server.instruction import check_model, instruction
from omni_server.rest.body import read_body
from omni_server.rest.chat_reply import Base64Slices
from omni_server.rest.chat_wire import VoiceId
from omni_server.rest.fields import JsonFields, Voice, Words, read_json
from omni_server.rest.kinds import Ignored
from omni_server.rest.playing import Answer, Headers, played, send_events, send_stream
from omni_server.segments import Body, Segments, VoiceLine
from omni_server.tempo import FASTEST, SLOWEST, Tempo
from omni_server.types import (
    AudioDelta,
    DecodeOptions,
    Done,
    Event,
    Failed,
    Message,
    Modality,
    Request,
    SpanClosed,
    SpanOpened,
    TextPart,
    Usage,
)
from omni_server.wording import shown

# What the pipeline calls the fields of a conversation, and what they are called here.
FIELDS = {"audio.voice": "voice", "messages": "input", "modalities": "model"}
FORMATS = {"pcm": "pcm16"}  # OpenAI has two names for it
# Proxies commonly take 4 to 8 kB of headers in all; a longer transcript is left out rather than cut.
LONGEST_HEADER = 2000


class SpeechRequest(JsonFields):
    """`speed` changes the tempo of the sound that was made, and not its pitch."""

    model: str
    input: Annotated[Words, Field(max_length=4096)]
    voice: Voice | None = None
    instructions: Annotated[Any, Ignored("a voice has one manner of speaking")] = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    speed: Annotated[float, Field(ge=SLOWEST, le=FASTEST, allow_inf_nan=False)] | None = None
    stream_format: Literal["audio", "sse"] | None = None
    safety_identifier: Annotated[Any, Ignored("nothing is counted by user here")] = None


def speech_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["audio"])
    schema = {"content": {"application/json": {"schema": SpeechRequest.model_json_schema()}}, "required": True}

    @router.post("/v1/audio/speech", openapi_extra={"requestBody": schema})
    async def create_speech(request: HttpRequest) -> Response:
        asked = read_json(SpeechRequest, await read_body(request, door.settings.max_body_bytes))
        aloud = speech_request(asked, door)
        wanted = asked.response_format or "mp3"
        speech = SpeechFile(FORMATS.get(wanted, wanted), asked.speed or 1.0)

        async def write(scope: Scope, receive: Receive, send: Send) -> None:
            if asked.stream_format == "sse":
                await send_events(send, _events(door, aloud, speech))
            else:
                await send_stream(send, _pieces(door, aloud, speech), speech.headers)

        return Answer(write)

    return router


def speech_request(asked: SpeechRequest, door: Door) -> Request:
    check_model(door, asked.model)
    return Request(
        request_id=f"speech-{uuid.uuid4().hex}",
        messages=(Message("user", (TextPart(instruction(door, "speech", asked.input)),)),),
        modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
        decode=DecodeOptions(voice=asked.voice.id if isinstance(asked.voice, VoiceId) else asked.voice),
    )


class SpeechFile:
    """`feed(event)` gives the next bytes of one audio file, through to its end. Sync, no sockets, no clock."""

    def __init__(self, format: str, speed: float = 1.0) -> None:
        self._format = format
        self._speed = speed
        self._tempo: Tempo | None = None
        self._segments = Segments()
        self._voice = VoiceLine()
        self._writer: AudioWriter | None = None
        self.usage = Usage()

    @property
    def transcript(self) -> str:
        """What the model says, as far as it is known: it need not be what it was asked to say."""
        return self._segments.text

    def headers(self) -> Headers:
        headers: Headers = [(b"content-type", MEDIA_TYPES[self._format].encode())]
        transcript = quote(self.transcript, safe="")
        if 0 < len(transcript) <= LONGEST_HEADER:
            headers.append((b"x-omni-transcript", transcript.encode()))
        return headers

    def feed(self, event: Event) -> bytes:
        """Raises the error of a reply that failed, or in which nothing was said, or not all."""
        self._segments.feed(event)
        match event:
            case SpanOpened(index=index, modality=Modality.AUDIO):
                self._voice.open(index)
            case AudioDelta(index=index, samples=samples, sample_rate=sample_rate):
                if self._writer is None:
                    self._writer = open_writer(self._format, sample_rate)
                    self._tempo = Tempo(self._speed, sample_rate) if self._speed != 1.0 else None
                return self._written(self._writer, self._voice.feed(index, samples))
            case SpanClosed(index=index, error=error):
                if error is not None:
                    raise error
                samples = self._voice.close(index)
                return self._written(self._writer, samples) if self._writer is not None else b""
            case Done():
                return self._ending(event)
            case Failed(error=error):
                raise error
            case _:
                pass
        return b""

    def _ending(self, done: Done) -> bytes:
        if self._writer is None:
            raise RequestError(
                f"the model said nothing aloud and wrote {shown(self.transcript)}; expected `input` that it can say",
                param="input",
            )
        if done.finish_reason == "length":
            raise ContextOverflow("the voice was cut off: the model's context has no room for all of `input`", param="input")
        self.usage = done.usage
        rest = self._writer.feed(self._tempo.finish()) if self._tempo is not None else b""
        return rest + self._writer.finish()

    def _written(self, writer: AudioWriter, samples: np.ndarray) -> bytes:
        return writer.feed(samples if self._tempo is None else self._tempo.feed(samples))


async def _pieces(door: Door, request: Request, speech: SpeechFile) -> AsyncGenerator[bytes, None]:
    async with played(door, request, FIELDS) as events:
        async for event in events:
            # Making an mp3 takes milliseconds, too long for the event loop.
            heavy = isinstance(event, AudioDelta | SpanClosed | Done)
            piece = await asyncio.to_thread(speech.feed, event) if heavy else speech.feed(event)
            if piece:
                yield piece


async def _events(door: Door, request: Request, speech: SpeechFile) -> AsyncGenerator[Body, None]:
    """Each `audio` decodes alone, and so do all of them joined."""
    slices = Base64Slices()
    async with aclosing(_pieces(door, request, speech)) as pieces:
        async for piece in pieces:
            data = slices.feed(piece)
            if data:
                yield {"type": "speech.audio.delta", "audio": data}
    data = slices.finish()
    if data:
        yield {"type": "speech.audio.delta", "audio": data}
    yield {"type": "speech.audio.done", "usage": _usage(speech.usage), "omni": {"transcript": speech.transcript}}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
