"""Steps 1 and 8. `POST /v1/audio/transcriptions`: a recording becomes a request to write down what is heard."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import Field
from starlette.types import Receive, Scope, Send

from omni_server.config import UrlPolicy
from omni_server.door import Door
from omni_server.errors import DecodeFailed, OmniError, RequestError
from omni_server.fetch import UrlFetcher
from omni_server.instruction import check_language, check_model, instruction, language_of
from omni_server.media import MediaLoader
from omni_server.rest.fields import FormFields, only, read_form
from omni_server.rest.form import FORM_TYPE, read_file_form
from omni_server.rest.playing import Answer, played, send_events
from omni_server.segments import Body
from omni_server.types import (
    AudioPart,
    Done,
    Event,
    Failed,
    MediaSource,
    Message,
    Modality,
    Request,
    Sampling,
    SpanClosed,
    TextDelta,
    TextPart,
    Usage,
)

FIELDS = {"messages": "file", "modalities": "model"}
TIMED = ("verbose_json", "srt", "vtt")


class TranscriptionRequest(FormFields):
    """`prompt` is accepted and has no effect. `language` chooses the wording of the instruction; whatever is spoken
    is heard. Some clients send an empty one to have it found out."""

    model: str
    language: str | None = None
    prompt: str | None = None
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    response_format: Literal["json", "text", "verbose_json", "srt", "vtt"] | None = None
    stream: bool | None = None
    granularities: Annotated[list[Literal["segment"]] | None, Field(alias="timestamp_granularities[]")] = None
    chunking_strategy: Annotated[str | None, only("auto", because="expected `auto`: a recording is read in one piece")] = None


def transcriptions_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["audio"])
    schema = TranscriptionRequest.model_json_schema()
    schema["properties"]["file"] = {"type": "string", "format": "binary"}
    schema["required"] = ["file", *schema["required"]]
    loader = MediaLoader(door.settings.media_limits, UrlFetcher(UrlPolicy()))
    body = {"content": {FORM_TYPE: {"schema": schema}}, "required": True}

    @router.post("/v1/audio/transcriptions", openapi_extra={"requestBody": body})
    async def create_transcription(request: HttpRequest) -> Response:
        file, fields = await read_file_form(request, door.settings.max_body_bytes)
        asked = read_form(TranscriptionRequest, fields)
        source = MediaSource("file", data=file)
        heard = transcription_request(asked, source, door)

        async def write(scope: Scope, receive: Receive, send: Send) -> None:
            if asked.stream:
                await send_events(send, _events(door, heard))
                return
            transcript = Transcript()
            async with played(door, heard, FIELDS) as events:
                async for event in events:
                    transcript.feed(event)
            # The pipeline keeps the recording's length to itself; reading it again is cheap beside the backbone.
            timed = asked.response_format in TIMED
            seconds = (await asyncio.to_thread(loader.speech, source)).seconds if timed else 0.0
            await transcription_response(asked, transcript, seconds)(scope, receive, send)

        return Answer(write)

    return router


def transcription_request(asked: TranscriptionRequest, source: MediaSource, door: Door) -> Request:
    check_model(door, asked.model)
    if asked.language:
        check_language(door, "transcription", asked.language)
    if asked.stream and asked.response_format in TIMED:
        raise RequestError(
            f"`response_format` is `{asked.response_format}`; expected `json` or `text` with `stream`", param="response_format"
        )
    if asked.granularities and asked.response_format != "verbose_json":
        raise RequestError(
            f"`response_format` is `{asked.response_format or 'json'}`; expected `verbose_json` with `timestamp_granularities`",
            param="response_format",
        )
    wording = instruction(door, "transcription", language=asked.language)
    return Request(
        request_id=f"transcription-{uuid.uuid4().hex}",
        messages=(Message("user", (AudioPart(source), TextPart(wording))),),
        modalities=frozenset({Modality.TEXT}),
        sampling=Sampling(temperature=asked.temperature or 0.0),  # OpenAI's default: the likeliest words
    )


@dataclass(slots=True)
class Transcript:
    """`feed(event)` gives the next words. Sync, no sockets, no clock."""

    text: str = ""
    usage: Usage | None = None

    def feed(self, event: Event) -> str:
        """Raises the error of a reply that failed, or was cut off."""
        match event:
            case TextDelta(text=text):
                self.text += text
                return text
            case SpanClosed(error=OmniError() as error) | Failed(error=error):
                raise error
            case Done(finish_reason="length"):
                raise DecodeFailed("the transcript was cut off: the model's context has no room for more", param="file")
            case Done(usage=usage):
                self.usage = usage
            case _:
                pass
        return ""

    def usage_body(self) -> Body:
        usage = self.usage or Usage()
        heard = usage.prompt_audio_tokens
        return {
            "type": "tokens",
            "input_tokens": usage.prompt_tokens,
            "input_token_details": {"audio_tokens": heard, "text_tokens": usage.prompt_tokens - heard},
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }


async def _events(door: Door, request: Request) -> AsyncGenerator[Body, None]:
    transcript = Transcript()
    async with played(door, request, FIELDS) as events:
        async for event in events:
            words = transcript.feed(event)
            if words:
                yield {"type": "transcript.text.delta", "delta": words}
    yield {"type": "transcript.text.done", "text": transcript.text, "usage": transcript.usage_body()}


def transcription_response(asked: TranscriptionRequest, transcript: Transcript, seconds: float) -> Response:
    """The model marks no times, so the timed formats have one segment over the whole recording."""
    text = transcript.text
    words = " ".join(text.split())  # an empty line would end a cue
    match asked.response_format:
        case "text":
            return PlainTextResponse(text)
        case "srt":
            cue = f"1\n{_clock(0.0, ',')} --> {_clock(seconds, ',')}\n{words}\n\n"
            return PlainTextResponse(cue if words else "", media_type="application/x-subrip")
        case "vtt":
            cue = f"{_clock(0.0, '.')} --> {_clock(seconds, '.')}\n{words}\n\n"
            return PlainTextResponse("WEBVTT\n\n" + (cue if words else ""), media_type="text/vtt")
        case "verbose_json":
            return JSONResponse(_verbose(asked, text, round(seconds, 3)))
        case _:
            return JSONResponse({"text": text, "usage": transcript.usage_body()})


def _verbose(asked: TranscriptionRequest, text: str, seconds: float) -> Body:
    # What this model does not measure is null: a made-up likelihood would be believed.
    unknown = {"avg_logprob": None, "compression_ratio": None, "no_speech_prob": None}
    segment: Body = {"id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [], **unknown}
    segment["temperature"] = asked.temperature or 0.0
    return {
        "task": "transcribe",
        "language": asked.language or language_of(text),
        "duration": seconds,
        "text": text,
        "segments": [segment] if text.strip() else [],
        "usage": {"type": "duration", "seconds": seconds},
    }


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
