"""`/v1/responses`: what items mean for the pipeline, the events that stock clients rely on, and what is kept."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import openai
import pytest

from omni_server.audio_format import to_pcm16
from omni_server.errors import DecodeFailed, EngineUnavailable
from omni_server.types import (
    Event,
    Failed,
    ImagePart,
    ImagePreview,
    Modality,
    ReasoningDelta,
    Request,
    Score,
    SpanClosed,
    SpanOpened,
    TextDelta,
    TextPart,
    ToolCalled,
)
from tests.doubles import Forever, ScriptedPipeline
from tests.rest.scripts import done, door, picture, png_url, served, tone, voice, words
from tests.rest.test_chat import left_within

URL = "/v1/responses"
MODEL = "omni-scripted"
DRAWN = picture(1)
REPLY: list[Event] = [
    ReasoningDelta("Let me "),
    ReasoningDelta("see."),
    *words(0, "A ", "fox."),
    DRAWN[0],
    ImagePreview(1, DRAWN[1].image),  # type: ignore[union-attr]
    *DRAWN[1:],
    *voice(2, tone(0.2)),
    *words(3, " Bye."),
    done(),
]
SPOKEN: dict[str, Any] = {"modalities": ["text", "audio"], "audio": {"format": "pcm16", "voice": "mint"}}
DRAWING = {"type": "image_generation", "partial_images": 1}
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}


def asking(words: Any = "draw a fox", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": words, **fields}


async def meant(**fields: Any) -> Request:
    pipeline = ScriptedPipeline(*words(0, "Hi"), done())
    async with door(pipeline) as client:
        response = await client.post(URL, json=asking(**fields))
    assert response.status_code == 200, response.text
    (request,) = pipeline.requests
    return request


def plain(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def test_events_in_their_order() -> None:
    """Would catch numbers out of order, an item that is not opened or closed, and deltas that do not add up to the whole."""
    async with door(ScriptedPipeline(*REPLY)) as client:
        response = await client.post(URL, json=asking(tools=[DRAWING], stream=True, **SPOKEN))
    lines = [line for line in response.text.split("\n") if line]
    assert all(line.startswith(("event: ", "data: ")) for line in lines)
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [line.removeprefix("event: ") for line in lines if line.startswith("event: ")] == [e["type"] for e in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    whole = events[-1]["response"]
    assert events[-1]["type"] == "response.completed" and whole["status"] == "completed"
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "image_generation_call", "message"]
    for place, item in enumerate(whole["output"]):
        own = [event for event in events if event.get("output_index") == place]
        assert (own[0]["type"], own[-1]["type"]) == ("response.output_item.added", "response.output_item.done")
        assert own[-1]["item"] == item and own[0]["item"]["status"] == "in_progress"
        assert {event["item_id"] for event in own[1:-1]} == {item["id"]}
    text = "".join(event["delta"] for event in plain(events, "response.output_text.delta"))
    assert text == "".join(item["content"][0]["text"] for item in whole["output"] if item["type"] == "message") == "A fox. Bye."
    assert "".join(event["delta"] for event in plain(events, "response.reasoning_text.delta")) == "Let me see."
    sound = "".join(event["delta"] for event in plain(events, "response.audio.delta"))
    assert base64.b64decode(sound) == base64.b64decode(whole["omni"]["audio"]["data"]) == to_pcm16(tone(0.2))
    assert "".join(event["delta"] for event in plain(events, "response.audio.transcript.delta")) == "A fox. Bye."
    assert len(plain(events, "response.audio.done")) == len(plain(events, "response.audio.transcript.done")) == 1
    (partial,) = plain(events, "response.image_generation_call.partial_image")
    assert (partial["partial_image_index"], partial["size"]) == (0, "8x6") and partial["partial_image_b64"]
    assert [segment["type"] for segment in whole["omni"]["segments"]] == ["text", "image", "audio", "text"]


async def test_both_ways_say_the_same() -> None:
    """Would catch a plain answer that lacks what a stream has, or the other way round."""
    async with door(ScriptedPipeline(*REPLY)) as client:
        body = (await client.post(URL, json=asking(**SPOKEN))).json()
        events = events_of_named(await client.post(URL, json=asking(stream=True, **SPOKEN)))
    own = ("id", "created_at", "output")
    assert {k: v for k, v in body.items() if k not in own} == {k: v for k, v in events[-1]["response"].items() if k not in own}
    assert [strip(item) for item in body["output"]] == [strip(item) for item in events[-1]["response"]["output"]]


def strip(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("id", "call_id")}


def events_of_named(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n") if line.startswith("data: ")]


def test_the_stock_client() -> None:
    """Would catch an answer that the client's types or its accumulator refuse, and a follow-up that forgets the turn before."""
    pipeline = ScriptedPipeline(*REPLY)
    with served(pipeline) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        first = client.responses.create(model=MODEL, input="draw a fox", tools=[{"type": "image_generation"}])
        assert first.output_text == "A fox. Bye."
        (drawn,) = [item for item in first.output if item.type == "image_generation_call"]
        assert drawn.result and drawn.status == "completed"
        assert first.usage is not None and (first.usage.input_tokens, first.usage.output_tokens) == (30, 70)
        with client.responses.stream(model=MODEL, input="again", previous_response_id=first.id) as stream:
            kinds = [event.type for event in stream]
            second = stream.get_final_response()
        assert second.output_text == first.output_text and kinds[-1] == "response.completed"
        history = pipeline.requests[-1].messages
        assert [message.role for message in history] == ["user", "assistant", "user"]
        assert history[1].reasoning == "Let me see."
        assert [type(part) for part in history[1].parts] == [TextPart, ImagePart, TextPart]
        assert client.responses.retrieve(second.id).output_text == second.output_text
        client.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            client.responses.retrieve(second.id)
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model=MODEL, input="x", previous_response_id=second.id)
        assert caught.value.param == "previous_response_id"
        back: Any = [{"role": "user", "content": "draw"}, *(item.model_dump() for item in first.output)]
        client.responses.create(model=MODEL, input=[*back, {"role": "user", "content": "and?"}])
        assert pipeline.requests[-1].messages[1].parts[0] == history[1].parts[0]
        assert len(pipeline.requests[-1].messages) == 3


