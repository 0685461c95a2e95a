"""`POST /v1/audio/speech`: one voice in every format, streamed, and never other words in silence."""

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import openai
import pytest

from omni_server.audio_format import MEDIA_TYPES, encode, to_pcm16
from omni_server.errors import ContextOverflow, DecodeFailed, RequestError
from omni_server.types import AudioDelta, Failed, Modality, SpanClosed, SpanOpened, TextDelta
from tests.doubles import Forever, ScriptedPipeline
from tests.rest.scripts import SAMPLE_RATE, done, door, served, tone, voice, words
from tests.rest.test_chat import left_within
from tests.rest.worded import MODEL, events_of, worded, words_of
from tests.test_audio_format import decoded

URL = "/v1/audio/speech"
REPLY = [*words(0, "a fox, ", "여우"), *voice(1, tone(0.3)), done()]


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": "fox", "voice": "mint", **fields}


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with served(worded(*REPLY)) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_stock_client_gets_every_format(client: openai.OpenAI, format: Any) -> None:
    """Catches a format that is announced as another, or whose tail is lost."""
    response = client.audio.speech.with_raw_response.create(model=MODEL, voice="mint", input="fox", response_format=format)
    assert response.headers["content-type"] == MEDIA_TYPES["pcm16" if format == "pcm" else format]
    assert response.headers["x-request-id"]
    if format == "pcm":
        assert response.content == to_pcm16(tone(0.3))
    elif format == "wav":
        assert response.content[44:] == to_pcm16(tone(0.3))
    else:
        waveform, sample_rate = decoded(response.content)
        assert 0.3 <= len(waveform) / sample_rate < 0.4


def test_default_is_mp3(client: openai.OpenAI) -> None:
    """Catches another default than OpenAI's, which players of today's clients could not read."""
    assert client.audio.speech.create(model=MODEL, voice={"id": "mint"}, input="fox").content == encode(
        "mp3", tone(0.3), SAMPLE_RATE
    )


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_speed_changes_the_duration_in_every_format(client: openai.OpenAI, format: Any, speed: float) -> None:
    """Catches a speed that is accepted and has no effect, or that loses the end of the last word."""
    spoken = client.audio.speech.create(model=MODEL, voice="mint", input="fox", response_format=format, speed=speed).content
    if format == "pcm":
        assert len(spoken) == 2 * int(0.3 * SAMPLE_RATE / speed)
    elif format == "wav":
        assert len(spoken) - 44 == 2 * int(0.3 * SAMPLE_RATE / speed)
    else:
        waveform, sample_rate = decoded(spoken)
        assert 0 <= len(waveform) / sample_rate - 0.3 / speed < 0.1  # an encoder's frame or two


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
async def test_events_of_every_format_are_the_same_file(format: str) -> None:
    """Catches a format whose events, joined, are not the file that the body of bytes is."""
    async with door(worded(*REPLY)) as client:
        file = (await client.post(URL, json=asked(response_format=format))).content
        events = events_of(await client.post(URL, json=asked(response_format=format, stream_format="sse")))
    assert [event["type"] for event in events[-2:]] == ["speech.audio.delta", "speech.audio.done"]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == file


