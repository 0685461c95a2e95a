"""The whole way: stock `openai` clients, REST, the real engine and the embedded checkpoint. Figures are in bench/, not here."""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import PIL.Image
import pytest

from omni_server.types import (
    REPLIES,
    Done,
    ImageReady,
    Message,
    Modality,
    Request,
    Sampling,
    SpanClosed,
    SpanOpened,
    TextPart,
)
from tests.conftest import RealServer
from tests.media_samples import png_of, wav_of_tone

MEDIA = Path(__file__).parent.parent / "clients" / "examples" / "media"
TEXT, PICTURE, SPEECH = ["text"], ["text", "image"], ["text", "audio"]
WAV: Any = {"voice": "heart", "format": "wav"}


@pytest.fixture
async def client(server: RealServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


async def ask(client: openai.AsyncOpenAI, content: Any, modalities: list[str], **more: Any) -> Any:
    if "audio" in modalities:
        more.setdefault("audio", WAV)
    messages: Any = content if isinstance(content, list) and "role" in content[0] else [{"role": "user", "content": content}]
    return await client.chat.completions.create(
        model="omni-tiny", messages=messages, modalities=modalities, seed=1, temperature=0, **more
    )


def samples_of(data: str) -> np.ndarray:
    with wave.open(io.BytesIO(base64.b64decode(data))) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 24000)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def picture_of(url: str) -> PIL.Image.Image:
    assert url.startswith("data:image/png;base64,")
    return PIL.Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1])))


async def test_text_to_picture(client: openai.AsyncOpenAI) -> None:
    """Would catch a picture that is lost between the backbone and the client, or one that is blank."""
    reply = await ask(client, "draw a fox", PICTURE)
    (image,) = reply.choices[0].message.images
    picture = picture_of(image["image_url"]["url"])
    assert picture.size == (128, 128)
    assert np.asarray(picture).std() > 20
    assert reply.usage.completion_tokens > 36


async def test_picture_to_words(client: openai.AsyncOpenAI) -> None:
    """Would catch eyes that see nothing, or a picture that is put at the wrong place in the prompt."""
    named = []
    for name in ("fox", "banana", "tractor"):
        url = "data:image/png;base64," + base64.b64encode((MEDIA / f"{name}.png").read_bytes()).decode()
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is this?"}]
        told = await ask(client, content, TEXT)
        named.append(name in told.choices[0].message.content)
    assert sum(named) >= 2


async def test_text_to_speech(client: openai.AsyncOpenAI) -> None:
    """Would catch a transcript without a voice, silence, or a voice of the wrong length."""
    reply = await ask(client, "say 'fox'", SPEECH)
    message = reply.choices[0].message
    samples = samples_of(message.audio.data)
    assert message.content is None and "fox" in message.audio.transcript
    assert 0.3 < len(samples) / 24000 < 5
    assert np.abs(samples).max() > 1000
    assert reply.usage.completion_tokens_details.audio_tokens * 960 == len(samples)


async def test_speech_in(client: openai.AsyncOpenAI) -> None:
    """Would catch audio that is refused, or that counts as no tokens."""
    data = base64.b64encode(wav_of_tone(1.0)).decode()
    content = [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]
    reply = await ask(client, content, TEXT)
    assert reply.choices[0].message.content
    assert reply.usage.prompt_tokens_details.audio_tokens == 50


async def test_what_was_heard_stands_beside_the_answer(client: openai.AsyncOpenAI) -> None:
    """Would catch the model's notes of what it heard within its answer, or nowhere."""
    for name, heard in (("en-question", "is a fox an animal"), ("ko-question", "여우")):
        data = base64.b64encode((MEDIA / f"{name}.flac").read_bytes()).decode()
        reply = await ask(client, [{"type": "input_audio", "input_audio": {"data": data, "format": "flac"}}], TEXT)
        message = reply.choices[0].message
        assert heard in message.omni["user_transcript"]
        assert message.content and "<" not in message.content


async def test_stream_carries_what_the_whole_carries(client: openai.AsyncOpenAI) -> None:
    """Would catch a streamed answer that differs from the same answer in one piece."""
    whole = await ask(client, "say 'fox'", SPEECH, audio={"voice": "heart", "format": "pcm16"})
    stream = await ask(
        client,
        "say 'fox'",
        SPEECH,
        audio={"voice": "heart", "format": "pcm16"},
        stream=True,
        stream_options={"include_usage": True},
    )
    data, transcript, usage, finish = b"", "", None, None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            audio = getattr(choice.delta, "audio", None) or {}
            audio = audio if isinstance(audio, dict) else audio.model_dump()
            data += base64.b64decode(audio.get("data") or "")
            transcript += audio.get("transcript") or ""
            finish = choice.finish_reason or finish
    assert transcript == whole.choices[0].message.audio.transcript
    expected = np.frombuffer(base64.b64decode(whole.choices[0].message.audio.data), np.int16).astype(int)
    streamed = np.frombuffer(data, np.int16).astype(int)
    assert len(streamed) == len(expected)
    assert usage is not None and finish == "stop"


