"""Steps 1 and 8. `/v1/audio/voices`: those of the checkpoint, and those that clients make of recordings.
`/v1/audio/voice_consents`: what these rest on."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from pydantic import BaseModel, Field

from omni_server.access import current_owner
from omni_server.cloned_voices import ClonedVoice, Consent
from omni_server.door import Door
from omni_server.errors import MediaTooLarge, ModalityUnavailable, RequestError
from omni_server.rest.body import read_body
from omni_server.rest.fields import FormFields, JsonFields, Words, read_form, read_json
from omni_server.rest.form import FORM_TYPE, content_type, read_file_form
from omni_server.rest.pages import Page, page, query_of
from omni_server.segments import Body
from omni_server.types import MediaSource
from omni_server.wording import shown

LARGEST_RECORDING = 10 << 20  # of a consent, as OpenAI has it
Name = Annotated[Words, Field(max_length=256)]


class VoiceRequest(FormFields):
    name: Name
    consent: str
    type: Literal["audio_sample"] | None = None


class ConsentRequest(FormFields):
    name: Name
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]


class ConsentChange(JsonFields):
    name: Name


def voices_router(door: Door) -> APIRouter:
    router = APIRouter(prefix="/v1/audio/voices", tags=["audio"])
    kept = door.pipeline.cloned

    @router.get("")
    async def list_voices() -> Body:
        built_in = [
            {"id": name, "object": "audio.voice", "name": name, "created_at": door.opened_at, "type": "built_in"}
            for name in door.pipeline.checkpoint.voices
        ]
        data = [*map(voice_body, kept.voices(current_owner())), *built_in]
        return {"object": "list", "data": data, "has_more": False}

    @router.post("", openapi_extra={"requestBody": _form(VoiceRequest, "audio_sample")})
    async def create_voice(request: HttpRequest) -> Body:
        _check_cloner(door)
        if content_type(request) != FORM_TYPE:
            raise RequestError(
                f"the body is {shown(content_type(request) or 'of no named type')}; expected `{FORM_TYPE}` with "
                "`audio_sample`: a voice is made of a recording here, and not of a `prompt`",
                param="audio_sample",
            )
        sample, fields = await read_file_form(request, door.settings.max_body_bytes, "audio_sample")
        asked = read_form(VoiceRequest, fields)
        speech = await door.pipeline.speech(MediaSource("audio_sample", data=sample))
        voice = await asyncio.to_thread(kept.add_voice, current_owner(), asked.name, asked.consent, speech, "audio_sample")
        return voice_body(voice)

    @router.delete("/{voice}")
    async def delete_voice(voice: str) -> Body:
        await asyncio.to_thread(kept.delete_voice, current_owner(), voice)
        return {"id": voice, "object": "audio.voice.deleted", "deleted": True}

    return router


def consents_router(door: Door) -> APIRouter:
    router = APIRouter(prefix="/v1/audio/voice_consents", tags=["audio"])
    kept = door.pipeline.cloned

    @router.get("", openapi_extra={"parameters": query_of(Page)})
    async def list_consents(request: HttpRequest) -> Body:
        consents = [consent_body(consent) for consent in kept.consents(current_owner())]
        return page(consents, read_form(Page, dict(request.query_params)), "a consent")

    @router.post("", openapi_extra={"requestBody": _form(ConsentRequest, "recording")})
    async def create_consent(request: HttpRequest) -> Body:
        _check_cloner(door)
        recording, fields = await read_file_form(request, door.settings.max_body_bytes, "recording")
        asked = read_form(ConsentRequest, fields)
        if len(recording) > LARGEST_RECORDING:
            raise MediaTooLarge(
                f"`recording` holds `{len(recording)}` bytes; expected at most {LARGEST_RECORDING}", param="recording"
            )
        await door.pipeline.speech(MediaSource("recording", data=recording))  # raises where it is none
        return consent_body(await asyncio.to_thread(kept.add_consent, current_owner(), asked.name, asked.language, recording))

    @router.get("/{consent}")
    async def retrieve_consent(consent: str) -> Body:
        return consent_body(kept.consent(current_owner(), consent))

    change = {"content": {"application/json": {"schema": ConsentChange.model_json_schema()}}, "required": True}

    @router.post("/{consent}", openapi_extra={"requestBody": change})
    async def update_consent(consent: str, request: HttpRequest) -> Body:
        asked = read_json(ConsentChange, await read_body(request, door.settings.max_body_bytes))
        return consent_body(await asyncio.to_thread(kept.rename_consent, current_owner(), consent, asked.name))

    @router.delete("/{consent}")
    async def delete_consent(consent: str) -> Body:
        await asyncio.to_thread(kept.delete_consent, current_owner(), consent)
        return {"id": consent, "object": "audio.voice_consent", "deleted": True}

    return router


def voice_body(voice: ClonedVoice) -> Body:
    facts = {"id": voice.id, "object": "audio.voice", "name": voice.name, "created_at": voice.created_at}
    return {**facts, "type": "audio_sample", "omni": {"consent": voice.consent}}


def consent_body(consent: Consent) -> Body:
    facts = {"id": consent.id, "object": "audio.voice_consent", "name": consent.name}
    return {**facts, "language": consent.language, "created_at": consent.created_at}


def _check_cloner(door: Door) -> None:
    if not door.pipeline.checkpoint.clones_voices:
        voices = ", ".join(f"`{name}`" for name in door.pipeline.checkpoint.voices) or "none"
        raise ModalityUnavailable(
            f"`{door.model}` cannot take the voice of a recording, because its checkpoint has no `voice_cloner`; "
            f"the voices that it has are {voices}",
            param="audio_sample",
        )


def _form(kind: type[BaseModel], file: str) -> Body:
    schema = kind.model_json_schema()
    schema["properties"][file] = {"type": "string", "format": "binary"}
    schema["required"] = [file, *schema["required"]]
    return {"content": {FORM_TYPE: {"schema": schema}}, "required": True}
