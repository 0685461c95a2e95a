"""Steps 1 and 8. `Transcribe`: a recording is written down as a whole, or each utterance as it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from omni.v1 import content_pb2, converse_pb2, omni_service_pb2
from omni_server.audio_format import wav_header
from omni_server.door import Door
from omni_server.errors import MediaTooLarge, RequestError
from omni_server.instruction import check_model
from omni_server.listening import Listener, VoiceBegan, VoiceEnded
from omni_server.packets import ReadFrame
from omni_server.rpc.live_config import is_opus, read_reader, read_turns
from omni_server.rpc.reading import read_sampling
from omni_server.rpc.writing import Fields, duration, usage_message
from omni_server.scribe import LIKELIEST, Scribe
from omni_server.session import INTERIM_SECONDS
from omni_server.types import Usage
from omni_server.vad import Ears

Send = Callable[[Fields], Awaitable[None]]


def read_scribe(config: omni_service_pb2.TranscribeConfig, door: Door) -> Scribe:
    if config.model:
        check_model(door, config.model)
    sampling = read_sampling(config.sampling)
    if sampling.temperature is None:
        sampling = replace(sampling, temperature=LIKELIEST.temperature)
    return Scribe(door, config.language, sampling)


async def transcribe(
    config: omni_service_pb2.TranscribeConfig, audio: AsyncIterator[bytes], door: Door, ears: Ears, send: Send
) -> None:
    scribe = read_scribe(config, door)
    async with door.packets.reading(opus=is_opus(config.audio)) as read, aclosing(_each(audio, read)) as sound:
        await _transcribe(config, sound, door, ears, scribe, send)


async def _each(audio: AsyncIterator[bytes], read: ReadFrame) -> AsyncGenerator[bytes, None]:
    async for frame in audio:
        yield await read(frame)


async def _transcribe(
    config: omni_service_pb2.TranscribeConfig,
    audio: AsyncIterator[bytes],
    door: Door,
    ears: Ears,
    scribe: Scribe,
    send: Send,
) -> None:
    if config.HasField("turn_detection"):
        seconds, usage = await by_utterance(config, audio, door, ears, scribe, send)
    else:
        if config.interim_results:
            told = (
                "`interim_results` is set without `turn_detection`; expected both, because only utterances have interim results"
            )
            raise RequestError(told, param="interim_results")
        seconds, usage = await as_a_whole(config, audio, door, scribe, send)
    done = omni_service_pb2.TranscribeDone(usage=usage_message(usage), audio=duration(seconds))
    await send({"done": done})


async def as_a_whole(
    config: omni_service_pb2.TranscribeConfig, audio: AsyncIterator[bytes], door: Door, scribe: Scribe, send: Send
) -> tuple[float, Usage]:
    """A file keeps its length to itself, so its seconds are 0."""
    live = config.audio.encoding in (content_pb2.AUDIO_ENCODING_PCM_S16LE, content_pb2.AUDIO_ENCODING_OPUS)
    reader = read_reader(config.audio, "audio") if live else None
    pieces: list[bytes] = []
    size = 0
    async for piece in audio:
        pieces.append(reader.feed(piece).tobytes() if reader is not None else piece)
        size += len(pieces[-1])
        if size > door.settings.max_media_bytes:
            limit = door.settings.max_media_bytes
            raise MediaTooLarge(f"`audio` holds more than `{size - 1}` bytes; expected at most {limit}", param="audio")
    recording, seconds = b"".join(pieces), 0.0
    if reader is not None:
        seconds = size / 2 / reader.sample_rate
        recording = wav_header(reader.sample_rate, size) + recording
    text, usage = await scribe.write_down(recording)
    await send({"utterance": utterance(0, text, True, 0.0, seconds)})
    return seconds, usage


async def by_utterance(
    config: omni_service_pb2.TranscribeConfig,
    audio: AsyncIterator[bytes],
    door: Door,
    ears: Ears,
    scribe: Scribe,
    send: Send,
) -> tuple[float, Usage]:
    """Nothing is read from the client while an utterance is written down, so a client that is too fast is held back."""
    turns = read_turns(config.turn_detection, door)
    if not turns.automatic:
        told = "`turn_detection.type` is NONE; expected SERVER_VAD, or no `turn_detection` for the recording as a whole"
        raise RequestError(told, param="turn_detection.type")
    reader = read_reader(config.audio, "audio")
    activity = ears.open()
    try:
        listener = Listener(reader, turns, activity)
        index, start, told_until, total = 0, 0.0, 0.0, Usage()

        async def write(begin: float, end: float, final: bool) -> None:
            nonlocal total
            text, usage = await scribe.write_down(listener.cut(begin, end))
            total += usage
            await send({"utterance": utterance(index, text, final, begin, end)})

        async def take(heard: object) -> None:
            nonlocal index, start, told_until
            match heard:
                case VoiceBegan(begin):
                    start = told_until = begin
                    await send({"speech_started": converse_pb2.SpeechStarted(turn_id=str(index), start=duration(begin))})
                case VoiceEnded(begin, voice_end, end):
                    await send({"speech_stopped": converse_pb2.SpeechStopped(turn_id=str(index), end=duration(voice_end))})
                    await write(begin, end, final=True)
                    index, told_until = index + 1, float("inf")

        told_until = float("inf")
        async for piece in audio:
            for heard in await ears.lane.run(listener.feed, piece):
                await take(heard)
            if config.interim_results and listener.seconds - told_until >= INTERIM_SECONDS:
                told_until = listener.seconds
                await write(start, listener.seconds, final=False)
        for heard in listener.end():
            await take(heard)
        return listener.seconds, total
    finally:
        ears.close(activity)


def utterance(index: int, text: str, final: bool, start: float, end: float) -> omni_service_pb2.Utterance:
    return omni_service_pb2.Utterance(index=index, text=text, is_final=final, start=duration(start), end=duration(end))
