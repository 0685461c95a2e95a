"""Steps 1 and 8. `Converse`: messages of the wire to a session, and what happens in it back to the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import duration_pb2

from omni.v1 import content_pb2, converse_pb2
from omni_server.errors import OutOfOrder
from omni_server.packets import ReadFrame
from omni_server.rpc.live_config import LiveConfig
from omni_server.rpc.reading import SoundFormat, read_media
from omni_server.rpc.writing import (
    EventWriter,
    Fields,
    call_message,
    duration,
    heavy,
    problem_of,
    timing_message,
    usage_message,
)
from omni_server.session import Session
from omni_server.tasks import side_by_side
from omni_server.turns import (
    AnswerBegun,
    CallMade,
    Ending,
    GoAway,
    Interrupted,
    ItemDropped,
    ItemPlaced,
    ResponseDone,
    ResponsePart,
    ResponseStarted,
    SessionEvent,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Trouble,
    Truncated,
    TurnCommitted,
    TurnComplete,
)

ROLES = {"user": content_pb2.ROLE_USER, "assistant": content_pb2.ROLE_ASSISTANT}
STATUSES = {
    Ending.COMPLETED: converse_pb2.RESPONSE_STATUS_COMPLETED,
    Ending.INCOMPLETE: converse_pb2.RESPONSE_STATUS_INCOMPLETE,
    Ending.INTERRUPTED: converse_pb2.RESPONSE_STATUS_INTERRUPTED,
    Ending.CANCELLED: converse_pb2.RESPONSE_STATUS_CANCELLED,
    Ending.FAILED: converse_pb2.RESPONSE_STATUS_FAILED,
}


async def converse(session: Session, live: LiveConfig, context: Any, read: ReadFrame) -> None:
    """Carries both directions until everything is over. What is wrong with a message ends the call with its error. `read` makes
    samples of a frame."""
    writer = LiveWriter(live.format)
    ready = converse_pb2.Ready(session_id=session.id, config=live.effective)
    await context.write(writer.message({"ready": ready}))

    async def listen() -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await take(message, session, read)
        session.finish()

    await side_by_side(listen(), speak(session, writer, context), until=asyncio.FIRST_EXCEPTION)


async def speak(session: Session, writer: LiveWriter, context: Any) -> None:
    async for event in session.events():
        in_thread = isinstance(event, ResponsePart) and heavy(event.event, writer.format)
        for message in await asyncio.to_thread(writer.feed, event) if in_thread else writer.feed(event):
            await context.write(message)


async def take(message: converse_pb2.ConverseRequest, session: Session, read: ReadFrame) -> None:
    match message.WhichOneof("message"):
        case "audio":
            await session.hear(await read(message.audio.audio), message.audio.sequence)
        case "text":
            await session.say(message.text)
        case "image":
            await session.show(read_media(message.image, "image"))
        case "end_turn":
            await session.end_turn()
        case "cancel":
            session.cancel(message.cancel.response_id)
        case "truncate":
            session.truncate(message.truncate.response_id, seconds_of(message.truncate.heard))
        case "playback":
            session.played(message.playback.response_id, seconds_of(message.playback.heard))
        case "tool_result":
            await session.hand_back(message.tool_result.call_id, message.tool_result.output)
        case "config":
            raise OutOfOrder("`config` came a second time; expected it once, first", param="config")
        case _:
            pass  # of a later version of the wire


def seconds_of(given: duration_pb2.Duration) -> float:
    return given.seconds + given.nanos / 1e9


class LiveWriter:
    """`feed(event)` gives the messages of the wire. Sync, no sockets, no clock."""

    def __init__(self, format: SoundFormat) -> None:
        self.format = format
        self._sequence = 0
        self._reply = EventWriter(format)

    def message(self, fields: Fields) -> converse_pb2.ConverseResponse:
        self._sequence += 1
        return converse_pb2.ConverseResponse(sequence=self._sequence, **fields)

    def feed(self, event: SessionEvent) -> list[converse_pb2.ConverseResponse]:
        return [self.message(fields) for fields in self._written(event)]

    def _written(self, event: SessionEvent) -> Iterable[Fields]:
        match event:
            case ResponsePart(event=part):
                return self._reply.feed(part)
            case CallMade(index=index, call_id=call_id, name=name, arguments=arguments):
                return [{"tool_called": call_message(index, name, arguments, call_id)}]
            case ResponseStarted(response_id=id, turn_id=turn):
                self._reply = EventWriter(self.format)
                return [{"response_started": converse_pb2.ResponseStarted(response_id=id, turn_id=turn)}]
            case ResponseDone(ending=ending):
                broken_off = ending in (Ending.INTERRUPTED, Ending.CANCELLED)
                rest = [] if broken_off else self._reply.finish()
                return [*rest, {"response_done": done_message(event)}]
            case AnswerBegun() | ItemPlaced() | ItemDropped():
                return []  # of what a client of this wire cannot ask for, or is told in other ways
            case _:
                return [small_message(event)]


def done_message(event: ResponseDone) -> converse_pb2.ResponseDone:
    done = event.done
    return converse_pb2.ResponseDone(
        response_id=event.response_id,
        status=STATUSES[event.ending],
        usage=usage_message(done.usage) if done is not None else None,
        timing=timing_message(done.seconds) if done is not None else None,
        turn_to_first_audio=duration(event.first_audio) if event.first_audio is not None else None,
        audio=duration(event.seconds),
        problem=problem_of(event.error) if event.error is not None else None,
    )


def small_message(event: SessionEvent) -> Fields:
    match event:
        case SpeechStarted(turn_id=id, start=start):
            return {"speech_started": converse_pb2.SpeechStarted(turn_id=id, start=duration(start))}
        case SpeechStopped(turn_id=id, end=end):
            return {"speech_stopped": converse_pb2.SpeechStopped(turn_id=id, end=duration(end))}
        case TurnCommitted(turn_id=id, seconds=seconds):
            return {"turn_committed": converse_pb2.TurnCommitted(turn_id=id, audio=duration(seconds))}
        case Transcript(id=id, role=role, text=text, final=final):
            return {"transcript": converse_pb2.Transcript(id=id, role=ROLES[role], text=text, is_final=final)}
        case Interrupted(response_id=id, heard=heard, text=text):
            return {"interrupted": converse_pb2.Interrupted(response_id=id, heard=duration(heard), text=text)}
        case Truncated(response_id=id, heard=heard, text=text):
            return {"truncated": converse_pb2.Truncated(response_id=id, heard=duration(heard), text=text)}
        case TurnComplete(response_id=id):
            return {"turn_complete": converse_pb2.TurnComplete(response_id=id)}
        case Trouble(error=error):
            return {"problem": problem_of(error)}
        case GoAway(seconds=seconds):
            return {"go_away": converse_pb2.GoAway(time_left=duration(seconds))}
        case _:
            raise TypeError(f"`{type(event).__name__}` has no message of its own")
