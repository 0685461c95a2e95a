"""Steps 1 and 8. `WS /v1/live/sessions`: the first message starts a session; sound goes up all the time and comes down at
the pace at which it plays, so that what is interrupted was never sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, replace

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from omni_server.door import Door
from omni_server.errors import ModalityUnavailable, OmniError, OutOfOrder
from omni_server.instruction import check_model
from omni_server.listening import TurnSettings
from omni_server.live.wire import (
    AudioAppend,
    AudioMute,
    AudioUnmute,
    CommentaryAppend,
    InstructionsAppend,
    LiveFields,
    LiveResponse,
    LiveUpdate,
    SessionClose,
    SessionStart,
    read_live_event,
)
from omni_server.live.writing import LiveWriter, error_body, live_event, timed
from omni_server.live_audio import open_reader
from omni_server.realtime.held import Body, Sound, sound_of, voice_of
from omni_server.realtime.items import frames, read_base64
from omni_server.realtime.socket import GOING_AWAY, accept, carry, event_id_of, leaving
from omni_server.realtime.wire import ClientEvent, read_object
from omni_server.session import Session
from omni_server.turns import SessionSettings, Wish
from omni_server.types import Message, Modality, Sampling, TextPart
from omni_server.vad import Ears

LEAD_SECONDS = 0.3  # by which sound is sent before it is to be played
SILENCE = {"pcm16": b"\x00", "mulaw": b"\xff", "alaw": b"\xd5"}
NEVER = 4_102_444_800  # sessions do not expire here, and the wire needs a number: the year 2100


@dataclass(slots=True)
class Live:
    """What holds in one session."""

    settings: SessionSettings
    sound: Sound
    muted: bool = False


def live_router(door: Door, ears: Ears) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/live/sessions")
    async def sessions(socket: WebSocket) -> None:
        await accept(socket)
        event_id: str | None = None
        try:
            door.pipeline.drain.check()
            given = read_object(await first_message(socket))
            event_id = event_id_of(given)
            first = read_live_event(given)
            if not isinstance(first, SessionStart):
                raise OutOfOrder("the first message is not `session.start`; expected it first, and once", param="type")
            live = read_live(first.session, door)
            reader = open_reader(live.sound.encoding, live.sound.sample_rate)
            session = Session(door, ears, live.settings, reader)
        except WebSocketDisconnect:
            return
        except OmniError as error:
            with suppress(WebSocketDisconnect):
                await socket.send_json(error_body(error, event_id))
                await socket.close()
            return
        async with session:
            with door.pipeline.drain.told(leaving(session)):
                await Conversation(session, live, door).carry(socket, event_id)

    return router


async def first_message(socket: WebSocket) -> str | bytes:
    """Of whichever kind, as all that come after it."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    return message.get("text") or message.get("bytes") or ""


def read_live(asked: LiveFields, door: Door) -> Live:
    check_model(door, asked.model)
    offer = door.pipeline.checkpoint
    if Modality.AUDIO not in offer.modalities_out:
        raise ModalityUnavailable(f"`{door.model}` cannot speak; expected a checkpoint with a vocoder", param="session.model")
    sound = asked.audio
    voice = voice_of(sound.output.voice) if sound is not None and sound.output is not None else None
    settings = SessionSettings(
        instructions=asked.instructions or "",
        history=tuple(
            Message("system" if item.role == "developer" else item.role, tuple(TextPart(part.text) for part in item.content))
            for item in asked.input or ()
        ),
        voice=voice or next(iter(offer.voices), None),
        sampling=Sampling(**asked.omni.model_dump(exclude_unset=True)) if asked.omni is not None else Sampling(),
        turns=TurnSettings(longest_seconds=min(door.settings.max_turn_seconds, door.settings.max_audio_seconds)),
        transcribes="transcription" in offer.prompts,
        interim=False,
    )
    return Live(settings, sound_of(sound.format if sound is not None else None))


class Conversation:
    """Both directions of one session."""

    def __init__(self, session: Session, live: Live, door: Door) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        self._session, self._live, self._door = session, live, door
        self._clock = lambda: clock() - began
        self._writer = LiveWriter(live.sound, self._clock, door.pipeline.checkpoint.context_length)
        self._closing = asyncio.Event()
        self._closed_by: str | None = None

    async def carry(self, socket: WebSocket, started_by: str | None) -> None:
        async def events() -> AsyncGenerator[Body, None]:
            yield live_event("session.started", started_by, session=self._body())
            coming = self._paced()
            closing = asyncio.create_task(self._closing.wait())
            event = asyncio.ensure_future(anext(coming, None))
            try:
                while True:
                    await asyncio.wait((event, closing), return_when=asyncio.FIRST_COMPLETED)
                    if closing.done() or (told := event.result()) is None:
                        break
                    yield told
                    event = asyncio.ensure_future(anext(coming, None))
            finally:  # also where the client has left, which cancels whoever waits here
                event.cancel()
                closing.cancel()
                await asyncio.gather(event, closing, return_exceptions=True)
            usage = {"seconds": round(self._writer.seconds, 3)}
            reason = "close_requested" if self._closing.is_set() else "expired"
            yield live_event("session.closed", self._closed_by, reason=reason, session=self._body(), usage=usage)

        if await carry(socket, lambda given: self._take(read_live_event(given)), error_body, events()):
            with suppress(WebSocketDisconnect):  # the client was faster
                await socket.close(1000 if self._closing.is_set() else GOING_AWAY)

    async def _paced(self) -> AsyncGenerator[Body, None]:
        """Sound of an answer that was interrupted while it waited is not sent."""
        async for event in self._session.events():
            for due in self._writer.feed(event):
                if (wait := due.at - LEAD_SECONDS - self._clock()) > 0:
                    await asyncio.sleep(wait)
                if not due.response_id or self._session.answers(due.response_id):
                    yield due.body

    async def _take(self, event: ClientEvent) -> list[Body]:
        id, now = event.event_id, self._clock()
        match event:
            case AudioAppend(audio=audio):
                for frame in frames(read_base64(audio, "audio"), self._live.sound):
                    quiet = SILENCE[self._live.sound.encoding] * len(frame)
                    await self._session.hear(quiet if self._live.muted else frame)
            case AudioMute() | AudioUnmute():
                self._live.muted = isinstance(event, AudioMute)
                return [live_event("session.input_audio.muted" if self._live.muted else "session.input_audio.unmuted", id)]
            case InstructionsAppend(content=content):
                self._live.settings = self._told(content)
                self._session.change(self._live.settings)
                return [timed("session.instructions.appended", now, now, id)]
            case CommentaryAppend(content=content):
                await self._session.respond(Wish(self._told(content)))
                return [timed("session.commentary.appended", now, now, id)]
            case LiveResponse():
                await self._session.respond()
            case LiveUpdate():
                return [live_event("session.updated", id, session=self._body())]
            case SessionClose():
                self._closed_by = id
                self._closing.set()
            case _:
                raise OutOfOrder("`session.start` came a second time; expected it once, first", param="type")
        return []

    def _told(self, content: str) -> SessionSettings:
        settings = self._live.settings
        return replace(settings, instructions="\n".join(filter(None, (settings.instructions, content))))

    def _body(self) -> Body:
        settings = self._live.settings
        return {
            "id": self._session.id,
            "model": self._door.model,
            "status": "active",
            "expires_at": NEVER,
            "audio": {"format": self._live.sound.live_body, "output": {"voice": settings.voice}},
            "instructions": settings.instructions,
            "delegation": None,
        }
