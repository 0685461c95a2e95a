"""A whole reply, out of a plain answer or out of the events of a stream. Sync, no sockets, no clock."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, assert_never

from omni_client.errors import MediaError, ResponseFormatError
from omni_client.events import (
    AudioDelta,
    Done,
    Event,
    Heard,
    ImagePreview,
    ImageReady,
    Modality,
    ReasoningDelta,
    SpanClosed,
    SpanError,
    SpanOpened,
    TextDelta,
    ToolCalled,
    Usage,
)
from omni_client.media import AUDIO_TYPES, OTHER_NAMES, PICTURE_TYPES, Audio, Picture


@dataclass(frozen=True, slots=True)
class Segment:
    """One span of a reply. `text` is set for words, `picture` for a picture that could be made, `seconds` for a voice;
    `error` where its medium could not be made."""

    index: int
    modality: Modality
    text: str = ""
    picture: Picture | None = None
    seconds: float = 0.0
    error: SpanError | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered. `text` is all words of it, which are the transcript where it is spoken; `segments` keeps the
    order of words, pictures and voices. `finish_reason` is `stop`, `tool_calls`, `length` where a limit cut it, or empty where
    the stream has not ended. `reasoning` is what the model thought before, `tool_calls` what it asks for, `heard` what it
    heard the person say, of models that tell. `request_id` is what the server's log calls the request."""

    text: str
    pictures: tuple[Picture, ...] = ()
    audio: Audio | None = None
    segments: tuple[Segment, ...] = ()
    finish_reason: str = ""
    usage: Usage | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    id: str = ""
    model: str = ""
    request_id: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCalled, ...] = ()
    heard: str = ""

    @property
    def picture(self) -> Picture | None:
        """The first picture, where there is one."""
        return self.pictures[0] if self.pictures else None

    @property
    def errors(self) -> tuple[SpanError, ...]:
        """Why spans could not be made, in order."""
        return tuple(segment.error for segment in self.segments if segment.error is not None)

    def save(self, stem: str | os.PathLike[str]) -> list[Path]:
        """Writes every picture and the voice beside each other: `stem.png`, `stem-2.png`, ..., `stem.wav`. Returns their
        paths; a reply of words alone writes nothing. A suffix that names a format is no part of the stem."""
        stem = Path(stem)
        if stem.suffix[1:].lower() in {*PICTURE_TYPES, *AUDIO_TYPES, *OTHER_NAMES}:
            stem = stem.with_suffix("")
        stem.parent.mkdir(parents=True, exist_ok=True)
        written = []
        for number, picture in enumerate(self.pictures, start=1):
            name = stem.name if number == 1 else f"{stem.name}-{number}"
            written.append(picture.save(stem.with_name(f"{name}.{picture.format}")))
        if self.audio is not None:
            written.append(self.audio.save(stem.with_name(f"{stem.name}.{self.audio.format}")))
        return written

    def as_message(self) -> dict[str, Any]:
        """The assistant's turn on the wire: words and pictures. A voice goes back as its words, which is all that the model
        takes in of it."""
        images = []
        for picture in self.pictures:
            data = base64.b64encode(picture.data).decode("ascii")
            url = f"data:{PICTURE_TYPES[picture.format]};base64,{data}"
            images.append({"type": "image_url", "image_url": {"url": url}})
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.tool_calls
        ]
        optional = {name: value for name, value in (("images", images), ("tool_calls", calls)) if value}
        return {"role": "assistant", "content": self.text or (None if calls else ""), **optional}


class ReplyBuilder:
    """`feed(event)` collects; `reply()` is what has arrived so far, at any moment."""

    def __init__(self) -> None:
        self._segments: dict[int, Segment] = {}
        self._pictures: list[Picture] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._heard: list[str] = []
        self._calls: list[ToolCalled] = []
        self._pcm = bytearray()
        self._sample_rate = 0
        self._done: Done | None = None

    def feed(self, event: Event) -> None:
        match event:
            case SpanOpened(index=index, modality=modality):
                self._segments[index] = Segment(index, modality)
            case TextDelta(index=index, text=text):
                self._text.append(text)
                self._update(index, "text", text=self._segment(index, "text").text + text)
            case ReasoningDelta(text=text):
                self._reasoning.append(text)
            case Heard(text=text):
                self._heard.append(text)
            case ToolCalled():
                self._calls.append(event)
            case AudioDelta(pcm=pcm, sample_rate=sample_rate):
                self._pcm += pcm
                self._sample_rate = sample_rate
            case ImageReady(index=index, picture=picture):
                self._pictures.append(picture)
                self._update(index, "image", picture=picture)
            case ImagePreview():
                pass  # the finished picture is still to come
            case SpanClosed(index=index, error=error, seconds=seconds):
                self._update(index, "text", error=error, seconds=seconds)
            case Done():
                self._done = event
            case _:
                assert_never(event)

    def reply(self, *, id: str = "", model: str = "", request_id: str = "") -> Reply:
        text = "".join(self._text)
        segments = tuple(self._segments[index] for index in sorted(self._segments))
        done = self._done or Done("")
        return Reply(
            text=text,
            pictures=tuple(self._pictures),
            audio=Audio.from_pcm(bytes(self._pcm), self._sample_rate, text) if self._pcm else None,
            segments=segments,
            finish_reason=done.finish_reason,
            usage=done.usage,
            seconds=done.seconds,
            id=id,
            model=model,
            request_id=request_id,
            reasoning="".join(self._reasoning),
            tool_calls=tuple(self._calls),
            heard="".join(self._heard),
        )

    def _segment(self, index: int, modality: Modality) -> Segment:
        return self._segments.setdefault(index, Segment(index, modality))

    def _update(self, index: int, modality: Modality, **changes: Any) -> None:
        self._segments[index] = replace(self._segment(index, modality), **changes)


