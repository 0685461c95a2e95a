"""Live speech on the real engine with the embedded checkpoint and the real ears. Figures are in bench/, not here."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import soundfile

from omni.v1 import content_pb2, converse_pb2, omni_service_pb2
from omni_server.audio_format import wav_header
from tests.conftest import RealServer
from tests.rpc.doors import EARS, rpc_client
from tests.rpc.test_converse import Request, calling, kinds, only, until

MEDIA = Path(__file__).parent.parent.parent / "clients" / "examples" / "media"
BY_HAND = converse_pb2.TurnDetection(type=converse_pb2.TURN_DETECTION_TYPE_NONE)
RATE = 16_000


def recording(name: str) -> np.ndarray:
    """int16 at 16 kHz."""
    samples, rate = soundfile.read(MEDIA / f"{name}.flac", dtype="int16")
    assert rate == RATE and samples.ndim == 1
    return np.asarray(samples)


def frames(samples: np.ndarray, size: int = 640) -> list[Request]:
    pieces = (samples[at : at + size].astype("<i2").tobytes() for at in range(0, len(samples), size))
    return [Request(audio=converse_pb2.AudioFrame(audio=piece)) for piece in pieces]


async def test_a_spoken_question_is_answered_aloud(server: RealServer) -> None:
    """Would catch a door, an ear, an encoder, the engine or the vocoder that does not fit the one before."""
    samples = np.concatenate([recording("en-question"), np.zeros(RATE, np.int16)])
    async with rpc_client(server.pipeline) as client:
        sent = [Request(config=converse_pb2.ConverseConfig(sampling=content_pb2.Sampling(temperature=0))), *frames(samples)]
        replies = [reply async for reply in client.stub.Converse(iter(sent))]
    (done,) = only(replies, "response_done")
    assert done.status == converse_pb2.RESPONSE_STATUS_COMPLETED
    sound = b"".join(delta.audio for delta in only(replies, "audio_delta"))
    assert len(sound) == done.usage.completion_audio_tokens * 960 * 2
    assert kinds(replies)[:4] == ["ready", "speech_started", "speech_stopped", "turn_committed"]
    assert kinds(replies)[-2:] == ["response_done", "turn_complete"]


async def test_all_doors_say_the_same(server: RealServer) -> None:
    """Would catch a door that changes the prompt, the seed, or the sampling on its way."""
    samples = recording("en-name")
    wav = wav_header(RATE, len(samples) * 2) + samples.astype("<i2").tobytes()
    sampling = content_pb2.Sampling(temperature=1.0, top_p=0.95, seed=11)
    async with rpc_client(server.pipeline) as client:
        sent = [
            Request(config=converse_pb2.ConverseConfig(sampling=sampling, turn_detection=BY_HAND, voice="heart")),
            *frames(samples),
            Request(text="say it"),
            Request(end_turn=converse_pb2.EndTurn()),
        ]
        live = [reply async for reply in client.stub.Converse(iter(sent))]
        parts = [content_pb2.Part(audio=content_pb2.Media(data=wav)), content_pb2.Part(text="say it")]
        asked = omni_service_pb2.GenerateRequest(
            messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=parts)],
            modalities=[content_pb2.MODALITY_AUDIO],
            sampling=sampling,
            voice="heart",
        )
        generated = [reply async for reply in client.stub.Generate(asked)]
    import base64

    content = [
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav).decode(), "format": "wav"}},
        {"type": "text", "text": "say it"},
    ]
    body = {
        "model": "omni-tiny",
        "messages": [{"role": "user", "content": content}],
        "modalities": ["text", "audio"],
        "audio": {"format": "pcm16", "voice": "heart"},
        "temperature": 1.0,
        "top_p": 0.95,
        "seed": 11,
    }
    async with httpx.AsyncClient(timeout=60) as http:
        rest = (await http.post(server.url + "/v1/chat/completions", json=body)).json()
    (done,) = only(live, "response_done")
    words = [only(live, "transcript")[-1].text, "".join(r.text_delta.text for r in generated)]
    words.append(rest["choices"][0]["message"]["audio"]["transcript"])
    tokens = [done.usage, generated[-1].done.usage]
    counts = [(usage.prompt_tokens, usage.completion_tokens, usage.completion_audio_tokens) for usage in tokens]
    usage = rest["usage"]
    counts.append((usage["prompt_tokens"], usage["completion_tokens"], usage["completion_tokens_details"]["audio_tokens"]))
    assert len(set(words)) == 1 and len(set(counts)) == 1
    sounds = [
        np.frombuffer(b"".join(delta.audio for delta in only(live, "audio_delta")), "<i2").astype(int),
        np.frombuffer(b"".join(r.audio_delta.audio for r in generated), "<i2").astype(int),
        np.frombuffer(base64.b64decode(rest["choices"][0]["message"]["audio"]["data"]), "<i2").astype(int),
    ]
    assert all(len(sound) == len(sounds[0]) and np.abs(sound - sounds[0]).max() <= 2 for sound in sounds)


@pytest.mark.parametrize("by_utterance", [False, True])
async def test_transcribe(server: RealServer, by_utterance: bool) -> None:
    """Would catch a recording that is lost on its way to the model, or utterances that run together."""
    gap = np.zeros(RATE, np.int16)
    samples = np.concatenate([recording("en-name"), gap, recording("en-question"), gap])
    detection = converse_pb2.TurnDetection() if by_utterance else None
    config = omni_service_pb2.TranscribeConfig(
        audio=content_pb2.AudioFormat(encoding=content_pb2.AUDIO_ENCODING_PCM_S16LE),
        turn_detection=detection,
        interim_results=by_utterance,
    )
    pieces = [samples[at : at + 640].tobytes() for at in range(0, len(samples), 640)]
    sent = [omni_service_pb2.TranscribeRequest(config=config)]
    sent += [omni_service_pb2.TranscribeRequest(audio=piece) for piece in pieces]
    async with rpc_client(server.pipeline) as client:
        replies = [reply async for reply in client.stub.Transcribe(iter(sent))]
    final = [reply.utterance for reply in replies if reply.HasField("utterance") and reply.utterance.is_final]
    assert [utterance.index for utterance in final] == ([0, 1] if by_utterance else [0])
    assert replies[-1].done.audio.ToTimedelta().total_seconds() == pytest.approx(len(samples) / RATE, abs=0.01)
    assert replies[-1].done.usage.prompt_audio_tokens > 0
    if by_utterance:
        assert replies[0].WhichOneof("event") == "speech_started"
        assert any(reply.HasField("utterance") and not reply.utterance.is_final for reply in replies)


async def test_cancelling_at_any_moment_frees_everything(server: RealServer) -> None:
    """Would catch an engine slot, a vocoder's stream or a task that outlives its caller. 200 callers hang up at random
    moments, eight at a time: while they speak, in the pause, while they are answered, after it."""
    samples = np.concatenate([recording("en-question"), np.zeros(RATE, np.int16)])
    speech = frames(samples, 1280)
    chance = random.Random(1)
    before = asyncio.all_tasks()

    async def one(client: Any, gate: asyncio.Semaphore) -> None:
        async with gate:
            call = client.stub.Converse()
            try:
                async with asyncio.timeout(chance.uniform(0.0, 1.2)):
                    await call.write(Request(config=converse_pb2.ConverseConfig()))
                    for frame in speech:
                        await call.write(frame)
                    while await call.read() is not grpc.aio.EOF:
                        pass
            except TimeoutError:
                pass
            call.cancel()

    async with rpc_client(server.pipeline) as client:
        gate = asyncio.Semaphore(8)
        await asyncio.gather(*(one(client, gate) for _ in range(200)))
        for _ in range(200):
            if not server.unfinished and not client.server._service.calls:
                break
            await asyncio.sleep(0.05)
        assert server.unfinished == 0
        assert client.server._service.calls == set() and server.pipeline.drain._listeners == set()
    await EARS.lane.run(lambda: None)
    for _ in range(100):
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        if not left:
            break
        await asyncio.sleep(0.02)
    assert left == []


async def test_speaking_over_the_real_answer(server: RealServer) -> None:
    """Would catch an interruption that leaves the engine at work."""
    samples = np.concatenate([recording("ko-question"), np.zeros(RATE, np.int16)])
    async with rpc_client(server.pipeline) as client, calling(client) as call:
        for frame in frames(samples):
            await call.write(frame)
        await until(call, "response_started")
        for frame in frames(samples):
            await call.write(frame)
        await until(call, "interrupted")
        await until(call, "turn_complete")
        assert (await until(call, "response_done")).status == converse_pb2.RESPONSE_STATUS_COMPLETED
    for _ in range(100):
        if not server.unfinished:
            break
        await asyncio.sleep(0.05)
    assert server.unfinished == 0
