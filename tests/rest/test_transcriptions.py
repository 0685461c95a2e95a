"""`POST /v1/audio/transcriptions`: a file of a form, what is heard in it, in every form of answer."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from omni_server.audio_format import encode
from omni_server.config import MediaLimits, Settings, UrlPolicy
from omni_server.errors import ContextOverflow, EngineUnavailable
from omni_server.fetch import UrlFetcher
from omni_server.media import MediaLoader
from omni_server.types import Failed, Modality, SpanOpened, Speech, TextDelta
from tests.doubles import Forever, ScriptedPipeline
from tests.rest.scripts import SAMPLE_RATE, done, door, served, tone, words
from tests.rest.test_chat import left_within
from tests.rest.worded import MODEL, events_of, recordings_of, worded, words_of

URL = "/v1/audio/transcriptions"
REPLY = [*words(0, "draw ", "a fox"), done()]
WAV = encode("wav", tone(1.5), SAMPLE_RATE)
USAGE = {
    "type": "tokens",
    "input_tokens": 30,
    "input_token_details": {"audio_tokens": 5, "text_tokens": 25},
    "output_tokens": 70,
    "total_tokens": 100,
}


@pytest.fixture(scope="module")
def pipeline() -> ScriptedPipeline:
    return worded(*REPLY, loader=MediaLoader(MediaLimits(1 << 20, 1 << 20, 10), UrlFetcher(UrlPolicy())))


@pytest.fixture(scope="module")
def base_url(pipeline: ScriptedPipeline) -> Iterator[str]:
    with served(pipeline) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def test_stock_client(client: openai.OpenAI, pipeline: ScriptedPipeline) -> None:
    """Catches a recording that does not arrive as it was sent, and a transcript that is sampled by default."""
    answer = client.audio.transcriptions.create(model=MODEL, file=("speech.wav", WAV))
    assert answer.text == "draw a fox"
    assert answer.usage is not None
    assert answer.usage.model_dump() == USAGE
    request, heard = pipeline.requests[-1], pipeline.media[-1]
    assert isinstance(heard, Speech)
    assert heard.seconds == 1.5
    assert recordings_of(request) == [WAV]
    assert (words_of(request), request.modalities) == ("write down what you hear", {Modality.TEXT})
    assert request.sampling.temperature == 0.0


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("text", "draw a fox"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,500\ndraw a fox\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\ndraw a fox\n\n"),
    ],
)
def test_forms_of_text(client: openai.OpenAI, format: Any, expected: str) -> None:
    """Catches subtitles that no player reads, and text in quotation marks."""
    assert client.audio.transcriptions.create(model=MODEL, file=("a.wav", WAV), response_format=format) == expected


def test_verbose(client: openai.OpenAI) -> None:
    """Catches a length that is not the recording's, and likelihoods that nobody measured."""
    answer = client.audio.transcriptions.create(
        model=MODEL,
        file=("a.wav", WAV),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        language="ko",
        temperature=0.5,
        prompt="animals",
    )
    assert (answer.language, answer.duration, answer.text) == ("ko", 1.5, "draw a fox")
    assert answer.segments is not None
    (segment,) = answer.segments
    assert (segment.start, segment.end, segment.text, segment.temperature) == (0.0, 1.5, "draw a fox", 0.5)
    assert segment.avg_logprob is None


async def test_async_client_streams(base_url: str, pipeline: ScriptedPipeline) -> None:
    """Catches deltas that are not the text, and a language that does not reach the wording."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        stream = await client.audio.transcriptions.create(
            model=MODEL, file=("a.wav", WAV), stream=True, language="ko", temperature=0.25
        )
        events = [event.model_dump(exclude_none=True) async for event in stream]
    assert [event.get("delta") for event in events] == ["draw ", "a fox", None]
    segments = [{"start": 0.0, "end": 1.5, "text": "draw a fox"}]
    done = {"type": "transcript.text.done", "text": "draw a fox", "usage": USAGE}
    assert events[-1] == {**done, "omni": {"segments": segments}}
    assert words_of(pipeline.requests[-1]) == "들은 것을 적어줘"
    assert pipeline.requests[-1].sampling.temperature == 0.25


def test_damaged_recording(client: openai.OpenAI) -> None:
    """Catches a bad file that becomes a 5xx, or an error without its field."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model=MODEL, file=("a.wav", b"RIFF but not really a wav"))
    assert caught.value.param == "file"


async def test_silence_is_no_cue() -> None:
    """Catches a subtitle without words."""
    async with door(worded(*words(0, ""), done())) as client:
        for format, expected in (("srt", ""), ("vtt", "WEBVTT\n\n")):
            form = {"model": MODEL, "response_format": format}
            assert (await client.post(URL, data=form, files={"file": ("a.wav", WAV)})).text == expected