def test_what_a_response_was_made_from() -> None:
    """Would catch items that the client's types refuse, that lose what went before, or that come in one page for all; and a
    `cancel` that says of a response which is over that it was cancelled."""
    pipeline = ScriptedPipeline(*words(0, "A fox."), done())
    with served(pipeline) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        first = client.responses.create(model=MODEL, input="one")
        given: Any = [
            {"role": "user", "content": [{"type": "input_text", "text": "two"}]},
            {"role": "user", "content": "three"},
        ]
        second = client.responses.create(model=MODEL, input=given, previous_response_id=first.id)
        newest = client.responses.input_items.list(second.id, limit=1)
        assert newest.has_more and len(newest.data) == 1
        for order in ("asc", "desc"):
            items: list[Any] = list(client.responses.input_items.list(second.id, order=order, limit=3))  # type: ignore[arg-type]
            said = [item.content[0].text for item in items]
            assert said == ["one", "A fox.", "two", "three"][:: 1 if order == "asc" else -1]
        assert [item.role for item in items] == ["user", "user", "assistant", "user"]
        assert len({item.id for item in items}) == 4 and newest.data[0].id == items[0].id
        with pytest.raises(openai.BadRequestError, match="`after` is `nobody`"):
            client.responses.input_items.list(second.id, after="nobody")
        with pytest.raises(openai.BadRequestError, match="is `completed`; expected one that is made in the background"):
            client.responses.cancel(second.id)
        for ask in (client.responses.cancel, client.responses.input_items.list):
            with pytest.raises(openai.NotFoundError, match="there is no response"):
                ask("resp_nobody")


