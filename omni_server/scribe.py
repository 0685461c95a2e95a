"""Writes down what was said, and says it in English: requests to the model like any other, in the words in which it wants to
be asked."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

from omni_server.door import Door
from omni_server.errors import ContextOverflow, OmniError
from omni_server.instruction import check_language, instruction, language_of, wordings_of
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
        self._door = door
        self._wording = instruction(door, "transcription", language=language or None)
        self._sampling = sampling

    async def write_down(self, recording: bytes, param: str = "audio") -> tuple[str, Usage]:
        """The words of a recording that is a file, and what they cost."""
        written, usage = "", Usage()
        async with aclosing(self.words(MediaSource(param, data=recording))) as pieces:
            async for piece in pieces:
                if isinstance(piece, Usage):
                    usage = piece
                else:
                    written += piece
        return written, usage

    def words(self, recording: MediaSource) -> AsyncGenerator[str | Usage, None]:
        """The words as they come, and at the end what they cost."""
        message = Message("user", (AudioPart(recording), TextPart(self._wording)))
        request = Request(f"transcription-{uuid.uuid4().hex}", (message,), sampling=self._sampling)
        return _answer(self._door, request, "the transcript was cut off", recording.param)


class Interpreter:
    """Raises ModalityUnavailable, when it is made, where the checkpoint cannot be asked for this."""

    def __init__(self, door: Door, sampling: Sampling = LIKELIEST) -> None:
        self._door = door
        self._wordings = wordings_of(door, "translation")
        self._sampling = sampling

    async def words(self, heard: str, param: str = "audio") -> AsyncGenerator[str | Usage, None]:
        """`heard` in English, as it comes. A checkpoint that has no wording for English words knows them as translated."""
        if not heard.strip() or (language_of(heard) == "en" and "en" not in self._wordings):
            yield heard
            return
        message = Message("user", (TextPart(instruction(self._door, "translation", heard.strip())),))
        request = Request(f"translation-{uuid.uuid4().hex}", (message,), sampling=self._sampling)
        async with aclosing(_answer(self._door, request, "the translation was cut off", param)) as pieces:
            async for piece in pieces:
                yield piece


async def _answer(door: Door, request: Request, cut_off: str, param: str) -> AsyncGenerator[str | Usage, None]:
    """Raises the error of a reply that failed, or was cut off."""
    async with door.pipeline.respond(request) as events:
        async for event in events:
            match event:
                case TextDelta(text=text):
                    yield text
                case SpanClosed(error=OmniError() as error) | Failed(error=error):
                    raise error
                case Done(finish_reason="length"):
                    raise ContextOverflow(f"{cut_off}: the model's context has no room for more", param=param)
                case Done(usage=usage):
                    yield usage
                case _:
                    pass
