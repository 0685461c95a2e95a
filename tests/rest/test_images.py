"""`POST /v1/images/generations`: one request of the pipeline for each picture, files of the kind asked for."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import PIL.Image
import pytest

from omni_server.errors import ContextOverflow, DecodeFailed, EngineUnavailable, Overloaded
from omni_server.rest.drawing import sized
from omni_server.types import Failed, ImagePreview, ImageProgress, ImageReady, Modality, SpanClosed, SpanOpened
from tests.doubles import Forever, ScriptedPipeline
from tests.rest.scripts import done, door, picture, served, words
from tests.rest.test_chat import left_within
from tests.rest.worded import MODEL, events_of, worded, words_of

URL = "/v1/images/generations"
REPLY = [*words(0, "a fox"), *picture(1), done()]


def opened(data: str | None) -> PIL.Image.Image:
    assert data is not None
    return PIL.Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture(scope="module")
def pipeline() -> ScriptedPipeline:
    return worded(*REPLY)


@pytest.fixture(scope="module")
def base_url(pipeline: ScriptedPipeline) -> Iterator[str]:
    with served(pipeline) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def test_stock_client(client: openai.OpenAI, pipeline: ScriptedPipeline) -> None:
    """Catches a picture that does not arrive, and one that cannot be made again."""
    answer = client.images.generate(prompt="a fox", extra_body={"seed": 7}, user="me", quality="high", moderation="low")
    assert answer.data is not None
    (image,) = answer.data
    assert opened(image.b64_json).format == "PNG"
    assert opened(image.b64_json).getpixel((0, 0)) == (255, 0, 0)
    assert (image.model_extra or {})["omni"] == {"seed": 7, "text": "a fox"}
    assert (answer.size, answer.output_format, answer.background) == ("8x6", "png", "opaque")
    assert answer.usage is not None
    assert answer.usage.model_dump() == {
        "input_tokens": 30,
        "input_tokens_details": {"image_tokens": 9, "text_tokens": 21},
        "output_tokens": 70,
        "output_tokens_details": {"image_tokens": 16, "text_tokens": 54},
        "total_tokens": 100,
    }
    request = pipeline.requests[-1]
    assert (words_of(request), request.modalities) == ("draw a fox", {Modality.TEXT, Modality.IMAGE})
    assert (request.sampling.seed, request.decode.seed) == (7, 7)


async def test_async_client_gets_several(base_url: str, pipeline: ScriptedPipeline) -> None:
    """Catches several pictures that are all the same one, and a usage that counts one of them."""
    pipeline.requests.clear()
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        answer = await client.images.generate(model=MODEL, prompt="여우", n=10, size="auto")
    assert answer.data is not None and answer.usage is not None
    assert len(answer.data) == 10
    assert answer.usage.total_tokens == 1000
    assert len({request.decode.seed for request in pipeline.requests}) == 10
    assert len({request.request_id for request in pipeline.requests}) == 10
    assert {words_of(request) for request in pipeline.requests} == {"여우 그려줘"}


def test_streamed(client: openai.OpenAI) -> None:
    """Catches events that the client's types refuse, or pictures that are missing from the stream."""
    events = list(client.images.generate(model=MODEL, prompt="a fox", n=2, stream=True, partial_images=0))
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert opened(events[0].b64_json).size == (8, 6)
    assert events[1].usage.total_tokens == 100  # type: ignore[union-attr]
    assert (events[0].size, events[0].quality, events[0].background) == ("8x6", "auto", "opaque")


