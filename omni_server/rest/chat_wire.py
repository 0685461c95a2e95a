"""Step 1. The shape of a `POST /v1/chat/completions` body, read strictly; says nothing about what it means.

Fields fall into four kinds: those that are used; those that are `Ignored`; those that are `Refused`, which may only say that
they want nothing; and all others, which are refused by name, for a misspelt field that is silently dropped costs its user
an afternoon.
Inside messages unknown keys are let pass, because clients send back whole answers as history.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from omni_server.rest.faults import request_error
from omni_server.rest.kinds import Ignored, Refused
from omni_server.rest.sampled import Sampled
from omni_server.rest.tool_choice import CHOICES, ONE_CALL, ToolChoice

MOST_CHOICES = 8


def _kind(value: Any) -> str | None:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def tagged_kind(value: Any) -> str | None:
    """A tag that cannot be mistaken for a field, so that it can be left out of a field's path."""
    kind = _kind(value)
    return f"~{kind}" if isinstance(kind, str) else None


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Text(Part):
    type: Literal["text"]
    text: str


class Refusal(Part):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(Part):
    url: str
    detail: str | None = None


class Image(Part):
    type: Literal["image_url"]
    image_url: Annotated[
        Annotated[str, Tag("~plain")] | Annotated[ImageUrl, Tag("~object")],
        Discriminator(lambda value: "~plain" if isinstance(value, str) else "~object"),
    ]


class InputAudio(Part):
    data: str
    format: Literal["wav", "mp3", "flac", "ogg", "opus", "webm", "m4a", "mp4", "aac"] | None = None


class Audio(Part):
    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioUrl(Part):
    url: str


class LinkedAudio(Part):
    """Not OpenAI's, but what several servers call speech that is named by a URL."""

    type: Literal["audio_url"]
    audio_url: AudioUrl


class VideoUrl(Part):
    url: str


class LinkedVideo(Part):
    """Not OpenAI's, but what several servers call a video."""

    type: Literal["video_url"]
    video_url: VideoUrl


ContentPart = Annotated[
    Annotated[Text, Tag("~text")]
    | Annotated[Refusal, Tag("~refusal")]
    | Annotated[Image, Tag("~image_url")]
    | Annotated[Audio, Tag("~input_audio")]
    | Annotated[LinkedAudio, Tag("~audio_url")]
    | Annotated[LinkedVideo, Tag("~video_url")],
    Discriminator(
        tagged_kind,
        custom_error_type="part_type",
        custom_error_message="expected a part with `type` one of `text`, `image_url`, `input_audio`, `audio_url`, `video_url`",
    ),
]
TEXT_OR_PARTS = Discriminator(
    lambda value: "~string" if isinstance(value, str) else "~parts" if isinstance(value, list) else None,
    custom_error_type="content_type",
    custom_error_message="expected a string or a list of parts",
)
Content = Annotated[
    Annotated[str, Tag("~string")] | Annotated[list[ContentPart], Tag("~parts")],
    TEXT_OR_PARTS,
]


class SpokenBefore(Part):
    id: str


class CalledFunction(Part):
    name: str
    arguments: str = "{}"


class CalledTool(Part):
    function: CalledFunction


class ChatMessage(Part):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[CalledTool] | None = None
    reasoning_content: str | None = None
    content: Content | None = None
    audio: SpokenBefore | None = None
    images: list[Image] | None = None


class VoiceId(Part):
    id: str


class AudioOut(Part):
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
    voice: Annotated[
        Annotated[str, Tag("~name")] | Annotated[VoiceId, Tag("~object")] | Annotated[None, Tag("~none")],
        Discriminator(lambda value: "~none" if value is None else "~name" if isinstance(value, str) else "~object"),
    ] = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, Ignored("nothing is added to hide lengths")] = None


class Function(Part):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Part):
    type: Literal["function"]
    function: Function


class TemplateSwitches(BaseModel):
    """What a client tells a chat template directly; only switches for thinking are known."""

    model_config = ConfigDict(strict=True, extra="forbid")

    skip_reasoning: bool | None = None
    enable_thinking: bool | None = None
    thinking: bool | None = None


class JsonSchema(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    description: str | None = None
    strict: bool | None = None  # a schema always holds strictly
    of: Annotated[dict[str, Any], Field(alias="schema")]


class PlainText(Part):
    type: Literal["text"]


class JsonObject(Part):
    type: Literal["json_object"]


class JsonForm(Part):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    Annotated[PlainText, Tag("~text")] | Annotated[JsonObject, Tag("~json_object")] | Annotated[JsonForm, Tag("~json_schema")],
    Discriminator(
        tagged_kind,
        custom_error_type="format_type",
        custom_error_message="expected an object with `type` one of `text`, `json_object`, `json_schema`",
    ),
]


def form_of(wanted: PlainText | JsonObject | JsonForm | None) -> dict[str, Any] | None:
    """The schema that a whole reply follows."""
    match wanted:
        case JsonForm():
            return wanted.json_schema.of
        case JsonObject():
            return {"type": "object"}
        case _:
            return None


class ChatRequest(Sampled):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    modalities: list[Literal["text", "audio", "image"]] | None = None
    audio: AudioOut | None = None
    max_completion_tokens: Annotated[int, Field(ge=-1)] | None = None
    max_tokens: Annotated[int, Field(ge=-1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[
        ResponseFormat | None, Field(description="JSON, of text alone: without media, without tools")
    ] = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[ToolChoice | None, Field(description=CHOICES)] = None
    parallel_tool_calls: Annotated[bool | None, Field(description=ONE_CALL)] = None
    reasoning_effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None,
        Field(description="`none` asks for no thoughts, any other for thoughts"),
    ] = None
    thinking_token_budget: Annotated[int | None, Field(ge=0, description="not OpenAI's: how long thoughts may be")] = None
    chat_template_kwargs: Annotated[TemplateSwitches | None, Field(description="not OpenAI's: switches for thinking")] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES, description="answer k has the seed `seed + k`")] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[Any, Ignored("nothing is counted by user here")] = None
    metadata: Annotated[Any, Ignored("nothing is stored that it could be attached to")] = None
    store: Annotated[Any, Ignored("chat completions are not stored")] = None
    service_tier: Annotated[Any, Ignored("there is one tier")] = None
    safety_identifier: Annotated[Any, Ignored("nothing is counted by user here")] = None
    prompt_cache_key: Annotated[Any, Ignored("the cache finds prefixes by their content")] = None
    prompt_cache_options: Annotated[Any, Ignored("the cache finds prefixes by their content")] = None
    prompt_cache_retention: Annotated[Any, Ignored("what is cached is kept while there is room")] = None
    verbosity: Annotated[Any, Ignored("the models here have not learnt it")] = None
    functions: Annotated[Any, Refused("it was replaced by `tools`")] = None
    function_call: Annotated[Any, Refused("it was replaced by `tool_choice`")] = None
    prediction: Annotated[Any, Refused("a reply cannot be predicted by the client")] = None
    web_search_options: Annotated[Any, Refused("there is no search here")] = None
    moderation: Annotated[Any, Refused("there is no moderation here")] = None


def read_chat(body: bytes) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as problem:
        raise request_error(ChatRequest, problem) from None
