"""Steps 1 and 8. For clients of NVIDIA Riva: their messages to ours and back, over the same code. A mapping, nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from omni.compat import riva_asr_pb2, riva_asr_pb2_grpc, riva_tts_pb2, riva_tts_pb2_grpc
from omni.v1 import content_pb2, converse_pb2, omni_service_pb2
from omni_server.door import Door
from omni_server.errors import OutOfOrder, RequestError
from omni_server.rpc.calls import answered
from omni_server.rpc.reading import read_synthesize
from omni_server.rpc.service import SYNTHESIZE_FIELDS, played, spoken
from omni_server.rpc.transcribe import transcribe
from omni_server.rpc.writing import EventWriter, Fields
from omni_server.vad import Ears

LINEAR_PCM = 1
ENCODINGS = {
    0: content_pb2.AUDIO_ENCODING_PCM_S16LE,
    LINEAR_PCM: content_pb2.AUDIO_ENCODING_PCM_S16LE,
    2: content_pb2.AUDIO_ENCODING_FLAC,
    4: content_pb2.AUDIO_ENCODING_OGG_OPUS,
}


class RivaRecognition(riva_asr_pb2_grpc.RivaSpeechRecognitionServicer):
    def __init__(self, door: Door, ears: Ears, calls: set[asyncio.Task[Any]]) -> None:
        self._door, self._ears, self.calls = door, ears, calls

    @answered
    async def StreamingRecognize(self, requests: Any, context: Any) -> None:
        first = await context.read()
        if first is grpc.aio.EOF or first.WhichOneof("streaming_request") != "streaming_config":
            raise RequestError("the first message is not `streaming_config`; expected it first", param="streaming_config")

        async def audio() -> AsyncIterator[bytes]:
            while (message := await context.read()) is not grpc.aio.EOF:
                if message.WhichOneof("streaming_request") == "streaming_config":
                    raise OutOfOrder("`streaming_config` came a second time; expected it once", param="streaming_config")
                yield message.audio_content

        async def send(fields: Fields) -> None:
            if "utterance" in fields:
                await context.write(recognized(fields["utterance"], first))

        await transcribe(self._config(first.streaming_config), audio(), self._door, self._ears, send)

    def _config(self, asked: riva_asr_pb2.StreamingRecognitionConfig) -> omni_service_pb2.TranscribeConfig:
        if asked.config.encoding not in (0, LINEAR_PCM):
            told = f"`encoding` is `{asked.config.encoding}`; expected LINEAR_PCM"
            raise RequestError(told, param="config.encoding")
        language = asked.config.language_code.partition("-")[0]
        known = self._door.pipeline.checkpoint.prompts.get("transcription", {})
        format = content_pb2.AudioFormat(
            encoding=content_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=asked.config.sample_rate_hertz
        )
        return omni_service_pb2.TranscribeConfig(
            audio=format,
            language=language if language in known else "",
            turn_detection=converse_pb2.TurnDetection(),
            interim_results=asked.interim_results,
        )


def recognized(
    utterance: omni_service_pb2.Utterance, first: riva_asr_pb2.StreamingRecognizeRequest
) -> riva_asr_pb2.StreamingRecognizeResponse:
    result = riva_asr_pb2.StreamingRecognitionResult(
        alternatives=[riva_asr_pb2.SpeechRecognitionAlternative(transcript=utterance.text)],
        is_final=utterance.is_final,
        audio_processed=utterance.end.seconds + utterance.end.nanos / 1e9,
    )
    return riva_asr_pb2.StreamingRecognizeResponse(results=[result], id=first.id if first.HasField("id") else None)


class RivaSynthesis(riva_tts_pb2_grpc.RivaSpeechSynthesisServicer):
    def __init__(self, door: Door, calls: set[asyncio.Task[Any]]) -> None:
        self._door, self.calls = door, calls

    @answered
    async def SynthesizeOnline(self, requests: Any, context: Any) -> None:
        """Each request is read aloud when those before it have been."""
        while (asked := await context.read()) is not grpc.aio.EOF:
            if asked.encoding not in ENCODINGS:
                told = f"`encoding` is `{asked.encoding}`; expected LINEAR_PCM, FLAC or OGGOPUS"
                raise RequestError(told, param="encoding")
            format = content_pb2.AudioFormat(encoding=ENCODINGS[asked.encoding], sample_rate_hertz=asked.sample_rate_hz)
            wish = omni_service_pb2.SynthesizeRequest(text=asked.text, voice=asked.voice_name, audio=format)
            request, sound = read_synthesize(wish, self._door)
            async with played(self._door, request, SYNTHESIZE_FIELDS) as events:
                async for fields in spoken(events, EventWriter(sound)):
                    if "audio_delta" in fields:
                        id = asked.id if asked.HasField("id") else None
                        await context.write(riva_tts_pb2.SynthesizeSpeechResponse(audio=fields["audio_delta"].audio, id=id))