def test_partial_images(client: openai.OpenAI, pipeline: ScriptedPipeline) -> None:
    """Catches previews that do not arrive, that count on over several pictures, or that the client's types refuse."""
    before = pipeline.script
    pipeline.script = tuple(sketched(*REPLY))
    try:
        events = list(client.images.generate(prompt="a fox", n=2, stream=True, partial_images=2, output_format="webp"))
    finally:
        pipeline.script = before
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"] * 2
    assert [event.partial_image_index for event in events if event.type.endswith("partial_image")] == [0, 1, 0, 1]  # type: ignore[union-attr]
    assert opened(events[0].b64_json).format == "WEBP"
    assert opened(events[0].b64_json).size == opened(events[2].b64_json).size == (8, 6)
    assert (events[0].size, events[0].output_format, events[0].background) == ("8x6", "webp", "opaque")
    assert {request.decode.previews for request in pipeline.requests[-2:]} == {2}


async def test_no_partial_images_without_a_stream() -> None:
    """Catches previews that are drawn and thrown away."""
    pipeline = worded(*REPLY)
    async with door(pipeline) as client:
        assert (await client.post(URL, json={"prompt": "fox", "partial_images": 3})).status_code == 200
        assert (await client.post(URL, json={"prompt": "fox", "stream": True})).status_code == 200
    assert [request.decode.previews for request in pipeline.requests] == [0, 0]


async def test_previews_have_the_size_that_was_asked_for() -> None:
    """Catches a preview of one size and a picture of another, which jumps on the client's screen."""
    async with door(worded(*sketched(*REPLY))) as client:
        response = await client.post(URL, json={"prompt": "fox", "size": "32x32", "stream": True, "partial_images": 1})
    assert {opened(event["b64_json"]).size for event in events_of(response)} == {(32, 32)}
    assert {event["size"] for event in events_of(response)} == {"32x32"}


def sketched(*script: Any) -> list[Any]:
    """The script with progress and two previews before each picture."""
    steps: list[Any] = []
    for event in script:
        if isinstance(event, ImageReady):
            for step in (1, 2):
                sketch = PIL.Image.new("RGB", event.image.size, "grey")
                steps += [ImageProgress(event.index, step, 3), ImagePreview(event.index, sketch)]
        steps.append(event)
    return steps


@pytest.mark.parametrize(("format", "compression"), [("png", 100), ("webp", 50), ("webp", None), ("jpeg", 0), ("jpeg", 100)])
def test_kinds_of_file(client: openai.OpenAI, format: Any, compression: int | None) -> None:
    """Catches a file of another kind than the answer says."""
    more: dict[str, Any] = {} if compression is None else {"output_compression": compression}
    answer = client.images.generate(model=MODEL, prompt="fox", output_format=format, response_format="b64_json", **more)
    assert answer.data is not None
    assert opened(answer.data[0].b64_json).format == format.upper()
    assert answer.output_format == format


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status", "param", "expected"),
    [
        ([*words(0, "sorry"), done()], 400, "prompt", "wrote `sorry`"),
        ([SpanOpened(0, Modality.IMAGE), SpanClosed(0, DecodeFailed("gone")), done()], 500, None, "gone"),
        ([Failed(Overloaded("busy"))], 503, None, "busy"),
        ([Failed(ContextOverflow("too long", param="messages"))], 400, "prompt", "too long"),
    ],
)
async def test_no_picture_is_an_error(stream: bool, script: list[Any], status: int, param: str | None, expected: str) -> None:
    """Catches an empty list with status 200: the client would look for a picture that was never drawn."""
    pipeline = worded(*script)
    async with door(pipeline) as client:
        response = await client.post(URL, json={"prompt": "fox", "n": 3, "stream": stream})
    assert response.status_code == status
    assert expected in response.json()["error"]["message"]
    assert response.json()["error"]["param"] == param
    assert pipeline.running == 0


@pytest.mark.parametrize("size", [None, "auto", "1024x1024", "1536x1024", "24x16"])
async def test_sizes(size: str | None) -> None:
    """Catches a size that is promised and not kept, in the answer or in the file."""
    async with door(worded(*REPLY)) as client:
        body = (await client.post(URL, json={"prompt": "fox", "size": size})).json()
    told = "8x6" if size in (None, "auto") else size
    width, height = opened(body["data"][0]["b64_json"]).size
    assert body["size"] == f"{width}x{height}" == told


