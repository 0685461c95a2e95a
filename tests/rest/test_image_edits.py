"""`POST /v1/images/edits` and `/variations`: pictures of a form or of JSON, and words, become pictures."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import PIL.Image
import pytest

from omni_server.config import Settings
from omni_server.types import Modality
from tests.doubles import ScriptedPipeline
from tests.rest.scripts import done, door, picture, png_url, served, words
from tests.rest.worded import MODEL, events_of, pictures_of, worded, words_of

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
REPLY = [*words(0, "a fox"), *picture(1), done()]


def png(colour: str = "blue") -> bytes:
    return base64.b64decode(png_url(colour).partition(",")[2])


@pytest.fixture(scope="module")
def pipeline() -> ScriptedPipeline:
    return worded(*REPLY)


@pytest.fixture(scope="module")
def client(pipeline: ScriptedPipeline) -> Iterator[openai.OpenAI]:
    with served(pipeline) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_stock_client_edits(client: openai.OpenAI, pipeline: ScriptedPipeline) -> None:
    """Catches a picture or a prompt that does not reach the model, or does so in another wording than was sent."""
    answer = client.images.edit(model=MODEL, image=("a.png", png()), prompt="make it red", extra_body={"seed": 3})
    assert answer.data is not None and answer.usage is not None
    (image,) = answer.data
    assert PIL.Image.open(io.BytesIO(base64.b64decode(image.b64_json or ""))).getpixel((0, 0)) == (255, 0, 0)
    assert answer.usage.input_tokens_details.image_tokens == 9
    request = pipeline.requests[-1]
    assert (pictures_of(request), words_of(request)) == ([png()], "make it red")
    assert request.modalities == {Modality.TEXT, Modality.IMAGE}
    assert request.decode.seed == 3


def test_stock_client_edits_several(client: openai.OpenAI, pipeline: ScriptedPipeline) -> None:
    """Catches a list of pictures that is refused, loses one, or changes their order."""
    client.images.edit(image=[("a.png", png("blue")), ("b.png", png("green"))], prompt="both", n=2, size="512x512")
    assert [pictures_of(request) for request in pipeline.requests[-2:]] == [[png("blue"), png("green")]] * 2


def test_stock_client_streams_an_edit(client: openai.OpenAI) -> None:
    """Catches events under the names of another resource."""
    events = list(client.images.edit(image=("a.png", png()), prompt="red", stream=True))
    assert [event.type for event in events] == ["image_edit.completed"]
    assert events[0].usage.total_tokens == 100  # type: ignore[union-attr]


def test_stock_client_varies(client: openai.OpenAI, pipeline: ScriptedPipeline) -> None:
    """Catches a wording that the checkpoint does not know."""
    answer = client.images.create_variation(image=("a.png", png()), n=2, size="256x256", response_format="b64_json")
    assert answer.data is not None
    assert [bool(image.b64_json) for image in answer.data] == [True, True]
    assert words_of(pipeline.requests[-1]) == "draw this again"
    assert pictures_of(pipeline.requests[-1]) == [png()]


async def test_json_edit() -> None:
    """Catches a body of JSON that is taken for a broken form, or URLs whose faults do not name their place."""
    pipeline = worded(*REPLY)
    async with door(pipeline) as client:
        body = {"prompt": "red", "images": [{"image_url": png_url()}, {"image_url": "https://a.example/b.png"}]}
        assert (await client.post(EDITS, json=body)).status_code == 200
        streamed = await client.post(EDITS, json={**body, "stream": True})
    assert [event["type"] for event in events_of(streamed)] == ["image_edit.completed"]
    request = pipeline.requests[0]
    assert pictures_of(request) == [png_url(), "https://a.example/b.png"]
    sources = [part.source.param for part in request.messages[0].parts[:2]]  # type: ignore[union-attr]
    assert sources == ["images[0].image_url", "images[1].image_url"]


FILE = {"image": ("a.png", png())}


@pytest.mark.parametrize(
    ("path", "sent", "param", "expected"),
    [
        (EDITS, {"data": {"prompt": "red"}, "files": {"other": ("a.png", png())}}, "other", "`image`, `mask`"),
        (EDITS, {"files": FILE}, "prompt", "missing"),
        (EDITS, {"data": {"prompt": "red"}, "files": {"user": (None, "me")}}, "image", "missing"),
        (EDITS, {"data": {"prompt": "red", "image": "https://a.example"}, "files": {"x": (None, "y")}}, "image", "`filename`"),
        (EDITS, {"data": {"prompt": "red"}, "files": FILE | {"mask": ("m.png", png())}}, "mask", "draws the whole picture"),
        (EDITS, {"data": {"prompt": "red", "n": "11"}, "files": FILE}, "n", "10"),
        (EDITS, {"data": {"prompt": "red", "promt": "x"}, "files": FILE}, "promt", "did you mean `prompt`?"),
        (EDITS, {"data": {"prompt": "red", "background": "transparent"}, "files": FILE}, "background", "`opaque`"),
        (EDITS, {"json": {"prompt": "red", "images": []}}, "images", "at least 1"),
        (EDITS, {"json": {"prompt": "red"}}, "images", "missing"),
        (
            EDITS,
            {"json": {"prompt": "red", "images": [{"image_url": "x"}], "mask": {"image_url": "y"}}},
            "mask",
            "whole picture",
        ),
        (EDITS, {"json": {"prompt": "red", "images": [{"file_id": "f"}]}}, "images[0].image_url", "missing"),
        (VARIATIONS, {"files": [("image", FILE["image"]), ("image", FILE["image"])]}, None, "Too many files"),
        (VARIATIONS, {"data": {"prompt": "red"}, "files": FILE}, "prompt", "not a field"),
        (VARIATIONS, {"data": {"model": "gpt-9"}, "files": FILE}, "model", "omni-scripted"),
    ],
)
async def test_wrong_fields_are_named(path: str, sent: dict[str, Any], param: str | None, expected: str) -> None:
    """Catches a wrong field that passes in silence, becomes a 5xx, or is not named."""
    pipeline = worded(*REPLY)
    async with door(pipeline) as client:
        response = await client.post(path, **sent)
    assert response.status_code == (404 if param == "model" else 400)
    error = response.json()["error"]
    assert error["param"] == param
    assert expected in error["message"]
    assert not pipeline.requests


async def test_no_picture_is_an_error_of_the_picture() -> None:
    """Catches an empty list with status 200, or a variation that blames a prompt which its client never sent."""
    async with door(worded(*words(0, "sorry"), done())) as client:
        edit = await client.post(EDITS, data={"prompt": "red"}, files=FILE)
        variation = await client.post(VARIATIONS, files=FILE)
    assert (edit.status_code, edit.json()["error"]["param"]) == (400, "prompt")
    assert (variation.status_code, variation.json()["error"]["param"]) == (400, "image")


async def test_a_checkpoint_without_wordings_edits_and_does_not_vary() -> None:
    """Catches a guess at how a model that draws wants to be asked."""
    async with door(ScriptedPipeline(*REPLY)) as client:
        assert (await client.post(EDITS, data={"prompt": "red"}, files=FILE)).status_code == 200
        response = await client.post(VARIATIONS, files=FILE)
    assert response.status_code == 400
    assert "no wording for `variation`" in response.json()["error"]["message"]


async def test_body_limit() -> None:
    """Catches pictures that are read into memory before their size is looked at."""
    async with door(worded(*REPLY), Settings(max_body_bytes=200)) as client:
        assert (await client.post(EDITS, data={"prompt": "red"}, files=FILE)).status_code == 413
        assert (await client.post(EDITS, json={"prompt": "red" * 99})).status_code == 413
