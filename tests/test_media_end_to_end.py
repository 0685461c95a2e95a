"""Pictures and sound over REST on the embedded checkpoint: the stock `openai` client, a real engine, a real socket."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import PIL.Image
import pytest

from omni_server.instruction import language_of
from tests.conftest import RealServer
from tests.rest.test_translations import INTERVIEW

MEDIA = Path(__file__).parent.parent / "clients" / "examples" / "media"


@pytest.fixture
async def client(server: RealServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def opened(data: str | None) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(data or "")))


async def test_the_same_seed_draws_the_same_picture_at_any_size(client: openai.AsyncOpenAI) -> None:
    """Would catch a seed that does not reach both the backbone and the decoder, or pictures of a request in another order."""
    asked = {"prompt": "a fox", "extra_body": {"seed": 5}}
    several = await client.images.generate(n=3, **asked)  # type: ignore[call-overload]
    large = await client.images.generate(size="256x256", **asked)  # type: ignore[call-overload]
    last = await client.images.generate(prompt="a fox", extra_body={"seed": 7})
    pictures = [opened(image.b64_json) for image in several.data]
    assert np.array_equal(pictures[0].resize((256, 256), PIL.Image.Resampling.LANCZOS), opened(large.data[0].b64_json))
    assert last.data is not None and np.array_equal(pictures[2], opened(last.data[0].b64_json))


async def test_edits_and_variations_draw(client: openai.AsyncOpenAI) -> None:
    """Would catch a picture that the prompt has no place for, or a wording that the model answers without drawing."""
    banana = ("banana.png", (MEDIA / "banana.png").read_bytes())
    edit = await client.images.edit(image=banana, prompt="draw this in the flat style")
    variation = await client.images.create_variation(image=banana, n=2, extra_body={"seed": 1})
    assert edit.data is not None and variation.data is not None and edit.usage is not None
    assert edit.usage.input_tokens_details.image_tokens > 36
    for image in (*edit.data, *variation.data):
        assert opened(image.b64_json).size == (128, 128)
        assert np.asarray(opened(image.b64_json)).std() > 20


async def test_a_url_leads_to_the_picture(client: openai.AsyncOpenAI) -> None:
    """Would catch a URL that only holds in tests."""
    answer = await client.images.generate(prompt="a fox", response_format="url", output_format="jpeg")
    assert answer.data is not None and answer.data[0].url is not None
    async with httpx.AsyncClient() as plain:
        file = (await plain.get(answer.data[0].url)).content
    assert PIL.Image.open(io.BytesIO(file)).format == "JPEG"


async def test_a_conversation_is_written_down_with_times(client: openai.AsyncOpenAI) -> None:
    """Would catch a real recording whose voices are not told apart, or whose words the model makes up from silence."""
    answer: Any = await client.audio.transcriptions.create(
        model="omni-tiny", file=("a.wav", INTERVIEW), response_format="verbose_json"
    )
    assert len(answer.segments) == 2
    assert all(0.5 < before.end < after.start < answer.duration for before, after in pairwise(answer.segments))
    assert answer.text == " ".join(segment.text for segment in answer.segments)


async def test_korean_is_translated(client: openai.AsyncOpenAI) -> None:
    """Would catch a wording that this checkpoint answers in Korean."""
    recording = ("ko.flac", (MEDIA / "ko-name.flac").read_bytes())
    heard = await client.audio.transcriptions.create(model="omni-tiny", file=recording)
    translated = await client.audio.translations.create(model="omni-tiny", file=recording)
    print(heard.text, "->", translated.text)
    assert language_of(heard.text) == "ko"
    assert translated.text and language_of(translated.text) == "en"
