"""Speech-to-speech turns on top of the pipeline: listen, answer, be interrupted. Knows no wire; every live door drives it.

While the person still speaks, the engine reads the conversation so far; when they pause, the answer is begun with what was
said, and thrown away if they go on. So the answer is on its way when the turn is surely over.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Self

from omni_server.answering import Answering
from omni_server.conversation import OpenTurn
from omni_server.door import Door
from omni_server.errors import ModalityUnavailable, OmniError, OutOfOrder, RequestError
from omni_server.listening import Heard, Listener, VoiceBegan, VoiceEnded, VoicePaused, VoiceResumed
from omni_server.live_audio import FrameReader
from omni_server.outbox import CAPACITY, Outbox
from omni_server.scribe import Scribe
from omni_server.tasks import Tasks
from omni_server.turns import (
    Ending,
    GoAway,
    Item,
    ItemPlaced,
    SessionEvent,
    SessionSettings,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Trouble,
    TurnCommitted,
    Wish,
)
from omni_server.types import AudioPart, ImagePart, MediaSource, Message, Modality, Part, Request, TextPart
from omni_server.vad import Ears

_log = logging.getLogger(__name__)

INTERIM_SECONDS = 1.0  # of new sound between two readings of a turn that is not over
# A client that reads no faster than it plays must still be heard when it speaks over the answer that waits for it.
PATIENCE = 4 * CAPACITY
NOTHING_SAID = "there is nothing to answer; expected a voice, words or a picture before the end of the turn"


class Session:
    """One live conversation. An async context: leaving it, at any moment, ends every task and frees every slot."""

    def __init__(self, door: Door, ears: Ears, settings: SessionSettings, reader: FrameReader) -> None:
        """Raises what is wrong with the settings, before any sound is taken."""
        self.id = f"session-{uuid.uuid4().hex}"
        self._door, self._pipeline, self._ears = door, door.pipeline, ears
        if Modality.AUDIO not in self._pipeline.checkpoint.modalities_in:
            raise ModalityUnavailable(f"`{door.model}` cannot hear; expected a checkpoint with an audio encoder", param="model")
        self._outbox: Outbox[SessionEvent] = Outbox()
        self._tasks = Tasks(self._settle)
        clock = asyncio.get_running_loop().time
        self._answering = Answering(self._pipeline, settings, self._outbox, self._tasks, clock)
        self._take(settings)
        self._activity = ears.open()
        self._listener = Listener(reader, settings.turns, self._activity)
        self._turn: OpenTurn | None = None
        self._interim: asyncio.Task[None] | None = None
        self._frames = 0
        self._finished = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._ears.close(self._activity)  # first, for whoever waits here may be cancelled once more
        await self._tasks.close()

    def change(self, settings: SessionSettings, reader: FrameReader | None = None) -> None:
        """From now on. Raises what is wrong with them, and then nothing has changed."""
        if reader is not None and self._listener.seconds:
            told = "the format of the sound cannot change any more once some has come; expected the one that it came in"
            raise OutOfOrder(told, param="audio.input.format")
        by_hand = self._settings.turns.automatic != settings.turns.automatic
        self._take(settings)
        if by_hand:
            self.clear()
        self._answering.change(settings)
        if reader is not None:
            self._listener = Listener(reader, settings.turns, self._activity)
        else:
            self._listener.change(settings.turns)

    def _take(self, settings: SessionSettings) -> None:
        self._pipeline.check(self._answering.request(wish=Wish(settings)))
        self._scribe = Scribe(self._door, settings.language) if settings.transcribes else None
        self._settings = settings

    async def events(self) -> AsyncIterator[SessionEvent]:
        """What happens, until everything is over after `finish`."""
        async for event in self._outbox.items():
            self._answering.sent(event)
            yield event

    async def hear(self, frame: bytes, number: int = 0) -> None:
        """The next frame of sound. Raises MediaError where it cannot be read, OutOfOrder where its number does not grow."""
        if number and number <= self._frames:
            told = f"`audio.sequence` is `{number}` after `{self._frames}`; expected a number that grows"
            raise OutOfOrder(told, param="audio.sequence")
        self._frames = number or self._frames
        await self._outbox.room(PATIENCE)
        for heard in await self._ears.lane.run(self._listener.feed, frame):
            self._heard(heard)
        self._write_interim()

    async def say(self, text: str) -> None:
        """Words of the person's turn."""
        if text.strip():
            await self._add(TextPart(text))
        else:
            self._outbox.put(Trouble(RequestError("`text` is empty; expected some words", param="text")))

    async def show(self, source: MediaSource) -> None:
        """A picture of the person's turn; it is looked at right away."""
        part = ImagePart(source)
        try:
            await self._pipeline.prepare(part)
        except OmniError as error:
            self._outbox.put(Trouble(error))
        else:
            await self._add(part)

    async def end_turn(self) -> None:
        """The person's turn is over, whatever they sound like."""
        await self._outbox.room(PATIENCE)
        if not self._end_turn(answered=True):
            self._outbox.put(Trouble(RequestError(NOTHING_SAID, param="end_turn")))

    async def commit(self) -> bool:
        """The person's turn is over and waits for `respond`. Whether there was one."""
        await self._outbox.room(PATIENCE)
        return self._end_turn(answered=False)

    def clear(self) -> None:
        """The person's open turn has never been."""
        self._listener.drop()
        self._answering.drop_guess()
        self._turn = None

    async def place(self, item: Item, after: str | None = None) -> None:
        """Puts something into the conversation, behind the turn `after` ("": at the beginning). Raises what is wrong with it,
        and then it has not been put there."""
        for part in item.message.parts:
            if isinstance(part, ImagePart | AudioPart):
                await self._pipeline.prepare(part)
        await self._outbox.room(PATIENCE)
        self._outbox.put(ItemPlaced(item.id, self._answering.conversation.place(item, after)))
        self._answering.drop_guess()

    def drop(self, item_id: str) -> bool:
        """Takes something out of the conversation. Whether it was there."""
        return self._answering.drop(item_id)

    def message_of(self, item_id: str) -> Message | None:
        """Of something that is in the conversation."""
        return self._answering.conversation.message_of(item_id)

    def name_of(self, call_id: str) -> str | None:
        """Of the tool that was called."""
        return self._answering.conversation.name_of(call_id)

    async def respond(self, wish: Wish | None = None) -> str:
        """Begins an answer to the conversation as it stands, or what is wished for; its id. Raises what is wrong with that,
        and where another answer is being made."""
        await self._outbox.room(PATIENCE)
        return self._answering.respond(wish or Wish(self._settings))

    def answers(self, response_id: str) -> bool:
        """Whether this answer is being made or heard."""
        return self._answering.answers(response_id)

    def cancel(self, response_id: str = "") -> bool:
        """Stops the answer under way, or only if it is this one. Whether one was being made."""
        return self._answering.cancel(response_id)

    def truncate(self, response_id: str, heard: float) -> None:
        """The person heard only so many seconds of an answer."""
        self._answering.truncate(response_id, heard)

    def played(self, response_id: str, heard: float) -> None:
        """The person has heard so many seconds of an answer so far."""
        self._answering.played(response_id, heard)

    async def hand_back(self, call_id: str, output: str) -> None:
        """What a tool answered. Once every call beside it has its result, the model goes on by itself."""
        await self._outbox.room(PATIENCE)
        self._answering.hand_back(call_id, output)

    def go_away(self, seconds: float) -> None:
        """The server is about to stop."""
        self._outbox.put(GoAway(seconds))

    def finish(self) -> None:
        """Nothing more comes: the open turn is answered, and then it is over."""
        self._finished = True
        self._end_turn(answered=True)
        self._answering.hurry()
        self._settle()

    def _settle(self) -> None:
        if self._finished and not self._answering.busy and not len(self._tasks):
            self._outbox.close()

    def _heard(self, heard: Heard, answered: bool | None = None) -> None:
        """`answered`: whether a turn that is over now is answered; None as the settings say."""
        automatic = self._settings.turns.automatic
        match heard:
            case VoiceBegan(start):
                turn = self._turn = self._turn or OpenTurn()
                turn.start, turn.place, turn.written_until = start, len(turn.parts), start
                if automatic:
                    self._outbox.put(SpeechStarted(turn.id, start))
                    if self._settings.turns.interrupts:
                        self._answering.break_off(Ending.INTERRUPTED)
                self._read_ahead()
            case VoicePaused(start, end):
                if self._turn is not None and self._settings.ahead and self._settings.turns.answers:
                    self._answering.guess(self._turn.spoken(self._listener.cut(start, end)))
            case VoiceResumed():
                self._answering.drop_guess()
            case VoiceEnded(start, voice_end, end):
                assert self._turn is not None
                recording = self._listener.cut(start, end)
                if automatic:
                    self._outbox.put(SpeechStopped(self._turn.id, voice_end))
                answered = self._settings.turns.answers if answered is None else answered
                self._commit(self._turn.spoken(recording), recording, end - start, answered)

    async def _add(self, part: Part) -> None:
        await self._outbox.room(PATIENCE)
        self._turn = self._turn or OpenTurn()
        self._turn.parts.append(part)
        self._answering.drop_guess()
        self._read_ahead()

    def _end_turn(self, answered: bool) -> bool:
        """Whether there was a turn to end."""
        ended = self._listener.end()
        for heard in ended:
            self._heard(heard, answered)
        if not ended and self._turn is not None:
            self._commit(tuple(self._turn.parts), None, 0.0, answered)
            return True
        return bool(ended)

    def _commit(self, parts: tuple[Part, ...], recording: bytes | None, seconds: float, answered: bool) -> None:
        assert self._turn is not None
        turn_id, self._turn = self._turn.id, None
        previous = self._answering.conversation.listen(turn_id, parts)
        self._outbox.put(TurnCommitted(turn_id, seconds, previous))
        if answered:
            self._answering.commit(turn_id, parts)
        else:
            self._answering.drop_guess()
        if self._scribe is not None and recording is not None:
            if self._interim is not None:
                self._interim.cancel()
            self._tasks.start(self._write_down(self._scribe, turn_id, recording, final=True))

    def _read_ahead(self) -> None:
        """Lets the engine read what the next answer stands on, while the person still speaks."""
        request = self._answering.request(*self._turn.parts) if self._turn is not None else None
        if self._settings.ahead and request is not None and request.messages:
            self._tasks.start(self._warm(request))

    async def _warm(self, request: Request) -> None:
        try:
            await self._pipeline.warm(request)
        except OmniError as error:  # told again, to the client, when the answer is made
            _log.info("conversation %s could not be read ahead: %s", self.id, error)

    def _write_interim(self) -> None:
        """Another reading of the turn that is not over, once enough new sound has come and the last reading is done."""
        turn = self._turn
        if self._scribe is None or not self._settings.interim or turn is None or turn.start is None:
            return
        if self._interim is not None and not self._interim.done():
            return
        if self._listener.seconds - turn.written_until >= INTERIM_SECONDS:
            turn.written_until = self._listener.seconds
            recording = self._listener.cut(turn.start, self._listener.seconds)
            self._interim = self._tasks.start(self._write_down(self._scribe, turn.id, recording, final=False))

    async def _write_down(self, scribe: Scribe, turn_id: str, recording: bytes, final: bool) -> None:
        try:
            text, _ = await scribe.write_down(recording)
        except OmniError as error:
            self._outbox.put(Trouble(error, turn_id))
            return
        self._outbox.put(Transcript(turn_id, "user", text, final))
