"""How a live conversation is asked for, as protobuf: the first message on its wire. Sync, no sockets, no clock."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from omni.v1 import content_pb2, converse_pb2
from omni_client.content import wire_messages
from omni_client.errors import MediaError
from omni_client.events import Modality

if TYPE_CHECKING:
    from omni_client.call_setup import CallWishes
    from omni_client.wire import ToolChoice

MODALITIES = {
    "text": content_pb2.MODALITY_TEXT,
    "image": content_pb2.MODALITY_IMAGE,
    "audio": content_pb2.MODALITY_AUDIO,
}
NAMES = {number: cast(Modality, name) for name, number in MODALITIES.items()}
ROLES = {
    "system": content_pb2.ROLE_SYSTEM,
    "user": content_pb2.ROLE_USER,
    "assistant": content_pb2.ROLE_ASSISTANT,
    "tool": content_pb2.ROLE_TOOL,
}
USES = {
    "auto": content_pb2.TOOL_USE_AUTO,
    "none": content_pb2.TOOL_USE_NONE,
    "required": content_pb2.TOOL_USE_REQUIRED,
}
SAMPLING = ("temperature", "top_p", "top_k", "seed", "max_tokens", "presence_penalty", "frequency_penalty")
DETECTION = ("threshold", "prefix_padding_ms", "silence_duration_ms", "interrupt_response")


def config_request(wishes: CallWishes, model: str | None) -> converse_pb2.ConverseRequest:
    """The first message of a conversation. What is not wished is left to the server."""
    sampling = content_pb2.Sampling(**{name: wishes.get(name) for name in SAMPLING}, stop=_listed(wishes.get("stop")))  # type: ignore[arg-type]
    by_client = wishes.get("turns", "server") == "client"
    detection = converse_pb2.TurnDetection(
        type=converse_pb2.TURN_DETECTION_TYPE_NONE if by_client else converse_pb2.TURN_DETECTION_TYPE_SERVER_VAD,
        **{name: wishes.get(name) for name in DETECTION},  # type: ignore[arg-type]
    )
    history, effort = wishes.get("history"), wishes.get("reasoning_effort")
    config = converse_pb2.ConverseConfig(
        model=model or "",
        instructions=wishes.get("system", ""),
        history=_history(wire_messages(history)) if history is not None else [],
        modalities=[_modality(name) for name in wishes.get("modalities", ())],
        voice=wishes.get("voice", ""),
        input_audio=content_pb2.AudioFormat(sample_rate_hertz=wishes.get("sample_rate", 0)),
        output_audio=content_pb2.AudioFormat(sample_rate_hertz=wishes.get("output_sample_rate", 0)),
        sampling=sampling,
        turn_detection=detection,
        input_transcription=wishes.get("captions", False),
        tools=[_tool(tool) for tool in wishes.get("tools", ())],
        tool_choice=_tool_choice(wishes.get("tool_choice", "auto")),
        thinking=content_pb2.Thinking(enabled=effort != "none") if effort is not None else None,
        drawing=content_pb2.Drawing(ratio=wishes.get("ratio", ""), previews=wishes.get("previews", 0)),
    )
    return converse_pb2.ConverseRequest(config=config)


def _listed(stop: str | Sequence[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else [*(stop or ())]


def _modality(name: str) -> content_pb2.Modality:
    if name not in MODALITIES:
        raise MediaError(f"a modality is `{name}`; expected some of {', '.join(f'`{known}`' for known in MODALITIES)}")
    return MODALITIES[name]


def _tool(tool: Mapping[str, Any]) -> content_pb2.Tool:
    if tool.get("type") != "function":
        raise MediaError(f"a tool is `{tool.get('type')}`; expected a `function`")
    function = tool["function"]
    parameters = json.dumps(function["parameters"]) if function.get("parameters") else ""
    return content_pb2.Tool(name=function["name"], description=function.get("description") or "", parameters=parameters)


def _tool_choice(choice: ToolChoice) -> content_pb2.ToolChoice:
    if not isinstance(choice, str):
        return content_pb2.ToolChoice(use=content_pb2.TOOL_USE_REQUIRED, name=choice["function"]["name"])
    if choice not in USES:
        raise MediaError(f"`tool_choice` is `{choice}`; expected {', '.join(f'`{known}`' for known in USES)} or a function")
    return content_pb2.ToolChoice(use=USES[choice])


def _history(messages: Sequence[dict[str, Any]]) -> list[content_pb2.Message]:
    """This wire tells a tool's answer by the tool's name, and not by the id of its call."""
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()}
    return [_message(message, names) for message in messages]


def _message(message: dict[str, Any], names: Mapping[str, str]) -> content_pb2.Message:
    content = message.get("content") or []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    parts = [*parts, *message.get("images", ())]
    if message["role"] not in ROLES:
        raise MediaError(f"a role of the history is `{message['role']}`; expected {', '.join(f'`{role}`' for role in ROLES)}")
    called = message.get("tool_call_id") or ""
    return content_pb2.Message(
        role=ROLES[message["role"]],
        parts=[_part(part) for part in parts],
        tool_calls=[content_pb2.ToolCall(**call["function"]) for call in message.get("tool_calls") or ()],
        tool=names.get(called, called),
    )


def _part(part: dict[str, Any]) -> content_pb2.Part:
    match part["type"]:
        case "text":
            return content_pb2.Part(text=part["text"])
        case "image_url":
            return content_pb2.Part(image=content_pb2.Media(url=part["image_url"]["url"]))
        case "input_audio":
            return content_pb2.Part(audio=content_pb2.Media(data=base64.b64decode(part["input_audio"]["data"])))
        case other:
            raise MediaError(f"a part of the history is `{other}`; expected words, a picture or a recording")
