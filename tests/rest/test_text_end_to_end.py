"""Chat, completions and responses on the real engine, through the stock client: what only an engine can show."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import PIL.Image
import pytest

from omni.v1 import content_pb2, omni_service_pb2
from omni_server.text import TextCodec
from tests.conftest import RealServer
from tests.rpc.doors import rpc_client

MODEL = "omni-tiny"
MULTIPLE = {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 3}}}


@pytest.fixture
async def client(server: RealServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


async def chat(client: openai.AsyncOpenAI, words: str, **more: Any) -> Any:
    return await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": words}], **more)


async def test_choices_of_one_seed(client: openai.AsyncOpenAI) -> None:
    """Would catch choices that share a seed, and a first choice that is not the answer of `n: 1`."""
    options: Any = {"seed": 3, "temperature": 2.0, "top_p": 1.0, "max_tokens": 12}
    alone = await chat(client, "what is a fox?", **options)
    several = await chat(client, "what is a fox?", n=3, **options)
    texts = [choice.message.content for choice in several.choices]
    assert texts[0] == alone.choices[0].message.content
    assert len(set(texts)) > 1
    assert several.usage.prompt_tokens == alone.usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_likelihoods(client: openai.AsyncOpenAI, stream: bool) -> None:
    """Would catch likelihoods that belong to other tokens than those of the text, or none on one of the two ways."""
    reply = await chat(client, "what is a fox?", temperature=0, logprobs=True, top_logprobs=2, stream=stream)
    choices = [chunk.choices[0] async for chunk in reply] if stream else reply.choices
    text = "".join((choice.delta if stream else choice.message).content or "" for choice in choices)
    scores = [score for choice in choices if choice.logprobs for score in choice.logprobs.content]
    assert "".join(score.token for score in scores) == text != ""
    for score in scores:
        assert len(score.top_logprobs) == 2 and score.logprob <= 0
        assert score.top_logprobs[0].logprob >= score.top_logprobs[1].logprob
        assert score.token == score.top_logprobs[0].token  # at temperature 0 the likeliest is taken


async def test_a_schema_holds(client: openai.AsyncOpenAI) -> None:
    """Would catch a schema that is accepted and then not followed, or media tokens spelt out inside of JSON."""
    kinds = {"animal": {"enum": ["fox", "owl"]}, "flies": {"type": "boolean"}}
    schema = {"type": "object", "properties": kinds, "required": ["animal", "flies"], "additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}}
    reply = await chat(client, "what is a fox?", temperature=0, response_format=form)
    said = json.loads(reply.choices[0].message.content)
    assert said["animal"] in ("fox", "owl") and isinstance(said["flies"], bool)
    assert reply.choices[0].finish_reason == "stop"
    free = await chat(client, "what?", temperature=2, seed=1, max_tokens=30, response_format={"type": "json_object"})
    assert free.choices[0].message.content.startswith("{")
    assert "<|" not in free.choices[0].message.content


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "fox"}}}}, "schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": MULTIPLE}}}, "not supported"),
        ({"response_format": {"type": "json_object"}, "modalities": ["text", "image"]}, "`text` alone"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "has not learned to call tools"),
    ],
)
async def test_what_cannot_be_had(client: openai.AsyncOpenAI, fields: dict[str, Any], says: str) -> None:
    """Would catch a wish that the engine refuses and that becomes a 5xx, or harms the engine."""
    with pytest.raises(openai.BadRequestError, match=says):
        await chat(client, "what is a fox?", extra_body=fields)
    assert (await chat(client, "what is a fox?", max_tokens=2)).choices


async def test_a_bias_moves_the_choice(client: openai.AsyncOpenAI, server: RealServer) -> None:
    """Would catch a bias that is accepted and has no effect, in either direction."""
    codec = TextCodec(server.pipeline.checkpoint.folders["backbone"] / "tokenizer.json")
    fields: Any = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 2}
    before = await chat(client, "what is a fox?", **fields)
    first, second = (likely.token for likely in before.choices[0].logprobs.content[0].top_logprobs)
    (token,) = codec.encode_user(first)
    without = await chat(client, "what is a fox?", **fields, logit_bias={str(token): -100})
    assert without.choices[0].message.content == second
    (other,) = codec.encode_user(second)
    pushed = await chat(client, "what is a fox?", **fields, logit_bias={str(other): 100})
    assert pushed.choices[0].message.content == second


async def test_completions(client: openai.AsyncOpenAI, server: RealServer) -> None:
    """Would catch words that are read otherwise than their ids, a stream that says something else, a stop string or a limit
    that does not hold, likelihoods of other tokens, and two prompts of one request that differ from two requests."""
    words = "a fox is"
    options: Any = {"model": MODEL, "temperature": 0, "max_tokens": 8}
    whole = await client.completions.create(prompt=words, logprobs=1, **options)
    text, told = whole.choices[0].text, whole.choices[0].logprobs
    assert told is not None and "".join(told.tokens or []) == text != ""
    codec = TextCodec(server.pipeline.checkpoint.folders["backbone"] / "tokenizer.json")
    assert (await client.completions.create(prompt=codec.encode_user(words), **options)).choices[0].text == text
    pieces = [chunk.choices[0].text async for chunk in await client.completions.create(prompt=words, stream=True, **options)]
    assert "".join(pieces) == text
    both = await client.completions.create(prompt=["여우는", words], **options)
    assert both.choices[1].text == text and both.choices[0].text != text
    stop = text[len(text) // 2 :][:2]  # an answer may be as short as `no`
    stopped = await client.completions.create(prompt=words, stop=stop, **options)
    assert stopped.choices[0].text == text[: text.index(stop)] and stopped.choices[0].finish_reason == "stop"
    assert whole.usage is not None and whole.usage.prompt_tokens == len(codec.encode_user(words))


async def test_the_same_seed_says_the_same_at_every_door(client: openai.AsyncOpenAI, server: RealServer) -> None:
    """Would catch a door that changes the prompt, the seed or the sampling on its way: chat, responses and gRPC, streamed and
    not, on a first turn and on one that goes on."""
    sampled: Any = {"temperature": 1.3, "top_p": 0.95}
    options: Any = {"model": MODEL, "max_output_tokens": 16, **sampled, "extra_body": {"seed": 11}}
    words, more = "what is a fox?", "and an owl?"
    said = (await chat(client, words, seed=11, max_tokens=16, **sampled)).choices[0].message.content
    first = await client.responses.create(input=words, **options)
    assert first.output_text == said != ""
    async with client.responses.stream(input=words, **options) as stream:
        assert (await stream.get_final_response()).output_text == said
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text=words)])
    sampling = content_pb2.Sampling(seed=11, max_tokens=16, **sampled)
    async with rpc_client(server.pipeline) as rpc:
        call = rpc.stub.Generate(omni_service_pb2.GenerateRequest(messages=[message], sampling=sampling))
        replies = [reply async for reply in call]
    assert "".join(reply.text_delta.text for reply in replies if reply.HasField("text_delta")) == said
    history: Any = [*turn("user", words), *turn("assistant", said), *turn("user", more)]
    second = await client.responses.create(input=more, previous_response_id=first.id, **options)
    plain = await client.chat.completions.create(model=MODEL, messages=history, seed=11, max_tokens=16, **sampled)
    assert second.output_text == plain.choices[0].message.content
    assert second.usage is not None and plain.usage is not None
    assert second.usage.input_tokens == plain.usage.prompt_tokens


def turn(role: str, words: str) -> list[dict[str, str]]:
    return [{"role": role, "content": words}]


async def test_a_response_in_every_modality(client: openai.AsyncOpenAI) -> None:
    """Would catch a picture, its previews or a voice that the pipeline makes and that no event tells."""
    tool: Any = {"type": "image_generation", "partial_images": 1}
    spoken = {"modalities": ["text", "audio"], "audio": {"format": "pcm16", "voice": "heart"}, "seed": 1}
    stream: Any = await client.responses.create(
        model=MODEL, input="draw a fox and say it", tools=[tool], temperature=0, stream=True, extra_body=spoken
    )
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole = events[-1].response
    assert events[-1].type == "response.completed"
    (drawn,) = [item for item in whole.output if item.type == "image_generation_call"]
    image = PIL.Image.open(io.BytesIO(base64.b64decode(drawn.result)))
    assert f"{image.width}x{image.height}" == drawn.size
    partial = [event for event in events if event.type == "response.image_generation_call.partial_image"]
    assert len(partial) == 1
    sound = b"".join(base64.b64decode(event.delta) for event in events if event.type == "response.audio.delta")
    assert len(sound) > 1000
    told = "".join(event.delta for event in events if event.type == "response.audio.transcript.delta")
    assert told == whole.output_text != ""
    assert whole.usage.output_tokens_details.audio_tokens > 0
    again = await client.responses.create(model=MODEL, input="what is this?", previous_response_id=whole.id, temperature=0)
    assert again.usage is not None and again.usage.input_tokens_details.image_tokens > 0  # type: ignore[attr-defined]
