"""Riva's own client against this server, in a process of its own: both know protobuf types of the same names."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from typing import Any

import grpc
import pytest

from omni.compat import riva_asr_pb2, riva_asr_pb2_grpc, riva_tts_pb2, riva_tts_pb2_grpc
from tests.doubles import ScriptedPipeline
from tests.rpc.test_converse import ANSWER, TURN, door

CLIENT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import riva.client as riva
auth = riva.Auth(uri=f"127.0.0.1:{sys.argv[1]}")
read = riva.RecognitionConfig(encoding=riva.AudioEncoding.LINEAR_PCM, sample_rate_hertz=16000, language_code="en-US")
config = riva.StreamingRecognitionConfig(config=read, interim_results=False)
chunks = [bytes.fromhex(line) for line in sys.stdin.read().split()]
heard = riva.ASRService(auth).streaming_response_generator(audio_chunks=iter(chunks), streaming_config=config)
words = [(r.alternatives[0].transcript, r.is_final) for reply in heard for r in reply.results]
said = riva.SpeechSynthesisService(auth).synthesize_online("hi", voice_name="mint", sample_rate_hz=44100)
print(json.dumps({"words": words, "bytes": sum(len(reply.audio) for reply in said)}))
"""


def scripted() -> ScriptedPipeline:
    pipeline = ScriptedPipeline(*ANSWER)
    pipeline.checkpoint.prompts.update({"transcription": {"en": "write"}, "speech": {"en": "say {input}"}})  # type: ignore[attr-defined]
    return pipeline


@pytest.mark.skipif(importlib.util.find_spec("riva") is None, reason="nvidia-riva-client is not installed")
async def test_the_stock_client_hears_and_speaks() -> None:
    """Would catch a number or a name that is not Riva's."""
    sent = "\n".join(frame.audio.audio.hex() for frame in TURN)
    async with door(scripted()) as (client, _):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT, str(client.server.port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(sent.encode())
    told: dict[str, Any] = json.loads(out)
    assert told == {"words": [["one two", True]], "bytes": 44_100 * 2}


async def test_the_same_without_their_client() -> None:
    """Would catch the mapping breaking where their client is not installed; ids come back."""
    async with door(scripted()) as (client, _):
        asr = riva_asr_pb2_grpc.RivaSpeechRecognitionStub(client.channel)  # type: ignore[no-untyped-call]
        reading = riva_asr_pb2.RecognitionConfig(encoding=1, sample_rate_hertz=16_000, language_code="en-US")
        config = riva_asr_pb2.StreamingRecognitionConfig(config=reading)
        ask = riva_asr_pb2.StreamingRecognizeRequest
        sent = [ask(streaming_config=config, id=riva_asr_pb2.RequestId(value="a"))]
        sent += [ask(audio_content=frame.audio.audio) for frame in TURN]
        (reply,) = [reply async for reply in asr.StreamingRecognize(iter(sent))]
        assert (reply.results[0].alternatives[0].transcript, reply.results[0].is_final, reply.id.value) == (
            "one two",
            True,
            "a",
        )
        tts = riva_tts_pb2_grpc.RivaSpeechSynthesisStub(client.channel)  # type: ignore[no-untyped-call]
        asked = [riva_tts_pb2.SynthesizeSpeechRequest(text=text, encoding=1, sample_rate_hz=16_000) for text in ("a", "b")]
        said = b"".join([piece.audio async for piece in tts.SynthesizeOnline(iter(asked))])
        assert len(said) == 2 * 16_000 * 2
        wrong = asr.StreamingRecognize(iter([ask(audio_content=b"00")]))
        assert await wrong.code() is grpc.StatusCode.INVALID_ARGUMENT
