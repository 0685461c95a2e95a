"""Writes down a recording, one utterance after another, with their times; in English, where that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from omni_server.audio_format import encode
from omni_server.door import Door
from omni_server.listening import TurnSettings
from omni_server.scribe import Interpreter, Scribe
from omni_server.types import MediaSource, Speech, Usage
from omni_server.utterances import LONGEST_SECONDS, Utterance, utterances

AT_ONCE = 4  # utterances of one recording that the model hears at the same time


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
        """`speech` is what `source` holds. The pieces joined are the text, with a space between two utterances. Some are worked
        on at once, and they come in order; the first that fails ends the others."""
        found = await utterances(speech, self._door.ears, self._settings)
        # A recording of one utterance goes to the model as it came, unless it is mostly silence.
        whole = source if len(found) == 1 and speech.seconds <= LONGEST_SECONDS else None
        room = asyncio.Semaphore(AT_ONCE)
        queues: list[asyncio.Queue[str | Usage | None]] = [asyncio.Queue() for _ in found]

        async def hear(utterance: Utterance, queue: asyncio.Queue[str | Usage | None]) -> None:
            try:
                async with room:
                    cut = encode("wav", utterance.sound(speech), speech.sample_rate)
                    async with aclosing(self._said(whole or MediaSource(source.param, data=cut))) as pieces:
                        async for piece in pieces:
                            queue.put_nowait(piece)
            finally:
                queue.put_nowait(None)

        tasks = [asyncio.create_task(hear(*each)) for each in zip(found, queues, strict=True)]
        try:
            for utterance, queue, task in zip(found, queues, tasks, strict=True):
                async with aclosing(self._line(utterance, queue)) as pieces:
                    async for piece in pieces:
                        yield piece
                await task
        finally:
            for task in tasks:
                task.cancel()  # without effect where it is done
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _line(self, utterance: Utterance, queue: asyncio.Queue[str | Usage | None]) -> AsyncGenerator[str, None]:
        line, gap = "", " " if self.text.strip() else ""
        while (piece := await queue.get()) is not None:
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
