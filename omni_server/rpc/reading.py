"""Step 1. What a message of the wire means: protobuf becomes a `types.Request`, or an error that names the field."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from omni.v1 import content_pb2, omni_service_pb2
from omni_server.arguments import read_arguments
from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.instruction import check_model, instruction
from omni_server.live_audio import Encoding, output_rate
from omni_server.types import (
    AudioPart,
    Calling,
    DecodeOptions,
    ImagePart,
    MediaSource,
    Message,
    Modality,
    Part,
    Request,
    Sampling,
    TextPart,
    Thinking,
    ToolCall,
    VideoPart,
)
from omni_server.wording import shown

LONGEST_TEXT = 4096  # characters to read aloud, as at the REST door
ROLES = {
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
    content_pb2.ROLE_ASSISTANT: "assistant",
    content_pb2.ROLE_TOOL: "tool",
}
MODALITIES = {
    content_pb2.MODALITY_TEXT: Modality.TEXT,
    content_pb2.MODALITY_IMAGE: Modality.IMAGE,
    content_pb2.MODALITY_AUDIO: Modality.AUDIO,
}
ENCODINGS: dict[int, Encoding] = {
    content_pb2.AUDIO_ENCODING_UNSPECIFIED: "pcm16",
    content_pb2.AUDIO_ENCODING_PCM_S16LE: "pcm16",
    content_pb2.AUDIO_ENCODING_OPUS: "opus_packets",
    content_pb2.AUDIO_ENCODING_WAV: "wav",
    content_pb2.AUDIO_ENCODING_MP3: "mp3",
    content_pb2.AUDIO_ENCODING_FLAC: "flac",
    content_pb2.AUDIO_ENCODING_OGG_OPUS: "opus",
    content_pb2.AUDIO_ENCODING_AAC: "aac",
}
# Field, least and most; the same as at the REST door.
SAMPLING_LIMITS = (
    ("temperature", 0.0, 2.0),
    ("top_p", 1e-6, 1.0),
    ("top_k", -1, 1 << 20),
    ("seed", -(1 << 63), (1 << 63) - 1),
    ("max_tokens", 1, 1 << 20),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
)
USES = content_pb2.ToolUse.values()
MOST_STOPS = 4
RATIO = re.compile(r"[1-9]\d{0,3}:[1-9]\d{0,3}")
MOST_STEPS, MOST_PREVIEWS = 200, 3


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """How sound goes down."""

    encoding: Encoding
    sample_rate: int


def read_generate(asked: omni_service_pb2.GenerateRequest, door: Door) -> tuple[Request, SoundFormat]:
    _check_model(door, asked.model)
    if not asked.messages:
        raise RequestError("`messages` is empty; expected at least one message", param="messages")
    tools, calling = read_tools(asked.tools, asked.tool_choice)
    request = Request(
        request_id=f"generate-{uuid.uuid4().hex}",
        messages=read_messages(asked.messages, "messages"),
        modalities=read_modalities(asked.modalities) | {Modality.TEXT},
        sampling=read_sampling(asked.sampling),
        decode=replace(read_drawing(asked.drawing), voice=asked.voice or None, seed=_seed(asked.sampling)),
        tools=tools,
        calling=calling,
        thinking=read_thinking(asked.thinking),
    )
    return request, read_format(asked.audio, door, "audio")


def read_synthesize(asked: omni_service_pb2.SynthesizeRequest, door: Door) -> tuple[Request, SoundFormat]:
    _check_model(door, asked.model)
    if not asked.text.strip():
        raise RequestError("`text` is empty; expected words to read aloud", param="text")
    if len(asked.text) > LONGEST_TEXT:
        raise RequestError(f"`text` has `{len(asked.text)}` characters; expected at most {LONGEST_TEXT}", param="text")
    request = Request(
        request_id=f"synthesize-{uuid.uuid4().hex}",
        messages=(Message("user", (TextPart(instruction(door, "speech", asked.text)),)),),
        modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
        sampling=read_sampling(asked.sampling),
        decode=DecodeOptions(voice=asked.voice or None),
    )
    return request, read_format(asked.audio, door, "audio")


def _check_model(door: Door, model: str) -> None:
    if model:
        check_model(door, model)


def read_messages(messages: Sequence[content_pb2.Message], param: str) -> tuple[Message, ...]:
    return tuple(_message(message, f"{param}[{place}]") for place, message in enumerate(messages))


def _message(message: content_pb2.Message, at: str) -> Message:
    if message.role not in ROLES:
        raise RequestError(f"`{at}.role` is `{message.role}`; expected system, user, assistant or tool", param=f"{at}.role")
    role = ROLES[message.role]
    if not message.parts and not message.tool_calls:
        raise RequestError(f"`{at}.parts` is empty; expected at least one part", param=f"{at}.parts")
    for field, owner in (("reasoning", "assistant"), ("tool_calls", "assistant"), ("tool", "tool")):
        if getattr(message, field) and role != owner:
            raise RequestError(
                f"`{at}.{field}` is set in a message of {role}; expected it of {owner} only", param=f"{at}.{field}"
            )
    parts = tuple(_part(part, f"{at}.parts[{place}]") for place, part in enumerate(message.parts))
    if role in ("system", "tool") and not all(isinstance(part, TextPart) for part in parts):
        raise RequestError(f"`{at}.parts` holds media; a {role} message takes text only", param=f"{at}.parts")
    calls = tuple(
        ToolCall(call.name, read_arguments(call.arguments, f"{at}.tool_calls[{place}].arguments"))
        for place, call in enumerate(message.tool_calls)
    )
    return Message(role, parts, message.reasoning or None, calls, message.tool or None)


def read_tools(tools: Sequence[content_pb2.Tool], choice: content_pb2.ToolChoice) -> tuple[tuple[dict[str, Any], ...], Calling]:
    """Those that the model is told of, and whether and how it calls them."""
    offered = tuple(_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools))
    if choice.use not in USES:
        told = f"`tool_choice.use` is `{choice.use}`; expected auto, none or required"
        raise RequestError(told, param="tool_choice.use")
    required = choice.use == content_pb2.TOOL_USE_REQUIRED
    names = [tool.name for tool in tools]
    if choice.name and (not required or choice.name not in names):
        expected = ", ".join(map(shown, names)) or "none, for there are no `tools`"
        told = f"`tool_choice.name` is {shown(choice.name)}; expected it with required, and one of the `tools`: {expected}"
        raise RequestError(told, param="tool_choice.name")
    calling = Calling(required, choice.name or None, several=not choice.one_call and not choice.name)
    return () if choice.use == content_pb2.TOOL_USE_NONE else offered, calling


def _tool(tool: content_pb2.Tool, at: str) -> dict[str, Any]:
    """A tool in the shape that chat templates know."""
    if not tool.name:
        raise RequestError(f"`{at}.name` is empty; expected the name of a function", param=f"{at}.name")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = read_arguments(tool.parameters, f"{at}.parameters")
    return {"type": "function", "function": function}


def _part(part: content_pb2.Part, at: str) -> Part:
    match part.WhichOneof("content"):
        case "text":
            return TextPart(part.text)
        case "image":
            return ImagePart(read_media(part.image, f"{at}.image"))
        case "audio":
            return AudioPart(read_media(part.audio, f"{at}.audio"))
        case "video":
            return VideoPart(read_media(part.video, f"{at}.video"))
        case _:
            raise RequestError(f"`{at}` is empty; expected text, image, audio or video", param=at)


def read_media(media: content_pb2.Media, param: str) -> MediaSource:
    match media.WhichOneof("source"):
        case "data":
            return MediaSource(param, data=media.data)
        case "url":
            return MediaSource(param, url=media.url)
        case _:
            raise RequestError(f"`{param}` is empty; expected data or a url", param=param)


def read_modalities(modalities: Sequence[content_pb2.Modality]) -> frozenset[Modality]:
    for modality in modalities:
        if modality not in MODALITIES:
            raise RequestError(f"`modalities` holds `{modality}`; expected text, image or audio", param="modalities")
    return frozenset(MODALITIES[modality] for modality in modalities)


def read_sampling(sampling: content_pb2.Sampling) -> Sampling:
    values = {name: getattr(sampling, name) for name, _, _ in SAMPLING_LIMITS if sampling.HasField(name)}
    for name, least, most in SAMPLING_LIMITS:
        value = values.get(name, least)
        if not least <= value <= most or not math.isfinite(value):
            expected = "above 0 up to 1" if name == "top_p" else f"{least:g} to {most:g}"
            raise RequestError(f"`sampling.{name}` is `{value}`; expected {expected}", param=f"sampling.{name}")
    if len(sampling.stop) > MOST_STOPS or not all(sampling.stop):
        raise RequestError(
            f"`sampling.stop` is {shown(', '.join(sampling.stop))}; expected up to {MOST_STOPS} words, none of them empty",
            param="sampling.stop",
        )
    return Sampling(**values, stop=tuple(sampling.stop))


def read_thinking(thinking: content_pb2.Thinking) -> Thinking:
    budget = thinking.budget_tokens if thinking.HasField("budget_tokens") else None
    if budget is not None and budget < 0:
        raise RequestError(f"`thinking.budget_tokens` is `{budget}`; expected 0 or more", param="thinking.budget_tokens")
    return Thinking(thinking.enabled if thinking.HasField("enabled") else None, budget)


def read_drawing(drawing: content_pb2.Drawing) -> DecodeOptions:
    """Whether this picture decoder can draw the ratio is for it to say, when it knows what the model chose."""
    steps = drawing.steps if drawing.HasField("steps") else None
    if drawing.ratio and not RATIO.fullmatch(drawing.ratio):
        raise RequestError(
            f"`drawing.ratio` is {shown(drawing.ratio)}; expected width:height such as `4:3`", param="drawing.ratio"
        )
    for name, value, least, most in (("steps", steps, 1, MOST_STEPS), ("previews", drawing.previews, 0, MOST_PREVIEWS)):
        if value is not None and not least <= value <= most:
            raise RequestError(f"`drawing.{name}` is `{value}`; expected {least} to {most}", param=f"drawing.{name}")
    return DecodeOptions(ratio=drawing.ratio or "1:1", steps=steps, previews=drawing.previews)


def _seed(sampling: content_pb2.Sampling) -> int | None:
    return sampling.seed if sampling.HasField("seed") else None


def read_format(asked: content_pb2.AudioFormat, door: Door, param: str) -> SoundFormat:
    if asked.encoding not in ENCODINGS:
        raise RequestError(f"`{param}.encoding` is `{asked.encoding}`, which is unknown here", param=f"{param}.encoding")
    encoding = ENCODINGS[asked.encoding]
    own = door.pipeline.checkpoint.sample_rate
    return SoundFormat(encoding, output_rate(encoding, asked.sample_rate_hertz, own, f"{param}.sample_rate_hertz"))