async def test_interleaved_reply_in_korean(client: openai.AsyncOpenAI) -> None:
    """Would catch modalities that exclude each other."""
    reply = await ask(client, "여우를 설명하고, 그리고, 말해줘", ["text", "image", "audio"])
    message = reply.choices[0].message
    assert message.audio.transcript
    assert samples_of(message.audio.data).size


async def test_sync_client_holds_a_conversation(server: RealServer) -> None:
    """Would catch a wire that only the asynchronous client can read; follow-up turns name the spoken answer by its id."""

    def talk() -> str:
        with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            return talk_with(client)

    def talk_with(client: openai.OpenAI) -> str:
        first: Any = client.chat.completions.create(
            model="omni-tiny",
            messages=[{"role": "user", "content": "say 'fox'"}],
            modalities=["text", "audio"],
            audio=WAV,
        )
        second = client.chat.completions.create(
            model="omni-tiny",
            messages=[
                {"role": "user", "content": "say 'fox'"},
                {"role": "assistant", "audio": {"id": first.choices[0].message.audio.id}},
                {"role": "user", "content": "is a fox an animal?"},
            ],
        )
        return second.choices[0].message.content or ""

    assert await asyncio.to_thread(talk)


async def test_same_picture_is_encoded_once_and_cached(server: RealServer, client: openai.AsyncOpenAI) -> None:
    """Would catch an encoder that runs again, or an engine that does not know the picture by its content."""
    url = "data:image/png;base64," + base64.b64encode(png_of(PIL.Image.new("RGB", (64, 64), "navy"))).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is this?"}]
    eye = server.pipeline._senses[Modality.IMAGE]
    before = eye.encoded
    first, second = [await ask(client, content, TEXT) for _ in range(2)]
    assert eye.encoded == before + 1
    assert second.usage.prompt_tokens_details.cached_tokens > first.usage.prompt_tokens_details.cached_tokens


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "nobody"}, 404, "nobody"),
        ({"modalities": ["smell"]}, 400, "smell"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "nobody", "format": "wav"}}, 400, "heart"),
        ({"temperature": 9}, 400, "temperature"),
        ({"max_completion_tokens": 0}, 400, "max_completion_tokens"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, 400, "1024"),
    ],
)
async def test_bad_requests_are_told_what_was_wrong(
    server: RealServer, change: dict[str, Any], status: int, words: str
) -> None:
    """Would catch a bad parameter that passes in silence, becomes a 5xx, or harms the request beside it."""
    body = {"model": "omni-tiny", "messages": [{"role": "user", "content": "draw a fox"}]} | change
    async with httpx.AsyncClient() as http:
        reply = await http.post(server.url + "/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert words in error["message"] and error["type"]


async def test_a_client_that_goes_away_leaves_nothing_in_the_engine(server: RealServer) -> None:
    """Would catch an engine that goes on for a client who has left, streamed or not."""
    body = {
        "model": "omni-tiny",
        "messages": [{"role": "user", "content": "draw a fox"}],
        "temperature": 2,
        "max_completion_tokens": 900,
    }
    async with httpx.AsyncClient() as http:
        for stream in (True, False):
            try:
                async with asyncio.timeout(1.0 if not stream else 60):
                    async with http.stream(
                        "POST", server.url + "/v1/chat/completions", json=body | {"stream": stream}, timeout=60
                    ) as reply:
                        async for _ in reply.aiter_bytes():
                            break
            except TimeoutError:
                pass
            for _ in range(100):
                if not server.unfinished:
                    break
                await asyncio.sleep(0.05)
            assert server.unfinished == 0


async def test_sampled_replies_are_well_formed(server: RealServer) -> None:
    """Would catch a malformed span at temperature 1; bench/spans.py does the same a thousand times."""

    async def one(number: int) -> list[Any]:
        asked = Request(
            f"well-formed-{number}",
            (Message("user", (TextPart(("draw a fox", "여우라고 말해줘", "draw it and say it")[number % 3]),)),),
            modalities=REPLIES,
            sampling=Sampling(temperature=1.0, seed=number, max_tokens=400),
        )
        async with server.pipeline.respond(asked) as events:
            return [event async for event in events]

    for events in await asyncio.gather(*(one(number) for number in range(24))):
        assert isinstance(events[-1], Done)
        if events[-1].finish_reason == "stop":
            assert [event.error for event in events if isinstance(event, SpanClosed)].count(None) == len(
                [event for event in events if isinstance(event, SpanOpened)]
            )
        assert all(event.image.size == (128, 128) for event in events if isinstance(event, ImageReady))