async def test_functions() -> None:
    """Would catch a call without its id, arguments that stream in no event, and what a tool gave back under a wrong name."""
    pipeline = ScriptedPipeline(ToolCalled(0, "weather", '{"city": "Oslo"}'), done("tool_calls"))
    async with door(pipeline) as client:
        events = events_of_named(await client.post(URL, json=asking("?", tools=[WEATHER], stream=True)))
        whole = events[-1]["response"]
        (call,) = whole["output"]
        given = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        await client.post(URL, json=asking([given], previous_response_id=whole["id"], tools=[WEATHER]))
        await client.post(URL, json=asking([{"role": "user", "content": "?"}, call, given]))
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "weather", '{"city": "Oslo"}')
    assert [event["delta"] for event in plain(events, "response.function_call_arguments.delta")] == [call["arguments"]]
    assert [event["arguments"] for event in plain(events, "response.function_call_arguments.done")] == [call["arguments"]]
    first, second, third = pipeline.requests
    assert first.tools == ({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},)
    assert [message.role for message in second.messages] == ["user", "assistant", "tool"]
    assert second.messages == third.messages
    assert second.messages[1].tool_calls[0].arguments == {"city": "Oslo"}
    assert second.messages[2].tool == "weather"


async def test_fields_reach_the_pipeline() -> None:
    """Would catch a field that is accepted and then lost, and instructions that outlive their turn."""
    schema = {"type": "object"}
    request = await meant(
        instructions="be brief",
        input=[{"role": "user", "content": [{"type": "input_image", "image_url": png_url(), "detail": "auto"}]}],
        temperature=0.5,
        seed=7,
        max_output_tokens=9,
        top_logprobs=2,
        reasoning={"effort": "none", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}},
    )
    system, user = request.messages
    assert (system.role, system.parts) == ("system", (TextPart("be brief"),))
    (image,) = user.parts
    assert isinstance(image, ImagePart) and image.source.param == "input[0].content[0].image_url"
    sampling = request.sampling
    assert (sampling.temperature, sampling.seed, sampling.max_tokens, sampling.logprobs) == (0.5, 7, 9, 2)
    assert sampling.form == schema and request.decode.seed == 7
    assert request.thinking.wanted is False
    drawing = await meant(tools=[DRAWING], include=["message.output_text.logprobs"])
    assert drawing.modalities == {Modality.TEXT, Modality.IMAGE} and drawing.decode.previews == 1
    assert drawing.tools == () and drawing.sampling.logprobs == 0
    assert (await meant(**SPOKEN)).decode.voice == "mint"


async def test_likelihoods() -> None:
    """Would catch likelihoods in another shape than chat's, or in one of the two places only."""
    script = [SpanOpened(0, Modality.TEXT), TextDelta(0, "Hi", (Score("Hi", -0.5, (("Ho", -1.0),)),)), SpanClosed(0), done()]
    async with door(ScriptedPipeline(*script)) as client:
        events = events_of_named(await client.post(URL, json=asking(top_logprobs=1, stream=True)))
    (delta,) = plain(events, "response.output_text.delta")
    (message,) = events[-1]["response"]["output"]
    assert delta["logprobs"] == message["content"][0]["logprobs"]
    assert delta["logprobs"][0]["top_logprobs"] == [{"token": "Ho", "logprob": -1.0, "bytes": [72, 111]}]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"input": []}, "input", "at least 1"),
        ({"input": 3}, "input", "a string or a list of items"),
        ({"input": [{"type": "computer_call"}]}, "input[0]", "`function_call_output`"),
        ({"input": [{"type": "reasoning"}]}, "input", "nothing to answer"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]", "`input_image`"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content", "is empty"),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "data:,a"}]}]},
            "input[0].content",
            "text only",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "[]"}]},
            "input[0].arguments",
            "a JSON object",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "`function` or `image_generation`"),
        ({"tools": [{**DRAWING, "size": "1x1"}]}, "tools[0].size", "expected `auto`"),
        ({"tool_choice": {"type": "image_generation"}}, "tool_choice", "`allowed_tools`"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "none, for there are no `tools`"),
        ({"background": True}, "background", "not supported by this server"),
        ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
        ({"truncation": "auto"}, "truncation", "expected `disabled`"),
        ({"modalities": ["text", "audio"]}, "audio", "is missing"),
        ({"max_tokens": 5}, "max_tokens", "not a field"),
        ({"text": {"format": {"type": "xml"}}}, "text.format", "`json_schema`"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "`resp_1`"),
        ({"model": "gpt-9"}, "model", "`gpt-9`"),
    ],
)
async def test_refusals_name_the_field(fields: dict[str, Any], param: str, says: str) -> None:
    """Would catch a field that is dropped in silence, or an error that does not say where it is."""
    pipeline = ScriptedPipeline()
    async with door(pipeline) as client:
        response = await client.post(URL, json=asking(**fields))
    error = response.json()["error"]
    assert (response.status_code in (400, 404), error["param"]) == (True, param), error
    assert says in error["message"]
    assert not pipeline.requests


