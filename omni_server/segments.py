"""Step 8. What became of each span of a reply, and the voice of all spans in one line. Sync, no sockets, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image

from omni_server.errors import OmniError
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
)

Body = dict[str, Any]


class VoiceLine:
    """Puts the samples of all audio spans into one line, in the order in which the spans opened."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[np.ndarray]] = {}  # by span, in order of opening; the first one is on the line
        self._closed: set[int] = set()

    def open(self, index: int) -> None:
        self._waiting[index] = []

    def feed(self, index: int, samples: np.ndarray) -> np.ndarray:
        self._waiting[index].append(samples)
        return self._ready()

    def close(self, index: int) -> np.ndarray:
        self._closed.add(index)
        return self._ready()

    def _ready(self) -> np.ndarray:
        ready = [np.zeros(0, np.float32)]
        for index in list(self._waiting):
            ready += self._waiting[index]
            self._waiting[index] = []
            if index not in self._closed:
                break
            del self._waiting[index]
        return np.concatenate(ready)


class SpansInLine:
    """Lets every event through at once, but keeps the sound of a later span back until the spans of sound before it are
    closed. Joined, all sound is then one line."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Event]] = {}  # by span of sound, in order of opening; the first one is on the line

    def feed(self, event: Event) -> list[Event]:
        match event:
            case SpanOpened(index=index, modality=Modality.AUDIO):
                self._waiting[index] = []
            case AudioDelta(index=index) | SpanClosed(index=index) if index in self._waiting:
                self._waiting[index].append(event)
                return self._released()
            case _:
                pass
        return [event]

    def _released(self) -> list[Event]:
        released: list[Event] = []
        for index in list(self._waiting):
            events = self._waiting[index]
            released += events
            if not any(isinstance(event, SpanClosed) for event in events):
                events.clear()
                break
            del self._waiting[index]
        return released


@dataclass(slots=True)
class Segment:
    """What became of one span."""

    index: int
    modality: Modality
    text: str = ""
    samples: int = 0
    sample_rate: int = 0
    image: PIL.Image.Image | None = None
    error: OmniError | None = None

    def opened(self) -> Body:
        return {"type": self.modality.value, "index": self.index}

    def closed(self) -> Body:
        """How much of `content`, of the voice or of `images` this span is; added up in order, they give its place."""
        body = self.opened()
        if self.modality is Modality.TEXT:
            body["characters"] = len(self.text)
        elif self.modality is Modality.AUDIO:
            body["seconds"] = round(self.samples / self.sample_rate, 4) if self.sample_rate else 0.0
        else:
            body["images"] = int(self.image is not None)
        if self.error is not None:
            body["error"] = {"message": self.error.message, "type": self.error.type, "code": self.error.code}
        return body


@dataclass(slots=True)
class Segments:
    """All spans so far, by index."""

    by_index: dict[int, Segment] = field(default_factory=dict)

    def feed(self, event: Event) -> None:
        match event:
            case SpanOpened(index=index, modality=modality):
                self.by_index[index] = Segment(index, modality)
            case TextDelta(index=index, text=text):
                self.by_index[index].text += text
            case AudioDelta(index=index, samples=samples, sample_rate=sample_rate):
                self.by_index[index].samples += len(samples)
                self.by_index[index].sample_rate = sample_rate
            case ImageReady(index=index, image=image):
                self.by_index[index].image = image
            case SpanClosed(index=index, error=error):
                self.by_index[index].error = error
            case ImageProgress() | ImagePreview() | ReasoningDelta() | Heard() | ToolCalled() | Done() | Failed():
                pass

    def in_order(self) -> list[Segment]:
        return [self.by_index[index] for index in sorted(self.by_index)]

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.in_order())
