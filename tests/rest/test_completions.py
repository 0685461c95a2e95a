"""`POST /v1/completions`: what it means for the pipeline, the shape of its answers, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from omni_server.errors import EngineUnavailable
from omni_server.types import Failed, Modality, Score, SpanClosed, SpanOpened, TextDelta
from tests.doubles import ScriptedPipeline
from tests.rest.scripts import done, door, served, words

URL = "/v1/completions"
SCORED = (
    SpanOpened(0, Modality.TEXT),
    TextDelta(0, "Hi", (Score("Hi", -0.5, (("Hi", -0.5), ("Ho", float("-inf")))),)),
    TextDelta(0, " you", (Score(" y", -1.0), Score("ou", -2.0))),
    SpanClosed(0),
    done("length"),
)


def asking(**fields: Any) -> dict[str, Any]:
    return {"model": "omni-scripted", "prompt": "a fox", **fields}


def test_the_stock_client_reads_both_ways() -> None:
    """Would catch an answer or a chunk that only a patched client could read, and a stream that says something else."""
    with served(ScriptedPipeline(*SCORED)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        whole = client.completions.create(model="omni-scripted", prompt="a fox", logprobs=2)
        options: Any = {"stream": True, "logprobs": 2, "stream_options": {"include_usage": True}}
        chunks = list(client.completions.create(model="omni-scripted", prompt="a fox", **options))
    (choice,) = whole.choices
    assert (choice.text, choice.finish_reason, whole.object) == ("Hi you", "length", "text_completion")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["Hi", " y", "ou"]
    assert choice.logprobs.text_offset == [0, 2, 4]
    assert choice.logprobs.top_logprobs is not None
    assert choice.logprobs.top_logprobs[0] == {"Hi": -0.5, "Ho": -9999.0}
    assert "".join(piece.text for chunk in chunks for piece in chunk.choices) == "Hi you"
    told = [piece.logprobs for chunk in chunks for piece in chunk.choices if piece.logprobs]
    assert [offset for some in told for offset in some.text_offset or []] == [0, 2, 4]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage and whole.usage is not None
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_prompts_and_choices_in_order() -> None:
    """Would catch answers of one prompt under the index of another, a prompt counted per choice, or ids read as words."""
    pipeline = ScriptedPipeline(*words(0, "Hi"), done())
    async with door(pipeline) as client:
        body = (await client.post(URL, json=asking(prompt=[[1, 2], [3]], n=2, seed=7))).json()
    asked = {request.request_id: request for request in pipeline.requests}
    assert len(asked) == 4
    verbatim = {(request.verbatim, request.sampling.seed) for request in asked.values()}
    assert verbatim == {((1, 2), 7), ((1, 2), 8), ((3,), 7), ((3,), 8)}
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (2 * 30, 4 * 70)


@pytest.mark.parametrize(
    ("prompt", "verbatim"),
    [("a fox", ["a fox"]), (["a", "b"], ["a", "b"]), ([5, 6], [(5, 6)]), ([[5], [6, 7]], [(5,), (6, 7)])],
)
async def test_every_form_of_prompt(prompt: Any, verbatim: list[Any]) -> None:
    """Would catch a list of ids that is taken for several prompts, and a limit other than OpenAI's where none is given."""
    pipeline = ScriptedPipeline(*words(0, "Hi"), done())
    async with door(pipeline) as client:
        assert (await client.post(URL, json=asking(prompt=prompt))).status_code == 200
    assert [request.verbatim for request in pipeline.requests] == verbatim
    assert pipeline.requests[0].sampling.max_tokens == 16
    assert pipeline.requests[0].messages == ()


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": None}, "prompt", "token ids"),
        ({"prompt": ["a", 5]}, "prompt[1]", "string"),
        ({"prompt": ["a"] * 33}, "prompt", "at most 32"),
        ({"echo": True}, "echo", "not supported by this server"),
        ({"suffix": "x"}, "suffix", "not supported by this server"),
        ({"best_of": 3}, "best_of", "less than or equal to 1"),
        ({"logprobs": 6}, "logprobs", "less than or equal to 5"),
        ({"max_token": 1}, "max_token", "did you mean `max_tokens`"),
        ({"model": "gpt-9"}, "model", "`gpt-9`"),
    ],
)
async def test_refusals_name_the_field(fields: dict[str, Any], param: str, says: str) -> None:
    """Would catch a field that is dropped in silence, or an error that does not say where it is."""
    pipeline = ScriptedPipeline()
    async with door(pipeline) as client:
        response = await client.post(URL, json=asking(**fields))
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == param
    assert says in response.json()["error"]["message"]
    assert not pipeline.requests


async def test_failure_midway_is_a_line() -> None:
    """Would catch a stream that ends as if all were well."""
    script = (SpanOpened(0, Modality.TEXT), TextDelta(0, "Hi"), Failed(EngineUnavailable("the engine is gone")))
    async with door(ScriptedPipeline(*script)) as client:
        streamed = await client.post(URL, json=asking(stream=True))
        plain = await client.post(URL, json=asking())
    last = json.loads(streamed.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "engine_unavailable"
    assert plain.status_code == 503
