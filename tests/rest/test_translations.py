"""`POST /v1/audio/translations`: what is heard, in English; and recordings of several utterances on both resources."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from omni_server.audio_format import encode
from omni_server.config import MediaLimits, UrlPolicy
from omni_server.errors import EngineUnavailable
from omni_server.fetch import UrlFetcher
from omni_server.media import MediaLoader
from omni_server.types import Failed, MediaSource
from tests.doubles import Forever, ScriptedCheckpoint, ScriptedPipeline
from tests.rest.scripts import SAMPLE_RATE, done, door, served, tone, words
from tests.rest.worded import MODEL, PROMPTS, events_of, recordings_of, worded, words_of

TRANSLATIONS, TRANSCRIPTIONS = "/v1/audio/translations", "/v1/audio/transcriptions"
MEDIA = Path(__file__).parent.parent.parent / "clients" / "examples" / "media"
WAV = encode("wav", tone(1.5), SAMPLE_RATE)
LOADER = MediaLoader(MediaLimits(1 << 24, 1 << 20, 600), UrlFetcher(UrlPolicy()))
KOREAN, ENGLISH = [*words(0, "여우"), done()], [*words(0, "a ", "fox"), done()]


def interview() -> bytes:
    """Two people, a second of silence before, between and after."""
    silence = np.zeros(16_000, np.float32)
    voices = [LOADER.speech(MediaSource("file", data=(MEDIA / name).read_bytes())) for name in NAMES]
    return encode("wav", np.concatenate([silence, voices[0].waveform, silence, voices[1].waveform, silence]), 16_000)


NAMES = ("en-question.flac", "ko-question.flac")
INTERVIEW = interview()


def scripted(*scripts: list[Any]) -> ScriptedPipeline:
    """Replies of its own for each request, the last one for all others."""
    pipeline, waiting = worded(), list(scripts)
    respond = pipeline.respond

    def one_each(request: Any) -> Any:
        pipeline.script = tuple(waiting.pop(0) if len(waiting) > 1 else waiting[0])
        return respond(request)

    pipeline.respond = one_each  # type: ignore[method-assign]
    return pipeline


def sent(data: dict[str, Any] | None = None, file: bytes = WAV) -> dict[str, Any]:
    return {"data": {"model": MODEL} | (data or {}), "files": {"file": ("a.wav", file)}}


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    pipeline = scripted(KOREAN, ENGLISH)
    with served(pipeline) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("text", "a fox"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,500\na fox\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na fox\n\n"),
    ],
)
def test_stock_client_translates(client: openai.OpenAI, format: Any, expected: str) -> None:
    """Catches Korean words in an English answer, and a form of answer that only transcriptions have."""
    assert client.audio.translations.create(model=MODEL, file=("a.wav", WAV), response_format=format) == expected


def test_stock_client_gets_it_verbose(client: openai.OpenAI) -> None:
    """Catches a language that is the recording's, not the answer's."""
    answer: Any = client.audio.translations.create(
        model=MODEL, file=("a.wav", WAV), response_format="verbose_json", prompt="animals", temperature=0.5
    )
    assert (answer.text, answer.language, answer.duration) == ("a fox", "english", 1.5)
    assert [(segment.text, segment.temperature) for segment in answer.segments] == [("a fox", 0.5)]


async def test_both_requests_are_asked_and_paid_for() -> None:
    """Catches a translation of other words than were heard, sampled by default, and a usage that counts one half."""
    pipeline = scripted(KOREAN, ENGLISH)
    async with door(pipeline) as client:
        body = (await client.post(TRANSLATIONS, **sent())).json()
    heard, said = pipeline.requests
    assert (words_of(heard), recordings_of(heard)) == ("write down what you hear", [WAV])
    assert (words_of(said), recordings_of(said)) == ("여우 영어로 번역해줘", [])
    assert said.sampling.temperature == 0.0
    assert body["text"] == "a fox"
    assert body["usage"]["total_tokens"] == 200


async def test_english_words_stay_as_they_are() -> None:
    """Catches English that is handed to a model which only knows how to translate Korean."""
    pipeline = scripted(ENGLISH)
    async with door(pipeline) as client:
        assert (await client.post(TRANSLATIONS, **sent())).json()["text"] == "a fox"
        assert len(pipeline.requests) == 1
        pipeline.checkpoint = ScriptedCheckpoint(prompts=PROMPTS | {"translation": {"en": "in English: {input}"}})
        await client.post(TRANSLATIONS, **sent())
    assert words_of(pipeline.requests[-1]) == "in English: a fox"


async def test_a_checkpoint_without_wordings_says_so() -> None:
    """Catches a translation that is tried, and paid for half, where none can be."""
    pipeline = worded(*KOREAN)
    pipeline.checkpoint = ScriptedCheckpoint(prompts={"transcription": PROMPTS["transcription"]})
    async with door(pipeline) as client:
        response = await client.post(TRANSLATIONS, **sent())
    assert response.status_code == 400
    assert "no wording for `translation`" in response.json()["error"]["message"]
    assert not pipeline.requests


@pytest.mark.parametrize(
    ("fields", "param"), [({"language": "ko"}, "language"), ({"stream": "true", "response_format": "srt"}, "response_format")]
)
async def test_wrong_fields_are_named(fields: dict[str, str], param: str) -> None:
    """Catches a field of transcriptions that passes in silence."""
    async with door(worded(*KOREAN)) as client:
        response = await client.post(TRANSLATIONS, **sent(fields))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_a_failure_of_either_half_is_told() -> None:
    """Catches Korean words, or none, with status 200."""
    broken = [Failed(EngineUnavailable("the engine is gone"))]
    for scripts in ([broken], [KOREAN, broken]):
        async with door(scripted(*scripts)) as client:
            assert (await client.post(TRANSLATIONS, **sent())).status_code == 503
    async with door(scripted(KOREAN, [*words(0, "a"), done("length")])) as client:
        response = await client.post(TRANSLATIONS, **sent())
    assert response.status_code == 400 and "translation was cut off" in response.text


async def test_several_utterances_have_their_own_lines() -> None:
    """Catches subtitles that stand over the silence between two voices, and a model that hears both as one."""
    pipeline = scripted([*words(0, "one"), done()], [*words(0, "two"), done()])
    async with door(pipeline) as client:
        body = (await client.post(TRANSCRIPTIONS, **sent({"response_format": "verbose_json"}, INTERVIEW))).json()
    assert body["text"] == "one two"
    lengths = [
        LOADER.speech(MediaSource("file", data=data or b"")).seconds for (data,) in map(recordings_of, pipeline.requests)
    ]
    loud = np.flatnonzero(np.abs(LOADER.speech(MediaSource("file", data=INTERVIEW)).waveform) > 0.02) / 16_000
    gap = int(np.argmax(np.diff(loud)))  # the longest silence between two voices
    segments = body["segments"]
    assert [segment["text"] for segment in segments] == ["one", "two"]
    times = [place for segment in segments for place in (segment["start"], segment["end"])]
    assert times == pytest.approx([loud[0], loud[gap], loud[gap + 1], loud[-1]], abs=0.25)
    assert all(heard >= segment["end"] - segment["start"] for heard, segment in zip(lengths, segments, strict=True))


async def test_several_utterances_are_streamed() -> None:
    """Catches words that run into each other where an utterance ends, and deltas that are not the text."""
    pipeline = scripted([*words(0, "on", "e"), done()], [*words(0, "two"), done()])
    async with door(pipeline) as client:
        events = events_of(await client.post(TRANSCRIPTIONS, **sent({"stream": "true"}, INTERVIEW)))
        translated = events_of(await client.post(TRANSLATIONS, **sent({"stream": "true"}, INTERVIEW)))
    assert [event.get("delta") for event in events] == ["on", "e", " two", None]
    assert (events[-1]["text"], events[-1]["usage"]["total_tokens"]) == ("one two", 200)
    assert [segment["text"] for segment in events[-1]["omni"]["segments"]] == ["one", "two"]
    assert "".join(event.get("delta", "") for event in translated) == translated[-1]["text"] == "two two"


def test_stock_client_chooses_how_to_cut() -> None:
    """Catches an object that a form can only hold in pieces, or as JSON, and that is refused or has no effect."""
    pipeline = scripted(ENGLISH)
    whole = {"type": "server_vad", "silence_duration_ms": 5000}
    with served(pipeline) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for strategy in (whole, "auto"):
            client.audio.transcriptions.create(model=MODEL, file=("a.wav", INTERVIEW), chunking_strategy=strategy)  # type: ignore[call-overload]
        assert len(pipeline.requests) == 3
        form = sent({"chunking_strategy": '{"type": "server_vad", "silence_duration_ms": 5000}'}, INTERVIEW)
        assert httpx.post(url + TRANSCRIPTIONS, **form).status_code == 200
    assert len(pipeline.requests) == 4


async def test_some_utterances_are_heard_at_once() -> None:
    """Catches a long recording that is worked on in one place only, or takes all there are, and work left behind by a fault."""
    silence = np.zeros(16_000, np.float32)
    voice = LOADER.speech(MediaSource("file", data=(MEDIA / NAMES[0]).read_bytes())).waveform
    file = encode("wav", np.concatenate([silence, *[voice, silence] * 6]), 16_000)
    pipeline = worded(*words(0, "one"), Forever())
    async with door(pipeline) as client:
        asking = asyncio.create_task(client.post(TRANSCRIPTIONS, **sent(file=file)))
        while pipeline.running < 4:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert (pipeline.running, len(pipeline.requests)) == (4, 4)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert pipeline.running == 0
    failing = scripted([*words(0, "one"), done()], [Failed(EngineUnavailable("the engine is gone"))], [Forever()])
    async with door(failing) as client:
        assert (await client.post(TRANSCRIPTIONS, **sent(file=file))).status_code == 503
    assert failing.running == 0
