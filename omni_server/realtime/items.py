"""Steps 1 and 8. The items of a conversation: as the client sends them, as the session knows them, as the client is told."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Iterator, Sequence

from omni_server.arguments import read_arguments
from omni_server.audio_format import wav_header
from omni_server.errors import RequestError
from omni_server.live_audio import open_reader
from omni_server.realtime.held import Body, Sound
from omni_server.realtime.wire import Content, ItemFields
from omni_server.turns import Item
from omni_server.types import AudioPart, ImagePart, MediaSource, Message, Part, TextPart, ToolCall
from omni_server.wording import shown

ROLES = {
    "user": ("input_text", "input_audio", "input_image", "text", "audio"),
    "assistant": ("output_text", "output_audio", "text", "audio"),
    "system": ("input_text", "text"),
}


def new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:24]}"


def read_base64(text: str, param: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise RequestError(f"`{param}` is {shown(text)}; expected base64", param=param, code="invalid_media") from None


def read_item(item: ItemFields, sound: Sound, param: str, name_of: Callable[[str], str | None]) -> Item:
    """Sound comes in the session's input format. `name_of`: the tool behind the id of a call."""
    id = item.id or new_id("item")
    match item.type:
        case "message":
            return Item(id, _message(item, sound, param))
        case "function_call":
            name, call_id = _given(item, "name", param), item.call_id or new_id("call")
            arguments = read_arguments(_given(item, "arguments", param), f"{param}.arguments")
            return Item(id, Message("assistant", (), tool_calls=(ToolCall(name, arguments),)), call_id)
        case "function_call_output":
            call_id = _given(item, "call_id", param)
            output = (TextPart(_given(item, "output", param)),)
            return Item(id, Message("tool", output, tool=name_of(call_id) or call_id), call_id)
    raise RequestError(
        f"`{param}.type` is `{item.type}`; expected `message`, `function_call` or `function_call_output`", param=f"{param}.type"
    )


def _given(item: ItemFields, name: str, param: str) -> str:
    value: str | None = getattr(item, name)
    if value is None:
        raise RequestError(f"`{param}.{name}` is missing; an item of type `{item.type}` needs it", param=f"{param}.{name}")
    return value


def _message(item: ItemFields, sound: Sound, param: str) -> Message:
    role = _given(item, "role", param)
    if not item.content:
        raise RequestError(f"`{param}.content` is missing or empty; expected a list of parts", param=f"{param}.content")
    return Message(role, tuple(_parts(role, item.content, sound, param)))


def _parts(role: str, content: Sequence[Content], sound: Sound, param: str) -> Iterator[Part]:
    for place, part in enumerate(content):
        at = f"{param}.content[{place}]"
        if part.type not in ROLES[role]:
            expected = ", ".join(f"`{kind}`" for kind in ROLES[role])
            raise RequestError(
                f"`{at}.type` is `{part.type}` in a message of `{role}`; expected {expected}", param=f"{at}.type"
            )
        if part.type == "input_image":
            yield ImagePart(MediaSource(f"{at}.image_url", url=_of(part, "image_url", at)))
        elif role == "user" and part.type in ("input_audio", "audio"):
            yield AudioPart(MediaSource(f"{at}.audio", data=_recording(_of(part, "audio", at), sound, f"{at}.audio")))
        else:  # of an answer only the words count, as everywhere
            spoken = part.type in ("output_audio", "audio")
            yield TextPart(_of(part, "transcript" if spoken else "text", at))


def _of(part: Content, name: str, at: str) -> str:
    value: str | None = getattr(part, name)
    if value is None:
        raise RequestError(f"`{at}.{name}` is missing; a part of type `{part.type}` needs it", param=f"{at}.{name}")
    return value


def _recording(text: str, sound: Sound, param: str) -> bytes:
    """A WAV file of sound that came as a whole."""
    reader = open_reader(sound.encoding, sound.sample_rate)
    pcm = b"".join(reader.feed(frame).astype("<i2").tobytes() for frame in frames(read_base64(text, param), sound))
    return wav_header(reader.sample_rate, len(pcm)) + pcm


def frames(data: bytes, sound: Sound) -> Iterator[bytes]:
    """Pieces of 0.1 seconds, as a microphone gives them, for a client may send seconds at a time."""
    size = sound.sample_rate // 10 * (2 if sound.encoding == "pcm16" else 1)
    for at in range(0, len(data), size):
        yield data[at : at + size]


def item_body(item: ItemFields, id: str, call_id: str) -> Body:
    """What a client is told of an item of its own: its sound is not sent back."""
    body: Body = {"id": id, "object": "realtime.item", "type": item.type, "status": "completed"}
    if item.type == "message":
        parts = [part.model_dump(exclude_none=True, exclude={"audio"}) for part in item.content or ()]
        return {**body, "role": item.role, "content": parts}
    names = ("name", "arguments") if item.type == "function_call" else ("output",)
    return {**body, "call_id": call_id, **{name: getattr(item, name) for name in names}}


def heard_body(id: str, transcript: str | None = None) -> Body:
    """The person's turn."""
    part = {"type": "input_audio", "transcript": transcript}
    return {"id": id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user", "content": [part]}


def answer_body(id: str, status: str, content: list[Body]) -> Body:
    kind = {"id": id, "object": "realtime.item", "type": "message", "status": status}
    return {**kind, "role": "assistant", "content": content}


def call_body(id: str, status: str, call_id: str, name: str, arguments: str) -> Body:
    kind = {"id": id, "object": "realtime.item", "type": "function_call", "status": status}
    return {**kind, "call_id": call_id, "name": name, "arguments": arguments}
