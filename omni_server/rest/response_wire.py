"""Step 1. The shape of a `POST /v1/responses` body, read strictly; says nothing about what it means.

Inside items unknown keys are let pass, because clients send back the items of an answer as they got them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from omni_server.rest.chat_wire import (
    TEXT_OR_PARTS,
    AudioOut,
    InputAudio,
    JsonObject,
    Part,
    PlainText,
    Refusal,
    tagged_kind,
)
from omni_server.rest.fields import JsonFields, only
from omni_server.rest.image_fields import NO_CLEAR
from omni_server.rest.kinds import Ignored, Refused
from omni_server.rest.sampled import Sampled
from omni_server.rest.tool_choice import CHOICES, ONE_CALL, ToolChoice

NO_SIZES = "expected `auto`, because a picture in a conversation has the size that the decoder draws"
NO_CUTS = "expected `disabled`, because nothing is left out of a conversation in silence"


def _tagged_item(value: Any) -> str | None:
    """A message may leave its `type` out."""
    if isinstance(value, dict) and value.get("type") is None and "role" in value:
        return "~message"
    return tagged_kind(value)


class InputText(Part):
    type: Literal["input_text", "output_text", "text"]
    text: str


class InputImage(Part):
    type: Literal["input_image"]
    image_url: str


class InputSound(Part):
    type: Literal["input_audio"]
    input_audio: InputAudio


ContentPart = Annotated[
    Annotated[InputText, Tag("~input_text")]
    | Annotated[InputText, Tag("~output_text")]
    | Annotated[InputText, Tag("~text")]
    | Annotated[Refusal, Tag("~refusal")]
    | Annotated[InputImage, Tag("~input_image")]
    | Annotated[InputSound, Tag("~input_audio")],
    Discriminator(
        tagged_kind,
        custom_error_type="part_type",
        custom_error_message="expected a part with `type` one of `input_text`, `input_image`, `input_audio`, `output_text`",
    ),
]
Content = Annotated[
    Annotated[str, Tag("~string")] | Annotated[list[ContentPart], Tag("~parts")],
    TEXT_OR_PARTS,
]


class MessageItem(Part):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class CallItem(Part):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str = "{}"


class CallOutputItem(Part):
    type: Literal["function_call_output"]
    call_id: str
    output: Content


class Thought(Part):
    text: str


class ThoughtItem(Part):
    type: Literal["reasoning"]
    content: list[Thought] | None = None


class PictureItem(Part):
    type: Literal["image_generation_call"]
    result: str | None = None


Item = Annotated[
    Annotated[MessageItem, Tag("~message")]
    | Annotated[CallItem, Tag("~function_call")]
    | Annotated[CallOutputItem, Tag("~function_call_output")]
    | Annotated[ThoughtItem, Tag("~reasoning")]
    | Annotated[PictureItem, Tag("~image_generation_call")],
    Discriminator(
        _tagged_item,
        custom_error_type="item_type",
        custom_error_message="expected an item with `type` one of `message`, `function_call`, `function_call_output`, "
        "`reasoning`, `image_generation_call`",
    ),
]
Input = Annotated[
    Annotated[str, Tag("~string")] | Annotated[list[Item], Field(min_length=1), Tag("~items")],
    Discriminator(
        lambda value: "~string" if isinstance(value, str) else "~items" if isinstance(value, list) else None,
        custom_error_type="input_type",
        custom_error_message="expected a string or a list of items",
    ),
]


class FunctionTool(JsonFields):
    type: Literal["function"]
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Annotated[Any, Ignored("a call that must be made follows its schema, any other is the model's own")] = None
    output_schema: Annotated[Any, Ignored("what a tool gives back is read as it is")] = None


class ImageTool(JsonFields):
    type: Literal["image_generation"]
    output_format: Literal["png", "webp", "jpeg"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    partial_images: Annotated[
        int | None, Field(ge=0, le=3, description="previews in a stream, at most one less than the picture has steps")
    ] = None
    size: Annotated[str | None, only("auto", because=NO_SIZES), Field(description=NO_SIZES)] = None
    background: Annotated[str | None, only("opaque", "auto", because=NO_CLEAR), Field(description=NO_CLEAR)] = None
    model: Annotated[Any, Ignored("one model writes and draws")] = None
    action: Annotated[Any, Ignored("the model decides by itself what it draws")] = None
    quality: Annotated[Any, Ignored("there is one quality")] = None
    complexity: Annotated[Any, Ignored("there is one quality")] = None
    moderation: Annotated[Any, Ignored("there is no moderation here")] = None
    input_fidelity: Annotated[Any, Ignored("the model sees a picture in one way")] = None
    input_image_mask: Annotated[Any, Refused("the model draws the whole picture anew")] = None
    frame_count: Annotated[Any, Refused("this server draws single pictures")] = None
    frame_duration_ms: Annotated[Any, Refused("this server draws single pictures")] = None
    svg: Annotated[Any, Refused("this server draws pixels")] = None


Tool = Annotated[
    Annotated[FunctionTool, Tag("~function")] | Annotated[ImageTool, Tag("~image_generation")],
    Discriminator(
        tagged_kind,
        custom_error_type="tool_type",
        custom_error_message="expected a tool with `type` `function` or `image_generation`",
    ),
]


class JsonSchema(JsonFields):
    type: Literal["json_schema"]
    name: str
    description: str | None = None
    strict: bool | None = None  # a schema always holds strictly
    of: Annotated[dict[str, Any], Field(alias="schema")]


class TextOptions(JsonFields):
    format: (
        Annotated[
            Annotated[PlainText, Tag("~text")]
            | Annotated[JsonObject, Tag("~json_object")]
            | Annotated[JsonSchema, Tag("~json_schema")],
            Discriminator(
                tagged_kind,
                custom_error_type="format_type",
                custom_error_message="expected an object with `type` one of `text`, `json_object`, `json_schema`",
            ),
        ]
        | None
    ) = None
    verbosity: Annotated[Any, Ignored("the models here have not learnt it")] = None


class Reasoning(JsonFields):
    effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None,
        Field(description="`none` asks for no thoughts, any other for thoughts"),
    ] = None
    summary: Annotated[Any, Ignored("thoughts are shown as they are")] = None
    generate_summary: Annotated[Any, Ignored("thoughts are shown as they are")] = None
    context: Annotated[Any, Ignored("the chat template decides which thoughts it keeps")] = None
    mode: Annotated[Any, Ignored("there is one mode")] = None


class ResponseStreamOptions(JsonFields):
    include_obfuscation: Annotated[Any, Ignored("nothing is added to hide lengths")] = None


class ResponseRequest(Sampled):
    input: Annotated[Input, Field(description="words, or items: messages, calls and what they gave, thoughts, pictures")]
    instructions: str | None = None
    previous_response_id: Annotated[
        str | None,
        Field(description="of a response of the same caller that is still kept; `instructions` are not carried over"),
    ] = None
    modalities: Annotated[
        list[Literal["text", "audio", "image"]] | None,
        Field(description="not OpenAI's: as in chat; the tool `image_generation` asks for pictures too"),
    ] = None
    audio: Annotated[AudioOut | None, Field(description="not OpenAI's: as in chat")] = None
    max_output_tokens: Annotated[int | None, Field(ge=1, description="of all modalities together")] = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: Annotated[
        list[str] | None,
        Field(description="`message.output_text.logprobs` has an effect, for there is nothing here that others could include"),
    ] = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[ToolChoice | None, Field(description=CHOICES)] = None
    parallel_tool_calls: Annotated[bool | None, Field(description=ONE_CALL)] = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: Annotated[bool | None, Field(description="kept for an hour unless false, as far as there is room")] = None
    metadata: Annotated[dict[str, str] | None, Field(max_length=16)] = None
    truncation: Annotated[str | None, only("disabled", because=NO_CUTS), Field(description=NO_CUTS)] = None
    user: Annotated[Any, Ignored("nothing is counted by user here")] = None
    safety_identifier: Annotated[Any, Ignored("nothing is counted by user here")] = None
    service_tier: Annotated[Any, Ignored("there is one tier")] = None
    prompt_cache_key: Annotated[Any, Ignored("the cache finds prefixes by their content")] = None
    prompt_cache_options: Annotated[Any, Ignored("the cache finds prefixes by their content")] = None
    prompt_cache_retention: Annotated[Any, Ignored("what is cached is kept while there is room")] = None
    max_tool_calls: Annotated[Any, Ignored("the server calls no tools by itself")] = None
    image: Annotated[Any, Ignored("pictures are read as they are")] = None
    background: Annotated[Any, Refused("a reply is made while its client waits, on the connection that asked for it")] = None
    background_options: Annotated[Any, Refused("a reply is made while its client waits")] = None
    conversation: Annotated[Any, Refused("a conversation goes on by `previous_response_id`")] = None
    context_management: Annotated[Any, Refused("nothing is left out of a conversation in silence")] = None
    prompt: Annotated[Any, Refused("no prompts are stored here")] = None
    moderation: Annotated[Any, Refused("there is no moderation here")] = None
    access_programs: Annotated[Any, Refused("there are no access programs here")] = None

    @property
    def image_tool(self) -> ImageTool | None:
        return next((tool for tool in self.tools or () if isinstance(tool, ImageTool)), None)

    @property
    def function_tools(self) -> list[FunctionTool]:
        return [tool for tool in self.tools or () if isinstance(tool, FunctionTool)]
