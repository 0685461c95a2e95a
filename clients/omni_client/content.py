"""What a user may hand in, as OpenAI's messages: words, paths, bytes, pictures, waveforms, earlier replies. Sends nothing."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from omni_client.errors import MediaError
from omni_client.media import AUDIO_TYPES, PICTURE_TYPES, Audio, Picture, sniff
from omni_client.reply import Reply

if TYPE_CHECKING:
    import numpy
    import PIL.Image

    Waveform = tuple[numpy.ndarray[Any, Any], int]
    Drawn = str | os.PathLike[str] | bytes | Picture | PIL.Image.Image
    Recording = str | os.PathLike[str] | bytes | Audio | Waveform | BinaryIO
    Part = str | os.PathLike[str] | bytes | Picture | Audio | PIL.Image.Image | Waveform | Mapping[str, Any]
    Content = Part | Sequence[Part]
    Conversation = Part | Sequence[Part | "Message" | Reply]

Wire = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `content` is what `generate` takes as one: a string, a medium, or a list of both."""

    role: Literal["system", "user", "assistant"]
    content: Content


def wire_messages(conversation: Conversation, system: str | None = None) -> list[Wire]:
    """`conversation` as OpenAI's `messages`. A list is a row of turns where it holds a turn, and then a string or a medium in
    it is a turn of the user; else it is one turn of several parts."""
    turns: list[Any] = [*conversation] if _is_turns(conversation) else [Message("user", conversation)]  # type: ignore[misc, arg-type]
    messages = [_message(turn) for turn in turns]
    return [{"role": "system", "content": system}, *messages] if system is not None else messages


def _is_turns(conversation: object) -> bool:
    return isinstance(conversation, list | tuple) and any(
        isinstance(item, Message | Reply) or (isinstance(item, Mapping) and "role" in item) for item in conversation
    )


def _message(turn: object) -> Wire:
    match turn:
        case Reply():
            return turn.as_message()
        case Message(role=role, content=content):
            return {"role": role, "content": _content(content)}
        case Mapping() if "role" in turn:
            return {**turn, **({"content": _content(turn["content"])} if "content" in turn else {})}
        case _:
            return {"role": "user", "content": _content(turn)}


def _content(content: object) -> object:
    if content is None or isinstance(content, str):
        return content
    # A tuple of a waveform and its rate is one part; every other tuple is a row of parts.
    if isinstance(content, list | tuple) and not _is_waveform(content):
        if not content:
            raise MediaError("a turn is empty; expected words or a medium")
        return [wire_part(part) for part in content]
    return [wire_part(content)]


def wire_part(part: object) -> Wire:
    """One part of a message. A string is always words; a file is named by a Path."""
    match part:
        case str():
            return {"type": "text", "text": part}
        case Picture():
            return _picture(part)
        case Audio():
            return _recording(part)
        case bytes() | bytearray() | memoryview():
            return _file(bytes(part), "the bytes")
        case os.PathLike():
            path = os.fspath(part)
            try:
                return _file(Path(path).read_bytes(), f"`{path}`")
            except OSError as problem:
                raise MediaError(f"`{path}` cannot be read: {problem.strerror or problem}") from None
        case Mapping():
            return dict(part)
        case _ if _is_image(part):
            return _picture(Picture.from_image(part))  # type: ignore[arg-type]
        case (waveform, int(sample_rate)):
            return _recording(Audio.from_waveform(waveform, sample_rate))  # type: ignore[arg-type]
        case _:
            raise MediaError(
                f"a part of the content is a `{type(part).__name__}`; expected a string, a Path, bytes, a Picture, an Audio, "
                "a PIL image or a tuple (waveform, sample_rate)"
            )


def recording(given: Recording) -> Audio:
    """What `transcribe` takes. Here a string is the path of a file."""
    match given:
        case Audio():
            return given
        case bytes() | bytearray() | memoryview():
            return Audio.from_bytes(bytes(given))
        case str() | os.PathLike():
            return Audio.open(given)
        case (waveform, int(sample_rate)):
            return Audio.from_waveform(waveform, sample_rate)
        case _ if callable(getattr(given, "read", None)):
            return Audio.from_bytes(given.read())  # type: ignore[union-attr]
        case _:
            raise MediaError(
                f"the recording is a `{type(given).__name__}`; expected a path, bytes, an open file, an Audio "
                "or a tuple (waveform, sample_rate)"
            )


def picture(given: Drawn) -> Picture:
    """What a live conversation takes. Here a string is the path of a file."""
    match given:
        case Picture():
            return given
        case bytes() | bytearray() | memoryview():
            return Picture.from_bytes(bytes(given))
        case str() | os.PathLike():
            return Picture.open(given)
        case _ if _is_image(given):
            return Picture.from_image(given)
        case _:
            raise MediaError(f"the picture is a `{type(given).__name__}`; expected a Picture, a path, bytes or a PIL image")


def _is_waveform(content: object) -> bool:
    return isinstance(content, tuple) and len(content) == 2 and type(content[1]) is int


def _is_image(part: object) -> bool:
    """A PIL image, told without importing PIL."""
    return type(part).__module__.startswith("PIL.") and hasattr(part, "save")


def _file(data: bytes, name: str) -> Wire:
    kind, format = sniff(data, name)
    return _picture(Picture(data, format)) if kind == "image" else _recording(Audio(data, format))


def _picture(picture: Picture) -> Wire:
    data = base64.b64encode(picture.data).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:{PICTURE_TYPES[picture.format]};base64,{data}"}}


def _recording(audio: Audio) -> Wire:
    if audio.format not in AUDIO_TYPES:
        raise MediaError(f"the recording is `{audio.format}`; expected one of {', '.join(AUDIO_TYPES)}")
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(audio.data).decode("ascii"), "format": audio.format},
    }