def test_a_picture_is_cut_and_not_stretched() -> None:
    """Catches a circle that becomes an egg where the size that was asked for has another ratio."""
    striped = PIL.Image.new("RGB", (60, 20), "red")
    striped.paste("blue", (20, 0, 40, 20))
    square = sized(striped, (40, 40))
    assert {square.getpixel((x, 20)) for x in (2, 20, 37)} == {(0, 0, 255)}
    assert sized(striped, None) is striped


@pytest.mark.parametrize(
    ("fields", "param", "expected"),
    [
        ({"prompt": " "}, "prompt", "white space"),
        ({"prompt": None}, "prompt", "string"),
        ({"n": 11}, "n", "less than or equal to 10"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"size": "big"}, "size", "auto"),
        ({"size": "8x8"}, "size", "16 to 3840"),
        ({"size": "1024x256"}, "size", "3 times"),
        ({"response_format": "url", "stream": True}, "response_format", "`b64_json` with `stream`"),
        ({"output_format": "gif"}, "output_format", "'webp'"),
        ({"output_compression": 50}, "output_compression", "webp or jpeg"),
        ({"output_compression": 101, "output_format": "webp"}, "output_compression", "100"),
        ({"partial_images": 4, "stream": True}, "partial_images", "less than or equal to 3"),
        ({"partial_images": -1}, "partial_images", "greater than or equal to 0"),
        ({"background": "transparent"}, "background", "`opaque`"),
        ({"seed": -1}, "seed", "0"),
        ({"frame_count": 3}, "frame_count", "single pictures"),
        ({"svg": {"model": "gpt-9"}}, "svg", "draws pixels"),
        ({"promt": "fox"}, "promt", "did you mean `prompt`?"),
        ({"model": "gpt-9"}, "model", "omni-scripted"),
    ],
)
async def test_wrong_fields_are_named(fields: dict[str, Any], param: str, expected: str) -> None:
    """Catches a wrong field that passes in silence, becomes a 5xx, or is not named."""
    pipeline = worded(*REPLY)
    async with door(pipeline) as client:
        response = await client.post(URL, json={"prompt": "fox"} | fields)
    assert response.status_code == (404 if param == "model" else 400)
    error = response.json()["error"]
    assert error["param"] == param
    assert f"`{param}`" in error["message"]
    assert expected in error["message"]
    assert not pipeline.requests


async def test_failure_midway_is_the_last_event() -> None:
    """Catches a stream of pictures that ends as if all were there."""
    script = iter([REPLY, [Failed(EngineUnavailable("the engine is gone"))]])
    pipeline = worded()
    respond = pipeline.respond

    def one_each(request: Any) -> Any:
        pipeline.script = tuple(next(script))
        return respond(request)

    pipeline.respond = one_each  # type: ignore[method-assign]
    async with door(pipeline) as client:
        events = events_of(await client.post(URL, json={"prompt": "fox", "n": 2, "stream": True}))
    assert list(events[-1]) == ["error"]
    assert (pipeline.running, pipeline.left) == (0, 2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_the_work(stream: bool) -> None:
    """Catches pictures that are drawn for nobody: all of them must stop."""
    pipeline = worded(SpanOpened(0, Modality.IMAGE), Forever())
    with served(pipeline) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=0.5)
        with client, pytest.raises(openai.APITimeoutError):
            client.images.generate(prompt="fox", stream=stream)
        assert left_within(pipeline, 5)


async def test_a_checkpoint_without_wordings_says_so() -> None:
    """Catches a guess at how a model that draws wants to be asked."""
    async with door(ScriptedPipeline(*REPLY)) as client:
        response = await client.post(URL, json={"prompt": "fox"})
    assert response.status_code == 400
    assert "no wording for `picture`" in response.json()["error"]["message"]