def read_reply(body: Any, request_id: str) -> Reply:
    """The body of a plain `chat.completion`. Servers that do not tell the order of spans get words, pictures, voice."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        spoken = message.get("audio") or {}
        text = message.get("content") or spoken.get("transcript") or ""
        pictures = tuple(picture_of(part) for part in message.get("images") or ())
        audio = None
        if spoken.get("data"):
            audio = Audio.from_bytes(base64.b64decode(spoken["data"]), "the voice")
            audio = replace(audio, transcript=spoken.get("transcript"))
        omni = message.get("omni") or {}
        return Reply(
            text=text,
            pictures=pictures,
            audio=audio,
            segments=_segments(omni.get("segments"), text, pictures),
            finish_reason=choice.get("finish_reason") or "",
            usage=read_usage(body.get("usage")),
            seconds=omni.get("seconds") or {},
            id=body.get("id") or "",
            model=body.get("model") or "",
            request_id=request_id,
            reasoning=message.get("reasoning_content") or "",
            tool_calls=tuple(tool_call(call, place) for place, call in enumerate(message.get("tool_calls") or ())),
            heard=omni.get("user_transcript") or "",
        )
    except (LookupError, TypeError, AttributeError, ValueError, MediaError) as problem:
        message = f"the answer is not a chat completion: {problem!r}"
        raise ResponseFormatError(message, request_id=request_id, body=body) from None


def _segments(told: Any, text: str, pictures: tuple[Picture, ...]) -> tuple[Segment, ...]:
    """Each told segment says how much of the words or pictures it is; in order they add up to all of them."""
    if told is None:
        words = [Segment(0, "text", text=text)] if text else []
        return (*words, *(Segment(len(words) + place, "image", picture=one) for place, one in enumerate(pictures)))
    segments, characters, images = [], 0, 0
    for one in told:
        segment = Segment(one["index"], one["type"], seconds=one.get("seconds", 0.0), error=span_error(one))
        if segment.modality == "text":
            segment = replace(segment, text=text[characters : characters + one["characters"]])
            characters += one["characters"]
        elif segment.modality == "image" and one["images"]:
            segment = replace(segment, picture=pictures[images])
            images += 1
        segments.append(segment)
    return tuple(segments)


def span_error(segment: Mapping[str, Any]) -> SpanError | None:
    error = segment.get("error")
    return SpanError(error.get("message", ""), error.get("type"), error.get("code")) if error else None


def tool_call(call: Mapping[str, Any], place: int) -> ToolCalled:
    function = call["function"]
    return ToolCalled(call.get("index", place), call.get("id") or "", function["name"], function.get("arguments") or "{}")


def picture_of(part: Mapping[str, Any]) -> Picture:
    """A picture out of `{"image_url": {"url": "data:..."}}`; ValueError where it is none."""
    url = part["image_url"]["url"]
    _, comma, data = url.partition(";base64,")
    if not comma:
        raise ValueError(f"a picture is `{url[:60]}`; expected a data URL")
    try:
        return Picture.from_bytes(base64.b64decode(data, validate=True))
    except binascii.Error as problem:
        raise ValueError(f"a picture is not base64: {problem}") from None


def read_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    if not usage:
        return None
    asked = usage.get("prompt_tokens_details") or {}
    answered = usage.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=usage.get("prompt_tokens") or 0,
        prompt_image_tokens=asked.get("image_tokens") or 0,
        prompt_audio_tokens=asked.get("audio_tokens") or 0,
        cached_tokens=asked.get("cached_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        completion_image_tokens=answered.get("image_tokens") or 0,
        completion_audio_tokens=answered.get("audio_tokens") or 0,
    )
