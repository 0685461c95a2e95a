"""Step 8. Events become the events of OpenAI's responses, the last of which holds the whole. Sync, no sockets, no clock."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from omni_server.audio_format import AudioWriter, encode, open_writer
from omni_server.errors import OmniError
from omni_server.rest.chat_reply import Base64Slices
from omni_server.rest.response_items import DrawnItem, Output, WordsItem, called_item
from omni_server.segments import Body, Segments, VoiceLine
from omni_server.types import (
    AudioDelta,
    Done,
    Event,
    Failed,
    Heard,
    ImagePreview,
    ImageProgress,
    ImageReady,
    Modality,
    ReasoningDelta,
    SpanClosed,
    SpanOpened,
    TextDelta,
    ToolCalled,
    Usage,
)


class ResponseReply:
    """`feed(event)` gives the next events of a streamed response; `body` is the response as it stands. A plain answer is the
    `body` at the end, so both ways say the same."""

    def __init__(self, body: Body, audio_format: str | None, picture_format: str, picture_quality: int) -> None:
        """`body`: what of the response is known at its beginning. `audio_format` is set where a voice was asked for."""
        self.body = body
        self.failure = OmniError("The reply ended without an ending.")
        self._output = Output(body["id"])
        self._audio_format = audio_format
        self._looks = (picture_format, picture_quality)
        self._segments = Segments()
        self._words: dict[int, WordsItem] = {}  # by span
        self._pictures: dict[int, DrawnItem] = {}
        self._thoughts: WordsItem | None = None
        self._voice = VoiceLine()
        self._writer: AudioWriter | None = None
        self._slices = Base64Slices()
        self._heard: list[np.ndarray] = []
        self._sample_rate = 0
        self._user_said = ""
        self._begun = False

    def feed(self, event: Event) -> list[Body]:
        """Raises the error of a reply that failed before anything of it was told."""
        if isinstance(event, Failed) and not self._begun:
            raise event.error
        self._segments.feed(event)
        events = [] if self._begun else [self._told("created"), self._told("in_progress")]
        self._begun = True
        if self._thoughts is not None and not isinstance(event, ReasoningDelta | ImageProgress | ImagePreview | AudioDelta):
            events += self._thoughts.close()
            self._thoughts = None
        return events + self._fed(event)

    def _fed(self, event: Event) -> list[Body]:
        match event:
            case SpanOpened(index=index, modality=modality):
                return self._opened(index, modality)
            case TextDelta(index=index, text=text, scores=scores):
                events = self._words[index].feed(text, scores)
                if self._audio_format is not None and text:
                    events.append(self._output.event("response.audio.transcript.delta", delta=text))
                return events
            case ReasoningDelta(text=text):
                return self._thought(text)
            case Heard(text=text):
                self._user_said += text
                return []
            case ToolCalled():
                return called_item(self._output, event)
            case AudioDelta(index=index, samples=samples, sample_rate=rate):
                return self._spoken(self._voice.feed(index, samples), rate)
            case ImageProgress():
                return []
            case ImagePreview(index=index, image=image):
                return self._pictures[index].preview(image)
            case ImageReady(index=index, image=image):
                return self._pictures[index].ready(image)
            case SpanClosed(index=index, error=error):
                return self._closed(index, error)
            case Done():
                return self._ending(event)
            case Failed(error=error):
                fault = {"code": "server_error" if error.http_status >= 500 else "invalid_prompt", "message": error.message}
                self.failure = error
                self.body = {**self.body, "status": "failed", "error": fault, "output": self._output.items}
                return [self._told("failed")]

    def _opened(self, index: int, modality: Modality) -> list[Body]:
        if modality is Modality.TEXT:
            self._words[index] = WordsItem(self._output, thought=False)
            return self._words[index].open()
        if modality is Modality.IMAGE:
            self._pictures[index] = DrawnItem(self._output, *self._looks)
            return self._pictures[index].open()
        self._voice.open(index)
        return []

    def _thought(self, text: str) -> list[Body]:
        events = []
        if self._thoughts is None:
            self._thoughts = WordsItem(self._output, thought=True)
            events = self._thoughts.open()
        return [*events, *self._thoughts.feed(text)]

    def _closed(self, index: int, error: OmniError | None) -> list[Body]:
        if index in self._words:
            return self._words[index].close()
        if index in self._pictures:
            return self._pictures[index].close(error)
        return self._spoken(self._voice.close(index), self._segments.by_index[index].sample_rate)

    def _spoken(self, samples: np.ndarray, sample_rate: int) -> list[Body]:
        if self._audio_format is None or not len(samples):
            return []
        self._heard.append(samples)
        if self._writer is None:
            self._writer = open_writer(self._audio_format, sample_rate)
            self._sample_rate = sample_rate
        return self._sounded(self._slices.feed(self._writer.feed(samples)))

    def _sounded(self, data: str) -> list[Body]:
        return [self._output.event("response.audio.delta", delta=data)] if data else []

    def _ending(self, done: Done) -> list[Body]:
        events: list[Body] = []
        omni: dict[str, Any] = {
            "segments": [segment.closed() for segment in self._segments.in_order()],
            "seconds": done.seconds,
        }
        if self._audio_format is not None and self._writer is not None:
            events += self._sounded(self._slices.feed(self._writer.finish()) + self._slices.finish())
            events += [self._output.event(f"response.audio{part}.done") for part in ("", ".transcript")]
            file = encode(self._audio_format, np.concatenate(self._heard), self._sample_rate)  # its header knows its length
            data = base64.b64encode(file).decode("ascii")
            omni["audio"] = {"format": self._audio_format, "data": data, "transcript": self._segments.text}
        if self._user_said:
            omni["user_transcript"] = self._user_said
        cut = done.finish_reason == "length"
        self.body = {
            **self.body,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._output.items,
            "usage": usage_body(done.usage),
            "omni": omni,
        }
        return [*events, self._told("incomplete" if cut else "completed")]

    def _told(self, step: str) -> Body:
        return self._output.event(f"response.{step}", response=self.body)


def usage_body(usage: Usage) -> Body:
    media_in = usage.prompt_image_tokens + usage.prompt_audio_tokens
    media_out = usage.completion_image_tokens + usage.completion_audio_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": 0,
            "text_tokens": usage.prompt_tokens - media_in,
            "image_tokens": usage.prompt_image_tokens,
            "audio_tokens": usage.prompt_audio_tokens,
        },
        "output_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "text_tokens": usage.completion_tokens - media_out,
            "image_tokens": usage.completion_image_tokens,
            "audio_tokens": usage.completion_audio_tokens,
        },
    }
