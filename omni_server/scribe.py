"""Writes down what was said: a request to the model like any other, in the words in which it wants to be asked."""

from __future__ import annotations

import uuid

from omni_server.door import Door
from omni_server.errors import DecodeFailed, OmniError
from omni_server.instruction import check_language, instruction
from omni_server.types import (
    AudioPart,
    Done,
    Failed,
    MediaSource,
    Message,
    Request,
    Sampling,
    SpanClosed,
    TextDelta,
    TextPart,
    Usage,
)

LIKELIEST = Sampling(temperature=0.0)


class Scribe:
    """Raises ModalityUnavailable, when it is made, where the checkpoint cannot be asked for this."""

    def __init__(self, door: Door, language: str | None = None, sampling: Sampling = LIKELIEST) -> None:
        if language:
            check_language(door, "transcription", language)
        self._pipeline = door.pipeline
        self._wording = instruction(door, "transcription", language=language or None)
        self._sampling = sampling

    async def write_down(self, recording: bytes, param: str = "audio") -> tuple[str, Usage]:
        """The words of a recording that is a file, and what they cost."""
        request = Request(
            request_id=f"transcription-{uuid.uuid4().hex}",
            messages=(Message("user", (AudioPart(MediaSource(param, data=recording)), TextPart(self._wording))),),
            sampling=self._sampling,
        )
        words, usage = "", Usage()
        async with self._pipeline.respond(request) as events:
            async for event in events:
                match event:
                    case TextDelta(text=text):
                        words += text
                    case SpanClosed(error=OmniError() as error) | Failed(error=error):
                        raise error
                    case Done(finish_reason="length"):
                        told = "the transcript was cut off: the model's context has no room for more"
                        raise DecodeFailed(told, param=param)
                    case Done():
                        usage = event.usage
                    case _:
                        pass
        return words, usage
