"""The stock `openai` client, sync and async, streamed and not, without any extra code."""

import base64
import io
from collections.abc import Iterator

import openai
import PIL.Image
import pytest

from omni_server.audio_format import to_pcm16
from omni_server.config import MediaLimits, UrlPolicy
from omni_server.errors import EngineUnavailable
from omni_server.fetch import UrlFetcher
from omni_server.media import MediaLoader
from omni_server.types import Failed, Modality, Picture, Speech
from tests.doubles import ScriptedPipeline
from tests.rest.scripts import done, picture, png_url, served, tone, voice, wav_base64, words

REPLY = [*words(0, "A fox ", "for you."), *picture(1), *voice(2, tone(0.3)), *words(3, " Bye."), done()]
MODEL = "omni-scripted"
MESSAGES: list = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Draw this and answer."},
            {"type": "image_url", "image_url": {"url": png_url("blue"), "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": wav_base64(0.5), "format": "wav"}},
        ],
    }
]
SPOKEN: dict = {"modalities": ["text", "audio", "image"], "audio": {"voice": "mint", "format": "pcm16"}}


@pytest.fixture(scope="module")
def pipeline() -> ScriptedPipeline:
    loader = MediaLoader(MediaLimits(1 << 20, 1 << 20, 10), UrlFetcher(UrlPolicy()))
    return ScriptedPipeline(*REPLY, loader=loader)


@pytest.fixture(scope="module")
def base_url(pipeline: ScriptedPipeline) -> Iterator[str]:
    with served(pipeline) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def check_picture(images: list[dict]) -> None:
    url = images[0]["image_url"]["url"]
    image = PIL.Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_plain(client: openai.OpenAI, pipeline: ScriptedPipeline) -> None:
    """Catches media that do not arrive, and an answer that the client's types refuse."""
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, seed=3, **SPOKEN)
    message = answer.choices[0].message
    assert message.content is None
    assert message.audio is not None
    assert message.audio.transcript == "A fox for you. Bye."
    assert base64.b64decode(message.audio.data) == to_pcm16(tone(0.3))
    check_picture(message.model_extra["images"])
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.audio_tokens == 40
    assert answer._request_id
    seen, heard = pipeline.media[-2:]
    assert isinstance(seen, Picture)
    assert seen.image.getpixel((0, 0)) == (0, 0, 255)
    assert isinstance(heard, Speech)
    assert (heard.seconds, heard.sample_rate) == (0.5, 16_000)


def test_streamed(client: openai.OpenAI) -> None:
    """Catches chunks that only a patched client could read."""
    text, sound, images, ends = "", "", [], []
    for chunk in client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **SPOKEN
    ):
        if not chunk.choices:
            assert chunk.usage is not None
            continue
        delta = chunk.choices[0].delta
        if delta.audio is not None:
            text += delta.audio.transcript or ""
            sound += delta.audio.data or ""
        images += (delta.model_extra or {}).get("images", [])
        ends += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
    assert text == "A fox for you. Bye."
    assert base64.b64decode(sound) == to_pcm16(tone(0.3))
    check_picture(images)
    assert ends == ["stop"]


def test_accumulated(client: openai.OpenAI) -> None:
    """Catches ids that are joined to themselves, numbers that are added up, and lists without an index."""
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, **SPOKEN) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.audio is not None
    assert message.audio.id.count("audio_") == 1
    assert base64.b64decode(message.audio.data) == to_pcm16(tone(0.3))
    extra = message.model_extra or {}
    check_picture(extra["images"])
    assert extra["omni"]["segments"][0] == {"type": "text", "index": 0, "characters": 14}


async def test_async(base_url: str) -> None:
    """Catches a difference between the two clients, and the follow-up turn that names the voice by its id."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, **SPOKEN)
        audio = answer.choices[0].message.audio
        assert audio is not None
        spoken = {"role": "assistant", "audio": {"id": audio.id}}
        history: list = [*MESSAGES, spoken, {"role": "user", "content": "And?"}]
        pieces = []
        async for chunk in await client.chat.completions.create(model=MODEL, messages=history, stream=True):
            pieces.append(chunk.choices[0].delta.content or "")
    assert "".join(pieces) == "A fox for you. Bye."


def test_whole_answer_as_history(client: openai.OpenAI, pipeline: ScriptedPipeline) -> None:
    """Catches a server that cannot read its own answer when a client appends it as it is."""
    message = client.chat.completions.create(model=MODEL, messages=MESSAGES, **SPOKEN).choices[0].message
    history: list = [*MESSAGES, message.model_dump(), {"role": "user", "content": "And?"}]
    client.chat.completions.create(model=MODEL, messages=history)
    assert pipeline.requests[-1].messages[1].parts[0].text == "A fox for you. Bye."  # type: ignore[union-attr]


def test_models_and_errors(client: openai.OpenAI) -> None:
    """Catches errors that arrive as the wrong exception or without their field."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError) as caught:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        bad: list = [{"role": "user", "content": [image]}]
        client.chat.completions.create(model=MODEL, messages=bad)
    assert caught.value.param == "messages[0].content[0].image_url.url"


def test_failure_midway() -> None:
    """Catches a failure that the client takes for a complete answer."""
    pipeline = ScriptedPipeline(*words(0, "Hi"), Failed(EngineUnavailable("the engine is gone")))
    with served(pipeline) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="the engine is gone"):
            list(chunks)
    assert Modality.TEXT in pipeline.requests[0].modalities
