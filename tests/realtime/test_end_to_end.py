"""Live speech over the realtime wire with the real engine: the stock client, the embedded checkpoint."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import soxr

from omni_server.audio_format import wav_header
from tests.conftest import RealServer
from tests.realtime.doors import Call, connected
from tests.realtime.test_path import BY_HAND, refused
from tests.rpc.test_live_end_to_end import recording

MODEL = "omni-tiny"


async def open_call(server: RealServer) -> Any:
    return connected(server.url + "/v1", server.pipeline, MODEL)


def resampled(samples: np.ndarray) -> bytes:
    """16 kHz as the wire's 24 kHz."""
    return bytes(np.asarray(soxr.resample(samples, 16_000, 24_000)).astype("<i2").tobytes())


async def test_a_spoken_question_is_answered_aloud(server: RealServer) -> None:
    """Would catch a door, an ear, an encoder, the engine or the vocoder that does not fit the one before."""
    samples = np.concatenate([recording("en-question"), np.zeros(16_000, np.int16)])
    async with await open_call(server) as call:
        await call.until("conversation.created")
        transcription = {"model": "whisper-1"}
        await call.update(
            audio={"input": {"transcription": transcription}, "output": {"voice": "heart"}}, omni={"temperature": 0}
        )
        await call.hear(resampled(samples))
        done = await call.until("response.done")
        if not call.only("conversation.item.input_audio_transcription.completed"):
            await call.until("conversation.item.input_audio_transcription.completed")
    (written,) = call.only("conversation.item.input_audio_transcription.completed")
    assert done.response.status == "completed" and written.transcript
    assert len(call.sound()) == done.response.usage.output_token_details.audio_tokens * 960 * 2
    assert call.only("response.output_audio_transcript.done")[0].transcript == done.response.output[0].content[0].transcript
    times = call.only("response.output_audio.delta")[-1].model_extra
    assert times["end_ms"] == round(len(call.sound()) / 48)


async def test_chat_and_realtime_say_the_same(server: RealServer) -> None:
    """Would catch a door that changes the prompt, the seed, or the sampling on its way."""
    pcm = recording("en-name").astype("<i2").tobytes()
    wav = wav_header(16_000, len(pcm)) + pcm
    sampling = {"temperature": 1.0, "top_p": 0.95, "seed": 11}
    content: list[dict[str, Any]] = [
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav).decode(), "format": "wav"}},
        {"type": "text", "text": "say it"},
    ]
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "modalities": ["text", "audio"],
        "audio": {"format": "pcm16", "voice": "heart"},
        **sampling,
    }
    async with httpx.AsyncClient(timeout=60) as http:
        chat = (await http.post(server.url + "/v1/chat/completions", json=body)).json()
    async with await open_call(server) as call:
        await call.until("conversation.created")
        await call.update(
            audio={
                "input": {"format": {"type": "audio/pcm", "rate": 16_000}, **BY_HAND["input"]},
                "output": {"voice": "heart"},
            },
            omni=sampling,
        )
        parts = [{"type": "input_audio", "audio": base64.b64encode(pcm).decode()}, {"type": "input_text", "text": "say it"}]
        await call.connection.conversation.item.create(item={"type": "message", "role": "user", "content": parts})
        await call.connection.response.create()
        live = (await call.until("response.done")).response
    answer, usage = chat["choices"][0]["message"]["audio"], chat["usage"]
    assert live.output[0].content[0].transcript == answer["transcript"]
    assert (live.usage.input_tokens, live.usage.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    sounds = [np.frombuffer(data, "<i2").astype(int) for data in (call.sound(), base64.b64decode(answer["data"]))]
    assert len(sounds[0]) == len(sounds[1]) and np.abs(sounds[0] - sounds[1]).max() <= 2


async def test_what_the_checkpoint_lacks_is_refused_by_name(server: RealServer) -> None:
    """Would catch a voice or a tool that is taken and then fails each answer."""
    async with await open_call(server) as call:
        await call.until("conversation.created")
        assert (await wrong(call, audio={"output": {"voice": "marin"}})).param == "session.audio.output.voice"
        tool = {"type": "function", "name": "weather"}
        assert (await wrong(call, tools=[tool])).param == "session.tools"
        french = {"input": {"transcription": {"language": "fr"}}}
        assert (await wrong(call, audio=french)).param == "session.audio.input.transcription.language"
        assert (await call.update()).audio.output.voice in server.pipeline.checkpoint.voices


async def wrong(call: Call, **session: Any) -> Any:
    await call.connection.session.update(session={"type": "realtime", **session})
    return await refused(call)
