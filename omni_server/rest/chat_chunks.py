"""Step 8. Events become the chunks of OpenAI's streamed chat answer. Sync, no sockets, no clock."""

from __future__ import annotations

import numpy as np

from omni_server.audio_format import AudioWriter, open_writer
from omni_server.rest.chat_reply import Base64Slices, Envelope, call_part, image_part, logprobs_body, usage_body
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


class ChatChunks:
    """`feed(event)` gives the next chunks of one choice of a streamed answer; after `Done` nothing more comes.

    Stock accumulators join strings and add numbers, so an id or a number is sent exactly once, lists have an `index`
    that counts up, and base64 is cut at whole groups: the joined `data` is the base64 of the whole file.
    """

    def __init__(self, envelope: Envelope, choice: int = 0) -> None:
        self._envelope = envelope
        self._choice = choice
        self._segments = Segments()
        self._voice = VoiceLine()
        self._writer: AudioWriter | None = None
        self._slices = Base64Slices()
        self._audio_id_sent = False
        self._begun = False
        self._images = 0

    def feed(self, event: Event) -> list[Body]:
        self._segments.feed(event)
        chunks = [] if self._begun else [self._chunk({"role": "assistant", "content": "", "refusal": None})]
        self._begun = True
        match event:
            case SpanOpened(index=index, modality=modality):
                if modality is Modality.AUDIO:
                    self._voice.open(index)
                chunks.append(self._chunk({"omni": {"segments": [self._segments.by_index[index].opened()]}}))
            case TextDelta(text=text, scores=scores):
                aloud = self._envelope.audio_format is not None
                chunk = self._audio({"transcript": text}) if aloud else self._chunk({"content": text})
                if scores:
                    chunk["choices"][0]["logprobs"] = logprobs_body(scores)
                chunks.append(chunk)
            case ReasoningDelta(text=text):
                chunks.append(self._chunk({"reasoning_content": text}))
            case Heard(text=text):
                chunks.append(self._chunk({"omni": {"user_transcript": text}}))
            case ToolCalled():
                chunks.append(
                    self._chunk({"tool_calls": [{"index": event.index, **call_part(self._envelope, self._choice, event)}]})
                )
            case AudioDelta(index=index, samples=samples, sample_rate=sample_rate):
                chunks += self._spoken(self._voice.feed(index, samples), sample_rate)
            case ImageProgress() | ImagePreview():
                pass  # OpenAI's chat has no place for a picture that is not there yet
            case ImageReady(image=image):
                chunks.append(self._chunk({"images": [image_part(image, self._images)]}))
                self._images += 1
            case SpanClosed(index=index):
                chunks += self._closed(index)
            case Done():
                chunks += self._ending(event)
            case Failed(error=error):
                raise error
        return chunks

    def _closed(self, index: int) -> list[Body]:
        segment = self._segments.by_index[index]
        chunks = self._spoken(self._voice.close(index), segment.sample_rate)
        # Of the numbers in `opened()`, accumulators replace `index` and `type` and do not add them up.
        return [*chunks, self._chunk({"omni": {"segments": [segment.closed()]}})]

    def _spoken(self, samples: np.ndarray, sample_rate: int) -> list[Body]:
        if self._envelope.audio_format is None or not len(samples):
            return []
        if self._writer is None:
            self._writer = open_writer(self._envelope.audio_format, sample_rate)
        data = self._slices.feed(self._writer.feed(samples))
        return [self._audio({"data": data})] if data else []

    def _ending(self, done: Done) -> list[Body]:
        chunks = []
        if self._writer is not None:
            data = self._slices.feed(self._writer.finish()) + self._slices.finish()
            if data:
                chunks.append(self._audio({"data": data}))
        if self._audio_id_sent:
            expires_at = self._envelope.keep_transcript(self._envelope.audio_id(self._choice), self._segments.text)
            chunks.append(self._chunk({"audio": {"expires_at": expires_at}}))
        return [*chunks, self._chunk({}, done.finish_reason)]

    def _audio(self, update: Body) -> Body:
        if not self._audio_id_sent:
            self._audio_id_sent = True
            update = {"id": self._envelope.audio_id(self._choice), **update}
        return self._chunk({"audio": update})

    def _chunk(self, delta: Body, finish_reason: str | None = None) -> Body:
        choice = {"index": self._choice, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        usage = {"usage": None} if self._envelope.include_usage else {}
        return self._envelope.wrap("chat.completion.chunk", choices=[choice], **usage)


def usage_chunk(envelope: Envelope, usage: Usage, seconds: dict[str, float]) -> Body:
    """The last chunk, where it was asked for; it has no choices."""
    omni = {"seconds": seconds}
    return envelope.wrap("chat.completion.chunk", choices=[], usage=usage_body(usage), omni=omni)