@pytest.mark.parametrize(
    ("fields", "param", "expected"),
    [
        ({"language": "fr"}, "language", "`en`, `ko`"),
        ({"temperature": "2"}, "temperature", "less than or equal to 1"),
        ({"temperature": "nan"}, "temperature", "finite"),
        ({"temperature": "warm"}, "temperature", "number"),
        ({"response_format": "diarized_json"}, "response_format", "'vtt'"),
        ({"response_format": "srt", "stream": "true"}, "response_format", "with `stream`"),
        ({"timestamp_granularities[]": "word", "response_format": "verbose_json"}, "timestamp_granularities[][0]", "'segment'"),
        ({"timestamp_granularities[]": "segment"}, "response_format", "`verbose_json`"),
        ({"include[]": "logprobs"}, "include[]", "not measured"),
        ({"known_speaker_names[]": "ann"}, "known_speaker_names[]", "not told apart"),
        ({"chunking_strategy": "server_vad"}, "chunking_strategy", "expected 'auto'"),
        ({"chunking_strategy": "{}"}, "chunking_strategy.type", "missing"),
        (
            {"chunking_strategy[type]": "server_vad", "chunking_strategy[treshold]": "1"},
            "chunking_strategy.treshold",
            "not a field",
        ),
        ({"chunking_strategy": "auto", "chunking_strategy[type]": "server_vad"}, "chunking_strategy", "one of them"),
        ({"langauge": "ko"}, "langauge", "did you mean `language`?"),
        ({"model": ["a", "b"]}, "model", "twice"),
        ({"model": "gpt-9"}, "model", "omni-scripted"),
    ],
)
async def test_wrong_fields_are_named(fields: dict[str, Any], param: str, expected: str) -> None:
    """Catches a wrong field that passes in silence, becomes a 5xx, or is not named."""
    pipeline = worded(*REPLY)
    async with door(pipeline) as client:
        response = await client.post(URL, data={"model": MODEL} | fields, files={"file": ("a.wav", WAV)})
    assert response.status_code == (404 if fields.get("model") == "gpt-9" else 400)
    error = response.json()["error"]
    assert error["param"] == param
    assert expected in error["message"]
    assert not pipeline.requests


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"json": {"model": MODEL}}, "`application/json`"),
        (
            {"files": {"flie": ("a.wav", WAV)}, "data": {"model": MODEL}},
            "`flie` is a file; the files of this",
        ),
        ({"files": {"model": (None, MODEL), "file": (None, "text")}}, "`filename`"),
        ({"files": {"model": ("m", b"x"), "file": ("a.wav", WAV)}}, "Too many files"),
        ({"files": {"file": ("a.wav", WAV)}}, "`model` is missing"),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "form"),
        ({"content": b"--x--", "headers": {"content-type": "multipart/form-data"}}, "form"),
    ],
)
async def test_bodies_that_are_no_form(request_: dict[str, Any], expected: str) -> None:
    """Catches a traceback where a sentence is deserved."""
    async with door(worded(*REPLY)) as client:
        response = await client.post(URL, **request_)
    assert response.status_code == 400
    assert expected in response.json()["error"]["message"]


async def test_body_limit() -> None:
    """Catches a recording that is read into memory before its size is looked at."""
    async with door(worded(*REPLY), Settings(max_body_bytes=4000)) as client:
        response = await client.post(URL, data={"model": MODEL}, files={"file": ("a.wav", WAV)})
    assert response.status_code == 413


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_failures(stream: str) -> None:
    """Catches half a transcript that ends as if all were well, and errors that name a conversation's fields."""
    form = {"data": {"model": MODEL, "stream": stream}, "files": {"file": ("a.wav", WAV)}}
    begun = [SpanOpened(0, Modality.TEXT), TextDelta(0, "draw")]
    async with door(worded(*begun, Failed(EngineUnavailable("the engine is gone")))) as client:
        response = await client.post(URL, **form)
        error = events_of(response)[-1]["error"] if stream == "true" else response.json()["error"]
    assert error["message"] == "the engine is gone"
    assert response.status_code == (200 if stream == "true" else 503)
    async with door(worded(*words(0, "fox fox"), done("length"))) as client:
        response = await client.post(URL, **form)
        assert "context_length_exceeded" in response.text and "cut off" in response.text
        assert response.status_code == (200 if stream == "true" else 400)
    async with door(worded(refusal=ContextOverflow("too long", param="messages"))) as client:
        assert (await client.post(URL, **form)).json()["error"]["param"] == "file"
    async with door(ScriptedPipeline(*REPLY)) as client:
        assert "no wording for `transcription`" in (await client.post(URL, **form)).json()["error"]["message"]


def test_a_client_that_goes_away_ends_the_work() -> None:
    """Catches work that goes on for nobody."""
    pipeline = worded(*words(0, "draw"), Forever())
    with served(pipeline) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=0.5)
        with client, pytest.raises(openai.APITimeoutError):
            client.audio.transcriptions.create(model=MODEL, file=("a.wav", WAV))
        assert left_within(pipeline, 5)


async def test_openapi_tells_the_form() -> None:
    """Catches a schema without the file, which generated clients live on."""
    async with door(worded()) as client:
        document = (await client.get("/openapi.json")).json()
    told = document["paths"][URL]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    schema = document["components"]["schemas"][told["$ref"].rpartition("/")[2]]
    assert {"file", "model"} <= set(schema["properties"])
    assert schema["required"] == ["file", "model"]


async def test_an_empty_language_is_none() -> None:
    """Catches voice agents that are refused because they leave the language to the server by sending an empty one."""
    async with door(worded(*REPLY)) as client:
        form = {"model": MODEL, "language": ""}
        assert (await client.post(URL, data=form, files={"file": ("a.wav", WAV)})).status_code == 200
