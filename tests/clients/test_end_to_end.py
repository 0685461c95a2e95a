"""The SDK against the real server, the real engine and the embedded checkpoint. What the model says is judged elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

import PIL.Image
import pytest

from omni_client import AsyncOmniClient, AudioDelta, BadRequestError, OmniClient, SpanOpened, TextDelta
from tests.clients.both import Both, until
from tests.conftest import RealServer
from tests.media_samples import wav_of_tone

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
LONG = {"temperature": 2.0, "max_tokens": 900}  # a reply that goes on until the limit


@KINDS
async def test_every_modality(kind: str, server: RealServer, tmp_path: Path) -> None:
    """Catches a wire that only scripted replies keep to."""
    client = Both(kind, server.url)
    (model,) = await client.call("models")
    assert set(model.output_modalities) == {"text", "image", "audio"}
    assert await client.call("voices") == model.voices
    picture = await client.call("draw", "a fox", seed=3)
    assert picture.image.size == (128, 128)
    assert (await client.call("draw", "a fox", seed=3)).data == picture.data
    voice = await client.call("speak", "fox", voice=model.voices[0])
    assert voice.sample_rate == 24_000 and voice.seconds > 0.2 and voice.transcript
    heard = await client.call("transcribe", voice)
    assert heard.seconds == pytest.approx(voice.seconds, abs=0.01)
    reply = await client.call("generate", [picture, PIL.Image.new("RGB", (32, 32)), (voice.waveform, 24_000), "what is this?"])
    assert reply.text and reply.usage.prompt_image_tokens and reply.usage.prompt_audio_tokens
    assert reply.seconds["total"] >= reply.seconds["first_token"]
    spoken = await client.call("generate", "say 'fox'", voice=model.voices[0], temperature=0)
    assert [path.name for path in spoken.save(tmp_path / "spoken")] == ["spoken.wav"]


@KINDS
async def test_a_stream(kind: str, server: RealServer) -> None:
    """Catches a voice that comes in one piece at the end."""
    events, reply, problem = await Both(kind, server.url).stream("say 'fox'", voice="heart", temperature=0)
    assert problem is None
    kinds = [type(event) for event in events]
    assert kinds.index(SpanOpened) < kinds.index(TextDelta) < kinds.index(AudioDelta)
    assert reply.audio is not None and reply.usage is not None
    assert reply.audio.seconds == pytest.approx(reply.usage.completion_audio_tokens * 0.04)
    assert reply.seconds["first_audio"] <= reply.seconds["total"]


@KINDS
async def test_what_was_wrong_is_told(kind: str, server: RealServer) -> None:
    """Catches a field's name that is lost on the way."""
    with pytest.raises(BadRequestError) as caught:
        await Both(kind, server.url).call("generate", [wav_of_tone(0.01), "hm?"])
    assert caught.value.param == "messages[0].content[0].input_audio.data"


async def test_leaving_a_stream_leaves_nothing_in_the_engine(server: RealServer) -> None:
    """Catches an engine that goes on for a client who has left the block, or whose task was cancelled."""

    def leave() -> None:
        with OmniClient(server.url) as client, client.stream("draw a fox", **LONG) as stream:
            next(stream)
            assert server.unfinished

    await asyncio.to_thread(leave)
    await until(lambda: server.unfinished == 0)
    arrived = asyncio.Event()

    async def read() -> None:
        async with AsyncOmniClient(server.url) as client, client.stream("draw a fox", **LONG) as stream:
            async for _ in stream:
                arrived.set()

    reading = asyncio.create_task(read())
    await asyncio.wait_for(arrived.wait(), 60)
    assert server.unfinished
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await until(lambda: server.unfinished == 0)


async def test_cancelling_a_whole_reply_cancels_too(server: RealServer) -> None:
    """Catches an engine that finishes what nobody waits for."""
    async with AsyncOmniClient(server.url) as client:
        asking = asyncio.create_task(client.generate("draw a fox", **LONG))
        await until(lambda: server.unfinished > 0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: server.unfinished == 0)
