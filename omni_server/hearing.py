"""Writes down a recording, one utterance after another, with their times; in English, where that is wanted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from omni_server.audio_format import encode
from omni_server.door import Door
from omni_server.listening import TurnSettings
from omni_server.scribe import Interpreter, Scribe
from omni_server.types import MediaSource, Speech, Usage
from omni_server.utterances import LONGEST_SECONDS, utterances


@dataclass(frozen=True, slots=True)
class Line:
    """What was said from `start` to `end`, in seconds from the beginning of the recording."""

    start: float
    end: float
    text: str


class Hearing:
    """One recording. After `words` has ended, `lines`, `text` and `usage` say what was heard and what it cost."""

    def __init__(self, door: Door, scribe: Scribe, interpreter: Interpreter | None, settings: TurnSettings) -> None:
        self._door = door
        self._scribe = scribe
        self._interpreter = interpreter
        self._settings = settings
        self.lines: list[Line] = []
        self.text = ""
        self.usage = Usage()

    async def words(self, source: MediaSource, speech: Speech) -> AsyncGenerator[str, None]:
        """`speech` is what `source` holds. The pieces joined are the text, with a space between two utterances."""
        found = await utterances(speech, self._door.ears, self._settings)
        for utterance in found:
            # A recording of one utterance goes to the model as it came, unless it is mostly silence.
            whole = len(found) == 1 and speech.seconds <= LONGEST_SECONDS
            cut = source.data if whole else encode("wav", utterance.sound(speech), speech.sample_rate)
            line, gap = "", " " if self.text.strip() else ""
            async with aclosing(self._said(MediaSource(source.param, data=cut))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Usage):
                        self.usage += piece
                    elif piece:
                        line, piece, gap = line + piece, gap + piece, ""
                        self.text += piece
                        yield piece
            if line.strip():
                self.lines.append(Line(utterance.start, utterance.end, line.strip()))

    async def _said(self, recording: MediaSource) -> AsyncGenerator[str | Usage, None]:
        if self._interpreter is None:
            async with aclosing(self._scribe.words(recording)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        heard, usage = await self._scribe.write_down(recording.data or b"", recording.param)
        yield usage
        async with aclosing(self._interpreter.words(heard, recording.param)) as pieces:
            async for piece in pieces:
                yield piece
