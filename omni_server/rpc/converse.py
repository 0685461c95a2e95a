"""Steps 1 and 8. `Converse`: messages of the wire to a session, and what happens in it back to the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import duration_pb2

from omni.v1 import content_pb2, converse_pb2
from omni_server.door import Door
from omni_server.errors import OutOfOrder, RequestError
from omni_server.instruction import check_model
from omni_server.listening import TurnSettings
from omni_server.live_audio import HIGHEST_RATE, OPUS_RATES, FrameReader, check_rate, open_reader
from omni_server.rpc.reading import (
    ENCODINGS,
    SoundFormat,
    read_format,
    read_media,
    read_messages,
    read_modalities,
    read_sampling,
)
from omni_server.rpc.writing import (
    MODALITIES,
    Fields,
    SoundWriter,
    duration,
    heavy,
    plain_event,
    problem_of,
    timing_message,
    usage_message,
)
from omni_server.session import Session
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
    SessionSettings,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Trouble,
    Truncated,
    TurnCommitted,
    TurnComplete,
)
from omni_server.types import AudioDelta, Modality

ROLES = {"user": content_pb2.ROLE_USER, "assistant": content_pb2.ROLE_ASSISTANT}
STATUSES = {
    Ending.COMPLETED: converse_pb2.RESPONSE_STATUS_COMPLETED,
    Ending.INCOMPLETE: converse_pb2.RESPONSE_STATUS_INCOMPLETE,
    Ending.INTERRUPTED: converse_pb2.RESPONSE_STATUS_INTERRUPTED,
    Ending.CANCELLED: converse_pb2.RESPONSE_STATUS_CANCELLED,
    Ending.FAILED: converse_pb2.RESPONSE_STATUS_FAILED,
}
LIVE = ("pcm16", "opus_packets")
DEFAULT_INPUT_RATE = 16_000
LONGEST_MS = 10_000


@dataclass(slots=True)
class LiveConfig:
    """What holds in one call, and the message that says so."""

    settings: SessionSettings
    reader: FrameReader
    format: SoundFormat
    effective: converse_pb2.ConverseConfig = field(default_factory=converse_pb2.ConverseConfig)


def read_config(config: converse_pb2.ConverseConfig, door: Door) -> LiveConfig:
    if config.model:
        check_model(door, config.model)
    modalities = read_modalities(config.modalities) or frozenset({Modality.TEXT, Modality.AUDIO})
    settings = SessionSettings(
        modalities=modalities | {Modality.TEXT},
        instructions=config.instructions,
        history=read_messages(config.history, "history"),
        voice=config.voice or next(iter(door.pipeline.checkpoint.voices), None),
        sampling=read_sampling(config.sampling),
        turns=read_turns(config.turn_detection, door),
        transcribes=config.input_transcription,
    )
    format = read_format(config.output_audio, door, "output_audio")
    if format.encoding not in LIVE:
        raise RequestError("`output_audio.encoding` is a file; expected PCM_S16LE or OPUS", param="output_audio.encoding")
    live = LiveConfig(settings, read_reader(config.input_audio, "input_audio"), format)
    live.effective.CopyFrom(effective_config(config, live, door))
    return live


def read_turns(asked: converse_pb2.TurnDetection, door: Door) -> TurnSettings:
    given = {
        name: getattr(asked, name) for name in ("threshold", "prefix_padding_ms", "silence_duration_ms") if asked.HasField(name)
    }
    limits = {"threshold": (1e-3, 0.999), "prefix_padding_ms": (0, LONGEST_MS), "silence_duration_ms": (32, LONGEST_MS)}
    for name, value in given.items():
        least, most = limits[name]
        if not least <= value <= most:
            at = f"turn_detection.{name}"
            raise RequestError(f"`{at}` is `{value}`; expected {least:g} to {most:g}", param=at)
    return TurnSettings(
        automatic=asked.type != converse_pb2.TURN_DETECTION_TYPE_NONE,
        interrupts=asked.interrupt_response if asked.HasField("interrupt_response") else True,
        longest_seconds=min(door.settings.max_turn_seconds, door.settings.max_audio_seconds),
        **given,
    )


def read_reader(asked: content_pb2.AudioFormat, param: str) -> FrameReader:
    encoding = ENCODINGS.get(asked.encoding)
    if encoding not in LIVE:
        at = f"{param}.encoding"
        raise RequestError(f"`{at}` is `{asked.encoding}`; expected PCM_S16LE or OPUS for live sound", param=at)
    rate = check_rate(asked.sample_rate_hertz or DEFAULT_INPUT_RATE, f"{param}.sample_rate_hertz")
    if encoding == "opus_packets" and rate not in OPUS_RATES:
        rates = ", ".join(str(known) for known in OPUS_RATES)
        at = f"{param}.sample_rate_hertz"
        raise RequestError(f"`{at}` is `{rate}`; expected one of {rates} with Opus", param=at)
    return open_reader(encoding, rate)


def effective_config(asked: converse_pb2.ConverseConfig, live: LiveConfig, door: Door) -> converse_pb2.ConverseConfig:
    """The client's own words with everything filled in, without the history."""
    config = converse_pb2.ConverseConfig()
    config.CopyFrom(asked)
    del config.history[:]
    turns, settings = live.settings.turns, live.settings
    config.model, config.voice = door.model, settings.voice or ""
    config.modalities[:] = sorted(MODALITIES[modality] for modality in settings.modalities)
    config.input_audio.encoding = config.input_audio.encoding or content_pb2.AUDIO_ENCODING_PCM_S16LE
    opus = config.input_audio.encoding == content_pb2.AUDIO_ENCODING_OPUS
    config.input_audio.sample_rate_hertz = HIGHEST_RATE if opus else live.reader.sample_rate
    config.output_audio.encoding = config.output_audio.encoding or content_pb2.AUDIO_ENCODING_PCM_S16LE
    config.output_audio.sample_rate_hertz = live.format.sample_rate
    automatic, by_hand = converse_pb2.TURN_DETECTION_TYPE_SERVER_VAD, converse_pb2.TURN_DETECTION_TYPE_NONE
    detection = converse_pb2.TurnDetection(
        type=automatic if turns.automatic else by_hand,
        threshold=turns.threshold,
        prefix_padding_ms=turns.prefix_padding_ms,
        silence_duration_ms=turns.silence_duration_ms,
        interrupt_response=turns.interrupts,
    )
    config.turn_detection.CopyFrom(detection)
    return config


