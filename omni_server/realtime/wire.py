"""Step 1. The shapes of the realtime wire's client events, read strictly; says nothing about what they mean.

What is accepted without effect says so; what is not there yet may only say that it wants nothing; all other fields are
refused by name. Inside items unknown keys are let pass, because clients send back what they got.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from omni_server.errors import RequestError
from omni_server.live_audio import HIGHEST_RATE, LOWEST_RATE
from omni_server.rest.faults import request_error
from omni_server.rest.fields import JsonFields, Voice, only
from omni_server.rest.sampled import Number
from omni_server.rest.tool_choice import ToolChoice
from omni_server.wording import shown

LONGEST_MS = 10_000
NOT_YET = "expected it to be left out: this server has no such thing"
Milliseconds = Annotated[int, Field(ge=0, le=LONGEST_MS)]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Modalities = Annotated[list[Literal["text", "audio", "image"]], Field(min_length=1)]


class Format(JsonFields):
    """`rate` is for `audio/pcm` only; OpenAI knows 24000, this server others too."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE)] | None = None


class Transcription(JsonFields):
    """The model itself writes down what it hears: all but `language` is without effect."""

    language: str | None = None
    model: Any = None
    prompt: Any = None
    delay: Any = None
    keywords: Any = None
    languages: Any = None


class Detection(JsonFields):
    """`semantic_vad` is voice activity too, with a silence that `eagerness` chooses."""

    type: Literal["server_vad", "semantic_vad"]
    threshold: Annotated[Number, Field(ge=1e-3, le=0.999)] | None = None
    prefix_padding_ms: Milliseconds | None = None
    silence_duration_ms: Annotated[int, Field(ge=32, le=LONGEST_MS)] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    idle_timeout_ms: Annotated[Any, only(because=NOT_YET)] = None


class SoundIn(JsonFields):
    """`noise_reduction` is without effect."""

    format: Format | None = None
    noise_reduction: Any = None
    transcription: Transcription | None = None
    turn_detection: Detection | None = None


class SoundOut(JsonFields):
    format: Format | None = None
    voice: Voice | None = None
    speed: Annotated[Number, Field(ge=0.25, le=1.5)] | None = None


class SessionSound(JsonFields):
    input: SoundIn | None = None
    output: SoundOut | None = None


class ResponseSound(JsonFields):
    output: SoundOut | None = None


class Tool(JsonFields):
    type: Literal["function"]
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Reasoning(JsonFields):
    effort: str | None = None


class Extension(JsonFields):
    """What OpenAI's realtime wire cannot say: how tokens are picked."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None


MostTokens = (
    Annotated[
        Annotated[int, Field(ge=1), Tag("~number")] | Annotated[Literal["inf"], Tag("~word")],
        Discriminator(lambda value: "~word" if isinstance(value, str) else "~number"),
    ]
    | None
)


class Answered(JsonFields):
    """What a session and a single response have in common."""

    output_modalities: Modalities | None = None
    instructions: str | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    max_output_tokens: MostTokens = None
    reasoning: Reasoning | None = None
    omni: Extension | None = None
    parallel_tool_calls: bool | None = None
    prompt: Annotated[Any, only(because=NOT_YET)] = None


class SessionFields(Answered):
    """`object`, `id` and `expires_at` are the server's to say; `tracing` is without effect."""

    type: Literal["realtime"] | None = None
    model: str | None = None
    audio: SessionSound | None = None
    object: Any = None
    id: Any = None
    expires_at: Any = None
    tracing: Any = None
    truncation: Annotated[Any, only("auto", because="expected `auto`: the oldest exchanges go first")] = None
    include: Annotated[Any, only([], because=NOT_YET)] = None


class Kept(BaseModel):
    """What clients send back as they got it."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Content(Kept):
    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio", "text", "audio"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None


class ItemFields(Kept):
    type: Literal["message", "function_call", "function_call_output", "item_reference"]
    id: Id | None = None
    role: Literal["user", "assistant", "system"] | None = None
    content: list[Content] | None = None
    call_id: Id | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None


class ResponseFields(Answered):
    conversation: Literal["auto", "none"] | None = None
    input: list[ItemFields] | None = None
    audio: ResponseSound | None = None
    metadata: dict[str, str] | None = None


class ClientEvent(JsonFields):
    type: str
    event_id: str | None = None


class SessionUpdate(ClientEvent):
    session: SessionFields


class BufferAppend(ClientEvent):
    audio: str


class BufferCommit(ClientEvent):
    pass


class BufferClear(ClientEvent):
    pass


class ItemCreate(ClientEvent):
    item: ItemFields
    previous_item_id: str | None = None


class ItemDelete(ClientEvent):
    item_id: str


class ItemRetrieve(ClientEvent):
    item_id: str


class ItemTruncate(ClientEvent):
    item_id: str
    content_index: Annotated[int, Field(ge=0, le=0)] = 0
    audio_end_ms: Annotated[int, Field(ge=0)]


class ResponseCreate(ClientEvent):
    response: ResponseFields | None = None


class ResponseCancel(ClientEvent):
    response_id: str | None = None


EVENTS: Mapping[str, type[ClientEvent]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": BufferAppend,
    "input_audio_buffer.commit": BufferCommit,
    "input_audio_buffer.clear": BufferClear,
    "conversation.item.create": ItemCreate,
    "conversation.item.delete": ItemDelete,
    "conversation.item.retrieve": ItemRetrieve,
    "conversation.item.truncate": ItemTruncate,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
}
_OBJECT = TypeAdapter(dict[str, Any])


def read_object(text: str | bytes) -> dict[str, Any]:
    try:
        return _OBJECT.validate_json(text)
    except ValidationError:
        raise RequestError(f"the message is {shown(text)}; expected a JSON object with a `type`") from None


def read_event(given: Mapping[str, Any]) -> ClientEvent:
    if given.get("type") == "output_audio_buffer.clear":
        told = "`output_audio_buffer.clear` is for calls over WebRTC; over a WebSocket the client itself holds the sound"
        raise RequestError(f"{told}: expected `response.cancel` and `conversation.item.truncate`", param="type")
    return read_known(given, EVENTS)


def read_known(given: Mapping[str, Any], events: Mapping[str, type[ClientEvent]]) -> ClientEvent:
    """One of `events`, which are shapes by `type`; the Live wire has others."""
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in events:
        told = f"`type` is {shown(json.dumps(kind))}; expected one of {', '.join(f'`{name}`' for name in events)}"
        raise RequestError(told, param="type")
    try:
        return events[kind].model_validate(given)
    except ValidationError as problem:
        raise request_error(events[kind], problem) from None
