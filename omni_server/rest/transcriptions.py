"""Steps 1 and 8. `POST /v1/audio/transcriptions` and `/translations`: what a recording says, in its words or in English."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag
from starlette.types import Receive, Scope, Send

from omni_server.door import Door
from omni_server.errors import OmniError, RequestError
from omni_server.hearing import Hearing
from omni_server.instruction import check_model, language_of
from omni_server.listening import TurnSettings
from omni_server.plain_json import parsed
from omni_server.rest.fields import FormFields, read_form
from omni_server.rest.form import FORM_TYPE, read_file_form
from omni_server.rest.kinds import Ignored, Refused
from omni_server.rest.playing import Answer, send_events
from omni_server.rest.subtitles import TIMED, transcript_response, usage_body
from omni_server.scribe import Interpreter, Scribe
from omni_server.segments import Body
from omni_server.types import MediaSource, Sampling, Speech

NO_HINTS = "the model is asked in its checkpoint's own words"
NO_SPEAKERS = "speakers are not told apart here"
FIELDS = {"messages": "file", "modalities": "model"}


class ServerVad(FormFields):
    """Where a recording is cut. The defaults are those of a recording without `chunking_strategy`."""

    type: Literal["server_vad"]
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=100, le=10_000)] = 500
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5


def _from_json(value: object) -> object:
    """A form has no objects of its own: clients write them as JSON."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return parsed(value)
    except ValueError:
        return value


Chunking = Annotated[
    Annotated[Literal["auto"], Tag("~name")] | Annotated[ServerVad, Tag("~object")],
    Discriminator(lambda value: "~name" if isinstance(value, str) else "~object"),
    BeforeValidator(_from_json),
]


class TranslationRequest(FormFields):
    """`stream` and `chunking_strategy` are not OpenAI's here; they are as for transcriptions."""

    model: str
    prompt: Annotated[Any, Ignored(NO_HINTS)] = None
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    response_format: Literal["json", "text", "verbose_json", "srt", "vtt"] | None = None
    stream: bool | None = None
    chunking_strategy: Chunking | None = None

    @property
    def turns(self) -> TurnSettings:
        vad = self.chunking_strategy if isinstance(self.chunking_strategy, ServerVad) else ServerVad(type="server_vad")
        return TurnSettings(
            threshold=vad.threshold, prefix_padding_ms=vad.prefix_padding_ms, silence_duration_ms=vad.silence_duration_ms
        )

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature or 0.0)  # OpenAI's default: the likeliest words


class TranscriptionRequest(TranslationRequest):
    """`language` chooses the wording of the instruction; whatever is spoken is heard. Some clients send an empty one to have
    it found out."""

    language: str | None = None
    granularities: Annotated[list[Literal["segment"]] | None, Field(alias="timestamp_granularities[]")] = None
    include: Annotated[Any, Refused("likelihoods are not measured here")] = Field(None, alias="include[]")
    languages: Annotated[Any, Refused("it chooses one wording; `language` takes one")] = Field(None, alias="languages[]")
    keywords: Annotated[Any, Refused(NO_HINTS)] = Field(None, alias="keywords[]")
    known_speaker_names: Annotated[Any, Refused(NO_SPEAKERS)] = Field(None, alias="known_speaker_names[]")
    known_speaker_references: Annotated[Any, Refused(NO_SPEAKERS)] = Field(None, alias="known_speaker_references[]")


def transcriptions_router(door: Door) -> APIRouter:
    router = APIRouter(prefix="/v1/audio", tags=["audio"])

    @router.post("/transcriptions", openapi_extra={"requestBody": _form(TranscriptionRequest)})
    async def create_transcription(request: HttpRequest) -> Response:
        file, fields = await read_file_form(request, door.settings.max_body_bytes)
        asked = read_form(TranscriptionRequest, fields)
        check(asked, door)
        if asked.granularities and asked.response_format != "verbose_json":
            raise RequestError(
                f"`response_format` is `{asked.response_format or 'json'}`; expected `verbose_json` with "
                "`timestamp_granularities`",
                param="response_format",
            )
        hearing = Hearing(door, Scribe(door, asked.language, asked.sampling), None, asked.turns)
        return _answer(asked, hearing, MediaSource("file", data=file), door, "transcribe", asked.language)

    @router.post("/translations", openapi_extra={"requestBody": _form(TranslationRequest)})
    async def create_translation(request: HttpRequest) -> Response:
        file, fields = await read_file_form(request, door.settings.max_body_bytes)
        asked = read_form(TranslationRequest, fields)
        check(asked, door)
        scribe, interpreter = Scribe(door, None, asked.sampling), Interpreter(door, asked.sampling)
        hearing = Hearing(door, scribe, interpreter, asked.turns)
        return _answer(asked, hearing, MediaSource("file", data=file), door, "translate", "english")

    return router


def _form(kind: type[BaseModel]) -> Body:
    schema = kind.model_json_schema()
    schema["properties"]["file"] = {"type": "string", "format": "binary"}
    schema["required"] = ["file", *schema["required"]]
    return {"content": {FORM_TYPE: {"schema": schema}}, "required": True}


def check(asked: TranslationRequest, door: Door) -> None:
    check_model(door, asked.model)
    if asked.stream and asked.response_format in TIMED:
        raise RequestError(
            f"`response_format` is `{asked.response_format}`; expected `json` or `text` with `stream`", param="response_format"
        )


def _answer(
    asked: TranslationRequest, hearing: Hearing, source: MediaSource, door: Door, task: str, language: str | None
) -> Response:
    async def write(scope: Scope, receive: Receive, send: Send) -> None:
        if asked.stream:
            await send_events(send, _events(hearing, source, door))
            return
        speech = await door.pipeline.speech(source)
        async with aclosing(_words(hearing, source, speech)) as pieces:
            async for _ in pieces:
                pass
        seconds = round(speech.seconds, 3)
        verbose: dict[str, Any] = {
            "task": task,
            "language": language or language_of(hearing.text),
            "duration": seconds,
            "temperature": asked.temperature or 0.0,
            "usage": {"type": "duration", "seconds": seconds},
        }
        format = asked.response_format or "json"
        response = transcript_response(format, hearing.text, hearing.lines, hearing.usage, verbose)
        await response(scope, receive, send)

    return Answer(write)


async def _events(hearing: Hearing, source: MediaSource, door: Door) -> AsyncGenerator[Body, None]:
    speech = await door.pipeline.speech(source)
    async with aclosing(_words(hearing, source, speech)) as pieces:
        async for piece in pieces:
            yield {"type": "transcript.text.delta", "delta": piece}
    segments = [{"start": round(line.start, 3), "end": round(line.end, 3), "text": line.text} for line in hearing.lines]
    done = {"type": "transcript.text.done", "text": hearing.text, "usage": usage_body(hearing.usage)}
    yield {**done, "omni": {"segments": segments}}


async def _words(hearing: Hearing, source: MediaSource, speech: Speech) -> AsyncGenerator[str, None]:
    """The pipeline's errors name the fields of a conversation."""
    try:
        async with aclosing(hearing.words(source, speech)) as pieces:
            async for piece in pieces:
                yield piece
    except OmniError as error:
        error.param = FIELDS.get(error.param or "", error.param)
        raise
