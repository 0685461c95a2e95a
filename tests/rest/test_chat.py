"""`POST /v1/chat/completions` through the app: statuses, errors midway, limits, and clients that leave."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from omni_server.config import Settings
from omni_server.errors import EngineUnavailable, MediaError, Overloaded
from omni_server.types import Failed, Modality, SpanOpened, TextDelta
from tests.doubles import Forever, ScriptedPipeline
from tests.rest.scripts import ask, done, door, served, words

URL = "/v1/chat/completions"


def lines_of(response: httpx.Response) -> list[Any]:
    found = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in found]


async def test_streamed_lines() -> None:
    """Catches anything between the chunks that a plain SSE reader cannot take, and a missing `[DONE]`."""
    async with door(ScriptedPipeline(*words(0, "Hi"), done())) as client:
        response = await client.post(URL, json=ask(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = lines_of(response)
    assert lines[-1] == "[DONE]"
    assert {line["id"] for line in lines[:-1]} == {lines[0]["id"]}
    assert {line["object"] for line in lines[:-1]} == {"chat.completion.chunk"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("early", [False, True])
async def test_errors_before_the_first_byte_are_statuses(stream: bool, early: bool) -> None:
    """Catches a refused request that a streaming client sees as status 200."""
    error = MediaError("`messages[0]` is bad", param="messages[0]")
    pipeline = ScriptedPipeline(refusal=error) if early else ScriptedPipeline(Failed(error))
    async with door(pipeline) as client:
        response = await client.post(URL, json=ask(stream=stream))
    assert response.status_code == 400
    assert response.json() == {
        "error": {
            "message": "`messages[0]` is bad",
            "type": "invalid_request_error",
            "param": "messages[0]",
            "code": "invalid_media",
        }
    }
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("fault", [Failed(EngineUnavailable("the engine is gone")), RuntimeError("a bug")])
async def test_errors_midway_are_lines(fault: Any) -> None:
    """Catches a stream that ends as if all were well."""
    async with door(ScriptedPipeline(SpanOpened(0, Modality.TEXT), TextDelta(0, "Hi"), fault)) as client:
        response = await client.post(URL, json=ask(stream=True))
    lines = lines_of(response)
    assert list(lines[-1]) == ["error"]
    assert lines[-1]["error"]["type"] == "server_error"
    assert "[DONE]" not in lines
    assert "a bug" not in response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices(stream: bool) -> None:
    """Catches choices that all say the same, a prompt that is counted once per choice, and chunks of no named choice."""
    pipeline = ScriptedPipeline(*words(0, "Hi"), done())
    async with door(pipeline) as client:
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        response = await client.post(URL, json=ask(n=3, seed=5, **options))
    assert sorted(request.sampling.seed or 0 for request in pipeline.requests) == [5, 6, 7]
    assert len({request.request_id for request in pipeline.requests}) == 3
    lines = lines_of(response)[:-1] if stream else [response.json()]
    assert {choice["index"] for line in lines for choice in line["choices"]} == {0, 1, 2}
    (usage,) = [line["usage"] for line in lines if line.get("usage")]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (30, 210)
    ends = [choice for line in lines for choice in line["choices"] if choice["finish_reason"]]
    assert len(ends) == 3


async def test_failure_of_a_plain_answer() -> None:
    """Catches half an answer with status 200."""
    async with door(ScriptedPipeline(*words(0, "Hi"), Failed(Overloaded("the queue is full")))) as client:
        response = await client.post(URL, json=ask())
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("announced", [True, False])
async def test_body_limit(announced: bool) -> None:
    """Catches a body that is read into memory before its size is looked at."""
    body = json.dumps(ask("x" * 5000)).encode()

    async def pieces() -> Any:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    pipeline = ScriptedPipeline(*words(0, "Hi"), done())
    async with door(pipeline, Settings(max_body_bytes=4000)) as client:
        response = await client.post(URL, content=body if announced else pieces())
    assert response.status_code == 413
    assert "4000" in response.json()["error"]["message"]
    assert not pipeline.requests


async def test_unknown_model_is_404() -> None:
    """Catches a misspelt model that is served by another one."""
    async with door(ScriptedPipeline()) as client:
        response = await client.post(URL, json=ask(model="gpt-9"))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def left_within(pipeline: ScriptedPipeline, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not pipeline.left:
        time.sleep(0.01)
    return pipeline.left == 1 and pipeline.running == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_the_work(stream: bool) -> None:
    """Catches work that goes on for nobody: here the reply never comes, so only the disconnect can end it."""
    pipeline = ScriptedPipeline(SpanOpened(0, Modality.TEXT), TextDelta(0, "Hi"), Forever())
    with served(pipeline) as url, httpx.Client(base_url=url) as client:
        if stream:
            with client.stream("POST", URL, json=ask(stream=True)) as response:
                lines = response.iter_lines()
                assert next(lines).startswith("data: ")
                assert pipeline.running == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(URL, json=ask(), timeout=0.5)
        assert left_within(pipeline, 5)


async def test_leaving_is_complete_before_the_answer_ends() -> None:
    """Catches a request that is answered while its clean-up still waits: the next one would find the slot taken."""
    pipeline = ScriptedPipeline(*words(0, "Hi"), done())
    async with door(pipeline) as client:
        await asyncio.gather(*(client.post(URL, json=ask(stream=bool(number % 2))) for number in range(4)))
    assert (pipeline.left, pipeline.running) == (4, 0)