async def converse(session: Session, live: LiveConfig, context: Any) -> None:
    """Carries both directions until everything is over. What is wrong with a message ends the call with its error."""
    writer = LiveWriter(live.format)
    ready = converse_pb2.Ready(session_id=session.id, config=live.effective)
    await context.write(writer.message({"ready": ready}))

    async def listen() -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await take(message, session)
        session.finish()

    listening = asyncio.create_task(listen())
    speaking = asyncio.create_task(speak(session, writer, context))
    try:
        done, _ = await asyncio.wait((listening, speaking), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in (listening, speaking):
            task.cancel()
        await asyncio.gather(listening, speaking, return_exceptions=True)


async def speak(session: Session, writer: LiveWriter, context: Any) -> None:
    async for event in session.events():
        in_thread = isinstance(event, ResponsePart) and heavy(event.event, writer.format)
        for message in await asyncio.to_thread(writer.feed, event) if in_thread else writer.feed(event):
            await context.write(message)


async def take(message: converse_pb2.ConverseRequest, session: Session) -> None:
    match message.WhichOneof("message"):
        case "audio":
            await session.hear(message.audio.audio, message.audio.sequence)
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
        self._sound = SoundWriter(format)

    def message(self, fields: Fields) -> converse_pb2.ConverseResponse:
        self._sequence += 1
        return converse_pb2.ConverseResponse(sequence=self._sequence, **fields)

    def feed(self, event: SessionEvent) -> list[converse_pb2.ConverseResponse]:
        return [self.message(fields) for fields in self._written(event)]

    def _written(self, event: SessionEvent) -> Iterable[Fields]:
        match event:
            case ResponsePart(event=AudioDelta() as delta):
                return self._sound.feed(delta)
            case ResponsePart(event=part):
                return [plain_event(part)]
            case ResponseStarted(response_id=id, turn_id=turn):
                self._sound = SoundWriter(self.format)
                return [{"response_started": converse_pb2.ResponseStarted(response_id=id, turn_id=turn)}]
            case ResponseDone(ending=ending):
                broken_off = ending in (Ending.INTERRUPTED, Ending.CANCELLED)
                rest = [] if broken_off else self._sound.finish()
                return [*rest, {"response_done": done_message(event)}]
            case AnswerBegun() | CallMade() | ItemPlaced() | ItemDropped():
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
