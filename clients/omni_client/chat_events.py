"""The chunks of a streamed chat completion become events. State without I/O: `feed(bytes)`, `finish()`; no clock."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from omni_client.errors import MediaError, ReplyFailedError, ResponseFormatError, StreamBrokenError, told_error
from omni_client.events import (
    AudioDelta,
    Done,
    Event,
    Heard,
    ImageReady,
    Modality,
    ReasoningDelta,
    SpanClosed,
    SpanOpened,
    TextDelta,
    Usage,
)
from omni_client.media import OPENAI_SAMPLE_RATE
from omni_client.reply import picture_of, read_usage, span_error, tool_call
from omni_client.sse import SSEDecoder

LAST = "[DONE]"


class ChatEvents:
    """Bytes of the body in, events out. `id` and `model` are known from the first chunk on; `ended` once the reply is
    complete, though the connection may still be open."""

    def __init__(self, request_id: str = "") -> None:
        self.id = ""
        self.model = ""
        self._request_id = request_id
        self._decoder = SSEDecoder()
        self._open: dict[int, Modality] = {}  # spans that are open, in the order in which they opened
        self._bytes_heard = 0
        self._finish_reason = ""
        self._usage: Usage | None = None
        self._seconds: dict[str, float] = {}
        self.ended = False

    def feed(self, item: bytes) -> list[Event]:
        """Raises ReplyFailedError where the server says that the reply failed."""
        events: list[Event] = []
        for sent in self._decoder.feed(item):
            if self.ended:
                break
            if sent.data == LAST:
                self.ended = True
                events.append(Done(self._finish_reason, self._usage, self._seconds))
            else:
                events += self._chunk(sent.data)
        return events

    def finish(self) -> list[Event]:
        """The body has ended. Raises StreamBrokenError where the reply had not."""
        if not self.ended:
            raise StreamBrokenError("the connection ended inside the reply", request_id=self._request_id)
        return []

    def _chunk(self, data: str) -> list[Event]:
        try:
            chunk = json.loads(data)
            if chunk.get("error"):
                told = told_error(chunk)
                message = told.pop("message") or "the server says that the reply failed"
                raise ReplyFailedError(message, request_id=self._request_id, body=chunk, **told)
            return self._events(chunk)
        except (LookupError, TypeError, AttributeError, ValueError, MediaError) as problem:
            message = f"a piece of the reply is not a chat completion chunk: {problem!r}"
            raise ResponseFormatError(message, request_id=self._request_id, body=data) from None

    def _events(self, chunk: dict[str, Any]) -> list[Event]:
        self.id = chunk.get("id") or self.id
        self.model = chunk.get("model") or self.model
        self._usage = read_usage(chunk.get("usage")) or self._usage
        self._seconds = (chunk.get("omni") or {}).get("seconds") or self._seconds
        events: list[Event] = []
        for choice in chunk["choices"]:
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            events += self._delta(choice.get("delta") or {})
        return events

    def _delta(self, delta: dict[str, Any]) -> Iterator[Event]:
        audio, omni = delta.get("audio") or {}, delta.get("omni") or {}
        if omni.get("user_transcript"):
            yield Heard(omni["user_transcript"])
        if delta.get("reasoning_content"):
            yield ReasoningDelta(delta["reasoning_content"])
        for words in (delta.get("content"), audio.get("transcript")):
            if words:
                yield TextDelta(self._place("text", last=True), words)
        if audio.get("data"):
            yield self._audio(base64.b64decode(audio["data"]))
        for part in delta.get("images") or ():
            yield ImageReady(self._place("image", last=False), picture_of(part))
        for place, call in enumerate(delta.get("tool_calls") or ()):
            yield tool_call(call, place)
        for segment in omni.get("segments") or ():
            yield self._segment(segment)

    def _segment(self, segment: dict[str, Any]) -> Event:
        index = segment["index"]
        if index not in self._open:
            self._open[index] = segment["type"]
            return SpanOpened(index, segment["type"])
        del self._open[index]
        return SpanClosed(index, span_error(segment), segment.get("seconds", 0.0))

    def _place(self, modality: Modality, *, last: bool) -> int:
        """Which span a piece belongs to, for the wire does not say. Words belong to the span that opened last; pictures are
        finished in the order in which their spans opened. 0 for a server that tells no spans."""
        places = [index for index, kind in self._open.items() if kind == modality]
        return places[-1 if last else 0] if places else 0

    def _audio(self, pcm: bytes) -> AudioDelta:
        start = self._bytes_heard / 2 / OPENAI_SAMPLE_RATE
        self._bytes_heard += len(pcm)
        return AudioDelta(pcm, OPENAI_SAMPLE_RATE, start)