async def test_async_client_streams_events(base_url: str) -> None:
    """Catches events that cannot be decoded one by one, and a stream that does not tell what was said or what it cost."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        create = client.audio.speech.with_streaming_response.create
        async with create(model=MODEL, voice="mint", input="fox", response_format="pcm", stream_format="sse") as response:
            events = [json.loads(line.removeprefix("data: ")) async for line in response.iter_lines() if line]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == to_pcm16(tone(0.3))
    assert events[-1] == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 30, "output_tokens": 70, "total_tokens": 100},
        "omni": {"transcript": "a fox, 여우"},
    }


def test_bytes_come_while_the_voice_is_still_made() -> None:
    """Catches a body that waits for the end: here the end never comes. The client then leaves, and so must the work."""
    pipeline = worded(*words(0, "fox"), SpanOpened(1, Modality.AUDIO), AudioDelta(1, tone(1.0), SAMPLE_RATE), Forever())
    with served(pipeline) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        create = client.audio.speech.with_streaming_response.create
        with create(model=MODEL, voice="mint", input="fox") as response:
            pieces = response.iter_bytes()  # kept, for a dropped iterator closes the response
            assert next(pieces)
            assert pipeline.running == 1
        assert left_within(pipeline, 5)


def test_a_voice_that_breaks_off_is_no_complete_file() -> None:
    """Catches half a sentence that a client takes for all of it: a body of bytes can only be broken off."""
    broken = [SpanOpened(0, Modality.AUDIO), AudioDelta(0, tone(1.0), SAMPLE_RATE), SpanClosed(0, DecodeFailed("gone"))]
    with served(worded(*broken)) as url, pytest.raises(httpx.RemoteProtocolError):
        httpx.post(url + URL, json=asked())


async def test_a_voice_that_breaks_off_is_the_last_event() -> None:
    """Catches an event stream that ends as if all were well."""
    broken = [SpanOpened(0, Modality.AUDIO), AudioDelta(0, tone(1.0), SAMPLE_RATE), SpanClosed(0, DecodeFailed("gone"))]
    async with door(worded(*broken)) as client:
        events = events_of(await client.post(URL, json=asked(stream_format="sse")))
    assert events[0]["type"] == "speech.audio.delta"
    assert events[-1]["error"]["message"] == "gone"


@pytest.mark.parametrize(
    ("text", "wording"), [("fox", "say 'fox'"), ("여우 fox", "'여우 fox'라고 말해줘"), ("{input} <|x|>", "say '{input} <|x|>'")]
)
async def test_wording(text: str, wording: str) -> None:
    """Catches words that are put to the model in the other language, or that are taken for a template."""
    pipeline = worded(*REPLY)
    async with door(pipeline) as client:
        assert (
            await client.post(URL, json=asked(input=text, voice={"id": "sage"}, instructions="cheerful"))
        ).status_code == 200
    assert words_of(pipeline.requests[0]) == wording
    assert pipeline.requests[0].modalities == {Modality.TEXT, Modality.AUDIO}
    assert pipeline.requests[0].decode.voice == "sage"


async def test_what_was_really_said_is_told() -> None:
    """Catches a refusal that is sent as a good recording of the words that were asked for."""
    async with door(worded(*REPLY)) as client:
        response = await client.post(URL, json=asked())
    assert unquote(response.headers["x-omni-transcript"]) == "a fox, 여우"


async def test_a_long_transcript_is_not_a_header() -> None:
    """Catches a header that proxies refuse, with the whole answer."""
    async with door(worded(*words(0, "여우 " * 200), *voice(1, tone(0.3)), done())) as client:
        assert "x-omni-transcript" not in (await client.post(URL, json=asked())).headers


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize(
    ("script", "status", "param", "expected"),
    [
        ([*words(0, "I cannot"), done()], 400, "input", "wrote `I cannot`"),
        ([Failed(ContextOverflow("too long", param="messages"))], 400, "input", "too long"),
        ([SpanOpened(0, Modality.AUDIO), SpanClosed(0, DecodeFailed("gone"))], 500, None, "gone"),
    ],
)
async def test_no_voice_is_an_error(
    stream_format: str, script: list[Any], status: int, param: str | None, expected: str
) -> None:
    """Catches an empty file with status 200, and errors that name the fields of a conversation."""
    async with door(worded(*script)) as client:
        response = await client.post(URL, json=asked(stream_format=stream_format))
    assert response.status_code == status
    assert expected in response.json()["error"]["message"]
    assert response.json()["error"]["param"] == param


async def test_a_voice_cut_by_the_context_is_an_error() -> None:
    """Catches a reading that stops in the middle of a long text as if it were over."""
    script = [SpanOpened(0, Modality.TEXT), TextDelta(0, "a"), SpanClosed(0), *voice(1, tone(0.3)), done("length")]
    async with door(worded(*script)) as client:
        events = events_of(await client.post(URL, json=asked(stream_format="sse", response_format="pcm")))
    assert "no room" in events[-1]["error"]["message"]


async def test_unknown_voice_names_its_field() -> None:
    """Catches a client that is told to correct `audio.voice`, which it never sent."""
    async with door(worded(refusal=RequestError("voice `bob` is unknown", param="audio.voice"))) as client:
        response = await client.post(URL, json=asked(voice="bob"))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "voice")


@pytest.mark.parametrize(
    ("fields", "param", "expected"),
    [
        ({"input": ""}, "input", "white space"),
        ({"input": " \n"}, "input", "white space"),
        ({"input": "a" * 4097}, "input", "4096"),
        ({"input": 3}, "input", "string"),
        ({"speed": 0.2}, "speed", "0.25"),
        ({"speed": 4.1}, "speed", "4"),
        ({"speed": "fast"}, "speed", "number"),
        ({"response_format": "ogg"}, "response_format", "'opus'"),
        ({"stream_format": "ws"}, "stream_format", "'sse'"),
        ({"voice": {"name": "mint"}}, "voice.id", "missing"),
        ({"inptu": "fox"}, "inptu", "did you mean `input`?"),
        ({"model": "gpt-9"}, "model", "omni-scripted"),
    ],
)
async def test_wrong_fields_are_named(fields: dict[str, Any], param: str, expected: str) -> None:
    """Catches a wrong field that passes in silence, becomes a 5xx, or is not named."""
    pipeline = worded(*REPLY)
    async with door(pipeline) as client:
        response = await client.post(URL, json=asked(**fields))
    assert response.status_code == (404 if param == "model" else 400)
    error = response.json()["error"]
    assert error["param"] == param
    assert f"`{param}`" in error["message"]
    assert expected in error["message"]
    assert not pipeline.requests


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"model": "omni-scripted"}'])
async def test_bodies_that_are_no_request(body: bytes) -> None:
    """Catches a traceback on a body that a client's bug cut short."""
    async with door(worded(*REPLY)) as client:
        assert (await client.post(URL, content=body)).status_code == 400


async def test_a_checkpoint_without_wordings_says_so() -> None:
    """Catches a guess: a model that was never taught to read aloud would be asked in words it does not know."""
    async with door(ScriptedPipeline(*REPLY)) as client:
        response = await client.post(URL, json=asked())
    assert response.status_code == 400
    assert "no wording for `speech`" in response.json()["error"]["message"]


def test_silence_of_no_length_is_a_file(client: openai.OpenAI) -> None:
    """Catches spans that stand in the wrong order, and a second voice that is lost."""
    spoken = [*voice(0, tone(0.1)), *words(1, "and"), *voice(2, np.zeros(0, np.float32)), *voice(3, tone(0.2)), done()]
    with served(worded(*spoken)) as url:
        content = httpx.post(url + URL, json=asked(response_format="pcm")).content
    assert content == to_pcm16(np.concatenate([tone(0.1), tone(0.2)]))
