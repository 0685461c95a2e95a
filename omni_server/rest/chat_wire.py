"""Step 1. The shape of a `POST /v1/chat/completions` body, read strictly; says nothing about what it means.

Fields fall into four kinds: those that are used; those in `Ignored`, which have no effect; those in `NotYet`, which
may only say that they want nothing; and all others, which are refused by name, for a misspelt field that is silently
dropped costs its user an afternoon.
Inside messages unknown keys are let pass, because clients send back whole answers as history.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from omni_server.rest.faults import request_error

NEUTRAL: tuple[Any, ...] = (None, False, 0, "none", "auto", [], {}, {"type": "text"})


def _kind(value: Any) -> str | None:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def _tagged_kind(value: Any) -> str | None:
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
        _tagged_kind,
        custom_error_type="part_type",
        custom_error_message="expected a part with `type` one of `text`, `image_url`, `input_audio`, `audio_url`, `video_url`",
    ),
]
Content = Annotated[
    Annotated[str, Tag("~string")] | Annotated[list[ContentPart], Tag("~parts")],
    Discriminator(
        lambda value: "~string" if isinstance(value, str) else "~parts" if isinstance(value, list) else None,
        custom_error_type="content_type",
        custom_error_message="expected a string or a list of parts",
    ),
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


class StreamOptions(Part):
    include_usage: bool | None = None


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


StopString = Annotated[str, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Ignored(BaseModel):
    """Accepted so that clients which send them work; without effect."""

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    parallel_tool_calls: Any = None
    verbosity: Any = None


class NotYet(BaseModel):
    """Refused by name until this server has them, unless the value says that nothing is wanted."""

    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    prediction: Any = None
    web_search_options: Any = None

    @field_validator("*")
    @classmethod
    def refuse(cls, value: Any, field: ValidationInfo) -> Any:
        if field.field_name in NotYet.model_fields and value not in NEUTRAL:
            raise PydanticCustomError("not_yet", "this server does not support it yet")
        return value


class ChatRequest(Ignored, NotYet):
    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    modalities: list[Literal["text", "audio", "image"]] | None = None
    audio: AudioOut | None = None
    max_completion_tokens: Annotated[int, Field(ge=-1)] | None = None
    max_tokens: Annotated[int, Field(ge=-1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[
            Annotated[StopString, Tag("~string")] | Annotated[list[StopString], Field(max_length=4), Tag("~list")],
            Discriminator(lambda value: "~string" if isinstance(value, str) else "~list"),
        ]
        | None
    ) = None
    tools: list[Tool] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    thinking_token_budget: Annotated[int, Field(ge=0)] | None = None
    chat_template_kwargs: TemplateSwitches | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


def read_chat(body: bytes) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as problem:
        raise request_error(ChatRequest, problem, {"n": "expected 1 choice, the only number supported"}) from None