async def test_a_cut_reply_is_incomplete() -> None:
    """Would catch half an answer that looks whole."""
    async with door(ScriptedPipeline(*words(0, "Hi"), done("length"))) as client:
        body = (await client.post(URL, json=asking())).json()
        events = events_of_named(await client.post(URL, json=asking(stream=True)))
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert events[-1]["type"] == "response.incomplete"


async def test_failures() -> None:
    """Would catch a failure that looks like an end, a status 200 for one that comes first, and a kept half of an answer."""
    gone = Failed(EngineUnavailable("the engine is gone"))
    async with door(ScriptedPipeline(SpanOpened(0, Modality.TEXT), TextDelta(0, "Hi"), gone)) as client:
        events = events_of_named(await client.post(URL, json=asking(stream=True)))
        midway = await client.post(URL, json=asking())
        kept = await client.get(f"{URL}/{events[-1]['response']['id']}")
    async with door(ScriptedPipeline(gone)) as client:
        early = await client.post(URL, json=asking(stream=True))
    assert (events[-1]["type"], events[-1]["response"]["status"]) == ("response.failed", "failed")
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "the engine is gone"}
    assert (midway.status_code, early.status_code, kept.status_code) == (503, 503, 404)
    assert midway.headers["x-should-retry"] == "true"


async def test_a_picture_that_cannot_be_made_ends_its_item_only() -> None:
    """Would catch a lost picture that looks like one nobody wanted, or that takes the words with it."""
    script = [SpanOpened(0, Modality.IMAGE), SpanClosed(0, DecodeFailed("no picture")), *words(1, "Sorry."), done()]
    async with door(ScriptedPipeline(*script)) as client:
        body = (await client.post(URL, json=asking(tools=[DRAWING]))).json()
    drawn, said = body["output"]
    assert (drawn["status"], drawn["error"]["message"], drawn["result"]) == ("failed", "no picture", None)
    assert (body["status"], said["content"][0]["text"]) == ("completed", "Sorry.")


async def test_what_is_not_to_be_stored() -> None:
    """Would catch words that are kept against their owner's wish."""
    async with door(ScriptedPipeline(*words(0, "Hi"), done())) as client:
        body = (await client.post(URL, json=asking(store=False))).json()
        assert body["store"] is False
        assert (await client.get(f"{URL}/{body['id']}")).status_code == 404
        assert (await client.delete(f"{URL}/{body['id']}")).status_code == 404


def test_a_client_that_goes_away_ends_the_work() -> None:
    """Would catch work that goes on for nobody."""
    pipeline = ScriptedPipeline(SpanOpened(0, Modality.TEXT), TextDelta(0, "Hi"), Forever())
    with served(pipeline) as url, httpx.Client(base_url=url) as client:
        with client.stream("POST", URL, json=asking(stream=True)) as response:
            assert next(response.iter_lines()) == "event: response.created"
        assert left_within(pipeline, 5)
